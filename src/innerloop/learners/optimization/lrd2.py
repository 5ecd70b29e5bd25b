"""Logistic regression as the inner loop."""

from __future__ import annotations

from dataclasses import KW_ONLY

from torch import Tensor

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.options import Count, Positive
from innerloop.engine.solvers import logistic
from innerloop.learners.optimization.closed_form_head import ClosedFormHead
from innerloop.nets.log_parameter import log_parameter


class LRD2(ClosedFormHead):
    """LR-D2: a logistic regression head, solved by Newton's method.

    w_k = argmin_w sum_i log(1 + exp(w z_i)) - y_ik w z_i + strength / 2 |w|^2; outputs
    = scale W f(x) + shift, with learned strength, scale and shift

    Reference: Bertinetto, Henriques, Torr and Vedaldi 2019, "Meta-learning with
    differentiable closed-form solvers", arXiv:1805.08136, section 3.3.

    State: W (ways, d + 1); the last column is the bias.

    Args:
        strength: initial value of the learned strength of the regularization.
        newton_steps: number of Newton steps, each a weighted ridge regression.
    """

    _: KW_ONLY
    strength: Positive = 0.1
    scale: Positive = 3.0
    newton_steps: Count = 5
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    def __post_init__(self) -> None:
        self.log_strength = log_parameter(self.strength)
        super().__post_init__()

    def solve(self, z: Tensor, y: Tensor) -> Tensor:
        return logistic(z, y, self.log_strength.exp(), self.newton_steps)
