"""The base class of learners that solve for a linear head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import SOLVES
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder


class ClosedFormHead(FeatureLearner):
    """A learner whose linear head solves a convex problem on the encoded support set;
    the encoder is learned through the solution.

    The state is the weight (ways, d + 1) of the head: features are divided by the
    square root of d, and a 1 is appended, whose weight is the bias.

    Args:
        encoder: the network f, whose d features are divided by the square root of d.
        scale: initial value of the learned scale of the outputs.
    """

    encoder: nn.Module
    _: KW_ONLY
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=5,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )
    regression_defaults: ClassVar[dict[str, Any]] = {"scale": 1.0}
    export_problem = SOLVES

    def __post_init__(self) -> None:
        if self.likelihood not in (Categorical(), Gaussian()):
            raise InnerloopError(
                f"{type(self).__name__} predicts class scores or means, without a "
                f"scale: {self.likelihood} cannot read them"
            )
        self.log_scale = log_parameter(self.scale)
        self.shift = nn.Parameter(torch.tensor(0.0))
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {"encoder": encoder(spec, build_args.get("encoder"))}

    @abstractmethod
    def solve(self, z: Tensor, y: Tensor) -> Tensor:
        """The weight (ways, d + 1) of the head, from features z (n, d + 1) and targets
        y (n, ways).
        """

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d + 1), the last of them 1."""
        z = widened(self.encoder(x).flatten(1))
        return torch.cat([z / z.shape[1] ** 0.5, torch.ones_like(z[:, :1])], 1)

    def learned(self, z: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return self.solve(z, y)

    def answers(self, state: Tensor, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return self.log_scale.exp() * z @ state.T + self.shift  # (m, ways)
