"""Gaussian processes on learned features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood, Metrics
from innerloop.core.task import TaskSpec
from innerloop.engine.precision import widened
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import cosine_similarity, squared_distance
from innerloop.learners.neural_processes.layers import unsoftplus
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder

State = tuple[Tensor, Tensor, Tensor]


class DKT(FeatureLearner):
    """Deep kernel transfer: Gaussian process regression on learned features, exact;
    what is learned is the kernel.

    mean = k(x, Z) K^-1 Y, variance = k(x, x) + noise - k(x, Z) K^-1 k(Z, x), K = k(Z,
    Z) + noise I; a class is regressed to 1, all others to -1, and its logit is 2 mean /
    variance, the log odds of 1 and -1
    Patacchiola, Turner, Crowley, O'Boyle and Storkey 2020, "Bayesian meta-learning for
    the few-shot setting via deep kernels", arXiv:1910.05199, eq. (3)-(8)
    Its objective is no query likelihood after adapting: it is the negative log marginal
    likelihood of all examples of a task, in nats a target. State: the features (n, d)
    of the support set, K's inverse (n, n) and K^-1 Y (n, y_dim).

    encoder: the features. similarity: the kernel, "cosine" of them, "linear" or "rbf",
        with a learned scale. bandwidth: where the learned length scale of "rbf" begins,
        on features divided by the root of their number. noise: where the learned noise
        variance begins.
    """

    encoder: nn.Module
    _: KW_ONLY
    similarity: Literal["cosine", "linear", "rbf"] = "cosine"
    bandwidth: float = 1.0
    noise: float = 0.1
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {
        "similarity": "rbf",
        "likelihood": Gaussian(learned_scale=True),
    }
    defaults = MetaTrainConfig(
        ways=5, shots=1, queries=5, batch=4, optimizer="Adam", lr=1e-3
    )

    def __post_init__(self) -> None:
        self.log_noise, self.log_bandwidth = (
            positive(self.noise, "the noise variance"),
            positive(self.bandwidth, "the bandwidth"),
        )
        self.log_height = positive(1.0, "the height")
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"encoder": encoder(spec, build_args.get("encoder"))}

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        outputs = self.answers(self.learned(z, y), asked)
        metrics = self.likelihood.metrics(outputs, wanted)
        z, targets = torch.cat([z, asked]), self._targets(torch.cat([y, wanted]))
        with torch.autocast(z.device.type, enabled=False):
            root = torch.linalg.cholesky(self._gram(z))
            # (n, y_dim)
            solved = torch.linalg.solve_triangular(root, targets, upper=False)
        # (y_dim,)
        nll = (
            0.5 * solved.square().sum(0)
            + root.diagonal().log().sum()
            + 0.5 * len(z) * math.log(2 * math.pi)
        )
        return nll.mean() / len(z), metrics

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d), divided by the root of d."""
        z = widened(self.encoder(x).flatten(1))
        return z / z.shape[1] ** 0.5

    def _targets(self, y: Tensor) -> Tensor:
        return 2 * y - 1 if isinstance(self.likelihood, Categorical) else y

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        if self.similarity == "rbf":
            similar = (
                -0.5 * squared_distance(a, b) / self.log_bandwidth.exp().square()
            ).exp()
        else:
            similar = cosine_similarity(a, b) if self.similarity == "cosine" else a @ b.T
        return self.log_height.exp() * similar  # (m, n)

    def _gram(self, z: Tensor) -> Tensor:
        return self._kernel(z, z) + (self.log_noise.exp() + 1e-5) * torch.eye(
            len(z), device=z.device, dtype=z.dtype
        )

    def learned(self, z: Tensor, y: Tensor) -> State:
        with torch.autocast(z.device.type, enabled=False):
            inverse = torch.linalg.inv(self._gram(z))  # (n, n)
            return z, inverse, inverse @ self._targets(y)

    def answers(self, state: State, z: Tensor) -> Tensor:
        known, inverse, solved = state
        with torch.autocast(z.device.type, enabled=False):
            k = self._kernel(z, known)  # (m, n)
            mean = k @ solved  # (m, y_dim)
            alike = (
                torch.ones_like(z[:, 0])
                if self.similarity != "linear"
                else z.square().sum(-1)
            )
            # (m,)
            variance = (
                self.log_height.exp() * alike - ((k @ inverse) * k).sum(-1)
            ).clamp_min(0) + self.log_noise.exp()
        if isinstance(self.likelihood, Categorical):
            return 2 * mean / variance[:, None]
        if not (
            isinstance(self.likelihood, Gaussian) and self.likelihood.learned_scale
        ):
            return mean
        raw = unsoftplus((variance.sqrt() - 0.01) / 0.99)  # (m,)
        return torch.cat([mean, raw[:, None].expand_as(mean)], -1)
