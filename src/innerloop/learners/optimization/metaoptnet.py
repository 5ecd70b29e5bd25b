"""A support vector machine as the inner loop."""

from __future__ import annotations

from dataclasses import KW_ONLY

from torch import Tensor

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.errors import InnerloopError
from innerloop.engine.solvers import support_vectors
from innerloop.learners.optimization.closed_form_head import ClosedFormHead


class MetaOptNet(ClosedFormHead):
    """MetaOptNet: the head is a multi-class support vector machine on the encoded
    support set, solved to the end.

    W = argmin 1/2 |W|^2 + C sum_i xi_i, w_(y_i) z_i - w_k z_i >= [k is not y_i] - xi_i;
    outputs = scale W f(x), with the scale learned Lee, Maji, Ravichandran and Soatto
    2019, "Meta-learning with differentiable convex optimization", arXiv:1904.03758, eq.
    (4)-(8); the machine: Crammer and Singer 2001
    State: W (ways, d + 1); the last column is the bias.

    encoder: f; its d features are divided by the root of d. C: the price of a slack.
    scale: where the learned scale of the outputs begins. solver_steps: of the
    interior-point method.
    """

    _: KW_ONLY
    C: float = 1.0
    scale: float = 10.0
    solver_steps: int = 25
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    def __post_init__(self) -> None:
        if self.C <= 0:
            raise InnerloopError(f"the price of a slack must be positive, not {self.C}")
        super().__post_init__()

    def solve(self, z: Tensor, y: Tensor) -> Tensor:
        return support_vectors(z @ z.T, y, self.C, self.solver_steps).T @ z
