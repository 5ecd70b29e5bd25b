"""Gaussian processes on learned features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.learner import SOLVES
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood, Metrics
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Positive
from innerloop.engine.precision import widened
from innerloop.engine.solvers import solvable
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import cosine_similarity, squared_distance
from innerloop.learners.neural_processes.layers import gaussian_outputs
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder

Posterior = tuple[Tensor, Tensor, Tensor]


class DKT(FeatureLearner):
    """Deep kernel transfer: Gaussian process regression with a meta-learned kernel.

    mean = k(x, Z) K^-1 Y, variance = k(x, x) + noise - k(x, Z) K^-1 k(Z, x), K = k(Z,
    Z) + noise I; for classes, targets are 1 and -1, and the logit of a class is 2 mean
    / variance, the log odds of 1 and -1

    Reference: Patacchiola, Turner, Crowley, O'Boyle and Storkey 2020, "Bayesian
    meta-learning for the few-shot setting via deep kernels", arXiv:1910.05199, eq.
    (3)-(8).

    Objective: the negative log marginal likelihood of all examples of a task, in nats
    per target.

    State: the features (n, d) of the support set, the inverse of K (n, n) and K^-1 Y
    (n, y_dim).

    Args:
        encoder: the features.
        similarity: the kernel of the features, with a learned scale.
        bandwidth: initial value of the learned length scale of "rbf", on features
            divided by the square root of their number.
        noise: initial value of the learned noise variance.
    """

    encoder: nn.Module
    _: KW_ONLY
    similarity: Literal["cosine", "linear", "rbf"] = "cosine"
    bandwidth: Positive = 1.0
    noise: Positive = 0.1
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {
        "similarity": "rbf",
        "likelihood": Gaussian(learned_scale=True),
    }
    export_problem = SOLVES
    defaults = MetaTrainConfig(
        ways=5, shots=1, queries=5, batch=4, optimizer="Adam", lr=1e-3
    )

    def __post_init__(self) -> None:
        self.log_noise = log_parameter(self.noise)
        self.log_bandwidth = log_parameter(self.bandwidth)
        self.log_height = log_parameter(1.0)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"encoder": encoder(spec, build_args.get("encoder"))}

    @solvable()
    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        outputs = self.answers(self.learned(z, y), query_z)
        metrics = self.likelihood.metrics(outputs, query_y)
        z = torch.cat([z, query_z])
        targets = self._targets(torch.cat([y, query_y]))
        with torch.autocast(z.device.type, enabled=False):
            root = torch.linalg.cholesky(self._gram(z))  # (n + m, n + m)
            whitened = torch.linalg.solve_triangular(root, targets, upper=False)
        squares = whitened.square().sum(0)  # (y_dim,)
        log_det = root.diagonal().log().sum()
        nll = 0.5 * squares + log_det + 0.5 * len(z) * math.log(2 * math.pi)
        return nll.mean() / len(z), metrics

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d), divided by the square root of d."""
        z = widened(self.encoder(x).flatten(1))
        return z / z.shape[1] ** 0.5

    @solvable()
    def learned(self, z: Tensor, y: Tensor) -> Posterior:
        with torch.autocast(z.device.type, enabled=False):
            inverse = torch.linalg.inv(self._gram(z))  # (n, n)
            return z, inverse, inverse @ self._targets(y)

    def answers(self, state: Posterior, z: Tensor) -> Tensor:
        support_z, inverse, solved = state
        with torch.autocast(z.device.type, enabled=False):
            k = self._kernel(z, support_z)  # (m, n)
            mean = k @ solved  # (m, y_dim)
            linear = self.similarity == "linear"
            own = z.square().sum(-1) if linear else torch.ones_like(z[:, 0])
            explained = ((k @ inverse) * k).sum(-1)
            variance = (self.log_height.exp() * own - explained).clamp_min(0)
            variance = variance + self.log_noise.exp()  # (m,)
        return gaussian_outputs(self.likelihood, mean, variance)

    def _targets(self, y: Tensor) -> Tensor:
        return 2 * y - 1 if isinstance(self.likelihood, Categorical) else y

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        if self.similarity == "rbf":
            bandwidth = self.log_bandwidth.exp()
            k = (-0.5 * squared_distance(a, b) / bandwidth.square()).exp()
        elif self.similarity == "cosine":
            k = cosine_similarity(a, b)
        else:
            k = a @ b.T
        return self.log_height.exp() * k  # (m, n)

    def _gram(self, z: Tensor) -> Tensor:
        noise = self.log_noise.exp() + 1e-5
        identity = torch.eye(len(z), device=z.device, dtype=z.dtype)
        return self._kernel(z, z) + noise * identity
