"""Modules that are composed anew for every task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from itertools import combinations_with_replacement, product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.precision import widened
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder, flat_features

State = tuple[Tensor, Tensor]
MOST = 4096  # structures that are tried, at most


class Modular(FeatureLearner):
    """Modular meta-learning: a library of small networks is learned, and for a task the
    structure that fits its support set best is sought among all.

    outputs = sum or chain of m_(s_1), ..., m_(s_slots) on f(x), s = argmin support loss
    Alet, Lozano-Perez and Kaelbling 2018, "Modular meta-learning", arXiv:1806.10166,
    section 3; there structures are found by simulated annealing, here all are tried
    Its objective is the query loss of all structures, each by its share: softmax(-n
    support loss / temperature), of n examples, at a temperature that falls to a
    hundredth in the course of training.
    State: which structure is best (structures,), one-hot, and of classes the means of
    each (structures, ways, d).

    encoder: f. library: how many modules there are. slots: how many a structure has.
    width: units of a module's hidden layer.
    compose: the "sum" of what the modules say of f(x), or a "chain", where each reads
        what the one before has said. Of reals this is the answer; of classes it is
        added to the features, and the nearest class mean wins. temperature: where it
        begins, in nats. scale: where the learned scale of distances begins.
    """

    encoder: nn.Module
    features: int
    out: int
    _: KW_ONLY
    library: int = 8
    slots: int = 2
    compose: Literal["sum", "chain"] = "sum"
    width: int = 32
    temperature: float = 1.0
    scale: float = 0.1
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(queries=5, batch=16, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InnerloopError(
                f"the temperature must be positive, not {self.temperature}"
            )
        if self.compose == "chain" and self.features != self.out:
            raise InnerloopError(
                f"in a chain a module reads what another said, but these read {self.features} numbers and say {self.out}: use a sum"
            )
        if self.library**self.slots > MOST:
            raise InnerloopError(
                f"{self.library} modules in {self.slots} slots are {self.library**self.slots} structures, and at most {MOST} are tried"
            )
        every = range(self.library)
        found = (
            product(every, repeat=self.slots)
            if self.compose == "chain"
            else combinations_with_replacement(every, self.slots)
        )
        # (structures, slots)
        self.register_buffer("structures", torch.tensor(list(found)))
        self.into = nn.Parameter(
            torch.randn(self.library, self.features + 1, self.width)
            / (self.features + 1) ** 0.5
        )
        self.onto = nn.Parameter(
            torch.randn(self.library, self.width + 1, self.out)
            / (self.width + 1) ** 0.5
        )
        self.log_scale, self.now = (
            positive(self.scale, "the scale of distances"),
            self.temperature,
        )
        super().__post_init__()

    def on_progress(self, progress: float) -> None:
        self.now = self.temperature * 0.01 ** (math.floor(20 * progress) / 20)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"), vector="flatten")
        features = flat_features(body, spec)
        return {
            "encoder": body,
            "features": features,
            "out": features if spec.kind == "classes" else out_dim,
        }

    def embed(self, x: Tensor) -> Tensor:
        return widened(self.encoder(x).flatten(1))  # (m, features)

    def learned(self, z: Tensor, y: Tensor) -> State:
        said = self._said(z)
        means = self._means(said, y)
        best = self._losses(self._answers(said, means), y).argmin()
        return (torch.arange(len(said), device=best.device) == best).to(
            said.dtype
        ), means

    def answers(self, state: State, z: Tensor) -> Tensor:
        outputs = self._answers(self._said(z), state[1])
        # (m, out_dim)
        return (state[0].to(outputs.dtype)[:, None, None] * outputs).sum(0)

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        said = self._said(z)
        means = self._means(said, y)
        losses, outputs = (
            self._losses(self._answers(said, means), y),
            self._answers(self._said(asked), means),
        )
        share = (-len(y) * losses / self.now).softmax(0)  # (structures,)
        best = (torch.arange(len(share), device=z.device) == losses.argmin())[
            :, None, None
        ] * outputs
        return (share * self._losses(outputs, wanted)).sum(), self.likelihood.metrics(
            best.sum(0), wanted
        )

    def _said(self, z: Tensor) -> Tensor:
        """What every structure says of features z (m, features): (structures, m,
        out).
        """
        with torch.autocast(z.device.type, enabled=False):
            if self.compose == "sum":
                said = self._module(z)[self.get_buffer("structures")].sum(1)
            else:
                said = z[None]
                for _ in range(self.slots):
                    said = self._module(said[:, None]).flatten(0, 1)
            return z + said if isinstance(self.likelihood, Categorical) else said

    def _module(self, z: Tensor) -> Tensor:
        """What every module says of z (..., m, features): (..., modules, m, out)."""
        h = (z @ self.into[:, :-1] + self.into[:, -1:]).relu()
        return h @ self.onto[:, :-1] + self.onto[:, -1:]

    def _means(self, said: Tensor, y: Tensor) -> Tensor:
        """Class means (structures, ways, d), or nothing for reals."""
        return (
            torch.vmap(class_means, (0, None))(said, y)
            if isinstance(self.likelihood, Categorical)
            else said.new_zeros(0)
        )

    def _answers(self, said: Tensor, means: Tensor) -> Tensor:
        """The outputs of every structure (structures, m, out_dim)."""
        return (
            -self.log_scale.exp() * torch.vmap(squared_distance)(said, means)
            if isinstance(self.likelihood, Categorical)
            else said
        )

    def _losses(self, answers: Tensor, y: Tensor) -> Tensor:
        return torch.vmap(self.likelihood.nll, (0, None))(answers, y)  # (structures,)
