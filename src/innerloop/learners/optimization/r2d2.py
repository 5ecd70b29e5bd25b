"""Ridge regression as the inner loop."""

from __future__ import annotations

from dataclasses import KW_ONLY

from torch import Tensor

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.options import Positive
from innerloop.engine.solvers import ridge
from innerloop.learners.optimization.closed_form_head import ClosedFormHead
from innerloop.nets.log_parameter import log_parameter


class R2D2(ClosedFormHead):
    """R2-D2: a ridge regression head, solved in closed form.

    W = Y' (Z Z' + strength I)^-1 Z; outputs = scale W f(x) + shift, with learned
    strength, scale and shift

    Reference: Bertinetto, Henriques, Torr and Vedaldi 2019, "Meta-learning with
    differentiable closed-form solvers", arXiv:1805.08136, eq. (4)-(8).

    State: W (ways, d + 1); the last column is the bias.

    Args:
        strength: initial value of the learned strength of the regularization.
    """

    _: KW_ONLY
    strength: Positive = 0.1
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    def __post_init__(self) -> None:
        self.log_strength = log_parameter(self.strength)
        super().__post_init__()

    def solve(self, z: Tensor, y: Tensor) -> Tensor:
        return ridge(z, y, self.log_strength.exp())
