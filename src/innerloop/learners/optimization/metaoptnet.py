"""A support vector machine as the inner loop."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

from torch import Tensor

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.options import Count, Positive
from innerloop.engine.solvers import support_vectors
from innerloop.learners.optimization.closed_form_head import ClosedFormHead


class MetaOptNet(ClosedFormHead):
    """MetaOptNet: a support vector machine head, solved to convergence.

    W = argmin 1/2 |W|^2 + C sum_i xi_i, w_(y_i) z_i - w_k z_i >= [k is not y_i] - xi_i;
    outputs = scale W f(x) + shift, with learned scale and shift

    Reference: Lee, Maji, Ravichandran and Soatto 2019, "Meta-learning with
    differentiable convex optimization", arXiv:1904.03758, eq. (4)-(8).

    The machine is that of Crammer and Singer 2001, "On the algorithmic implementation
    of multiclass kernel-based vector machines", JMLR 2. Defaults differ from the paper:
    C is 1 instead of 0.1, and tasks have 20 ways and one shot.

    State: W (ways, d + 1); the last column is the bias.

    Args:
        C: weight of the slack variables.
        solver_steps: steps of the interior-point method.
    """

    _: KW_ONLY
    C: Positive = 1.0
    scale: Positive = 10.0
    solver_steps: Count = 25
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "fields": {"C": 0.1},
            "config": {
                "ways": 5,
                "shots": 15,
                "queries": 6,
                "batch": 8,
                "optimizer": "SGD",
                "lr": 0.1,
                "momentum": 0.9,
                "weight_decay": 5e-4,
            },
        }

    def solve(self, z: Tensor, y: Tensor) -> Tensor:
        return support_vectors(z @ z.T, y, self.C, self.solver_steps).T @ z
