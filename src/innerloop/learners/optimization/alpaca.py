"""Bayesian linear regression on learned features, with a learned prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import SOLVES
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Positive
from innerloop.engine.precision import widened
from innerloop.engine.solvers import solvable
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.neural_processes.layers import gaussian_outputs
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder, flat_features


class ALPaCA(FeatureLearner):
    """ALPaCA: Bayesian linear regression with a learned prior.

    L = Z' Z + L_0, K = L^-1 (Z' Y + L_0 K_0); mean = K' z, variance = (1 + z' L^-1 z)
    noise, with learned K_0, L_0 (diagonal), noise and features z

    Reference: Harrison, Sharma and Pavone 2018, "Meta-learning priors for efficient
    online Bayesian regression", arXiv:1807.08912, Algorithms 1 and 2.

    Where inputs are items that persons rate, z are the factors of an item, K those of a
    person, and K_0 those of a person about whom nothing is known. Differs from the
    paper: classes too, as targets of 1 and -1, where the logit of a class is 2 mean /
    variance, the log odds of 1 and -1.

    State: K (d + 1, y_dim) and L^-1 (d + 1, d + 1); the last feature is 1.

    Args:
        encoder: the network whose d features, divided by the square root of d, are z.
        features: the number d.
        y_dim: size of a target.
        precision: initial value of the diagonal of L_0.
        noise: initial value of the learned noise variance.
    """

    encoder: nn.Module
    features: int
    y_dim: int
    _: KW_ONLY
    precision: Positive = 5.0
    noise: Positive = 1.0
    likelihood: Likelihood = Categorical()

    home = "ratings"
    fixed_ways = True
    export_problem = SOLVES
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }
    defaults = MetaTrainConfig(
        shots=5, queries=5, batch=16, optimizer="AdamW", lr=1e-2, weight_decay=0.1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.features + 1
        self.prior = nn.Parameter(torch.zeros(size, self.y_dim))  # K_0
        self.log_precision = nn.Parameter(
            log_parameter(self.precision).detach().repeat(size)
        )
        self.log_noise = log_parameter(self.noise)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        features = flat_features(body, spec)
        return {"encoder": body, "features": features, "y_dim": spec.y_dim}

    def embed(self, x: Tensor) -> Tensor:
        z = widened(self.encoder(x).flatten(1))
        return torch.cat([z / z.shape[1] ** 0.5, torch.ones_like(z[:, :1])], 1)

    @solvable()
    def learned(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        targets = 2 * y - 1 if isinstance(self.likelihood, Categorical) else y
        with torch.autocast(z.device.type, enabled=False):
            inverse = torch.linalg.inv(z.T @ z + self.log_precision.exp().diag())
            residual = targets - z @ self.prior  # (n, y_dim)
            return self.prior + inverse @ (z.T @ residual), inverse

    def answers(self, state: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        K, inverse = state
        with torch.autocast(z.device.type, enabled=False):
            spread = 1 + ((z @ inverse) * z).sum(-1)  # (m,)
            variance = spread * self.log_noise.exp()
            return gaussian_outputs(self.likelihood, z @ K, variance)
