"""Modules that are composed for every task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from itertools import combinations_with_replacement, product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder, flat_features

# which structure is best, one-hot, and the class means of each
State = tuple[Tensor, Tensor]
MOST = 4096  # structures to try, at most
ANNEALED = 0.01  # final temperature, as a share of the initial one
STAGES = 20  # in which the temperature falls


class Modular(FeatureLearner):
    """Modular meta-learning: finds the best composition of learned modules for a task.

    outputs = sum or chain of m_(s_1), ..., m_(s_slots) on f(x), s = argmin support loss

    Reference: Alet, Lozano-Pérez and Kaelbling 2018, "Modular meta-learning",
    arXiv:1806.10166, section 3. In the paper structures are found by simulated
    annealing; here all of them are tried.

    Objective: the query loss of all structures, weighted by softmax(-n support loss /
    temperature) for n support examples, with a temperature that falls to a hundredth in
    the course of training.

    State: which structure is best (structures,), one-hot; for classes, the means of
    each (structures, ways, d).

    Args:
        encoder: the network f.
        features: size of the features.
        out: size of a module's output.
        library: number of modules.
        slots: modules in a structure.
        compose: the "sum" of the modules' outputs for f(x), or a "chain", where each
            module reads the output of the one before. For reals this is the prediction;
            for classes it is added to the features, and the nearest class mean is
            predicted.
        width: units of a module's hidden layer.
        temperature: initial temperature, in nats.
        scale: initial value of the learned scale of distances.
    """

    encoder: nn.Module
    features: int
    out: int
    _: KW_ONLY
    library: Count = 8
    slots: Count = 2
    compose: Literal["sum", "chain"] = "sum"
    width: Count = 32
    temperature: Positive = 1.0
    scale: Positive = 0.1
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(queries=5, batch=16, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compose == "chain" and self.features != self.out:
            raise InnerloopError(
                'compose="chain" needs modules with as many outputs as inputs; got '
                f'{self.features} inputs and {self.out} outputs: use compose="sum"'
            )
        count = self.library**self.slots
        if count > MOST:
            raise InnerloopError(
                f"library ** slots must be at most {MOST}, because all structures are "
                f"tried; got {self.library} ** {self.slots}"
            )
        modules = range(self.library)
        structures = (
            product(modules, repeat=self.slots)
            if self.compose == "chain"
            else combinations_with_replacement(modules, self.slots)
        )
        # (structures, slots)
        self.register_buffer("structures", torch.tensor(list(structures)))
        self.hidden = self._layers(self.features + 1, self.width)
        self.output = self._layers(self.width + 1, self.out)
        self.log_scale = log_parameter(self.scale)
        self.annealed = self.temperature

    def _layers(self, inputs: int, outputs: int) -> nn.Parameter:
        """A linear layer for every module, the last row the bias."""
        return nn.Parameter(torch.randn(self.library, inputs, outputs) / inputs**0.5)

    def on_progress(self, progress: float) -> None:
        stage = math.floor(STAGES * progress) / STAGES
        self.annealed = self.temperature * ANNEALED**stage

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
        composed = self._composed(z)
        means = self._means(composed, y)
        losses = self._losses(self._outputs(composed, means), y)
        return self._best(losses).to(composed.dtype), means

    def answers(self, state: State, z: Tensor) -> Tensor:
        best, means = state
        outputs = self._outputs(self._composed(z), means)
        weights = best.to(outputs.dtype)[:, None, None]
        return (weights * outputs).sum(0)  # (m, out_dim)

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        composed = self._composed(z)
        means = self._means(composed, y)
        losses = self._losses(self._outputs(composed, means), y)
        outputs = self._outputs(self._composed(query_z), means)
        weights = (-len(y) * losses / self.annealed).softmax(0)  # (structures,)
        loss = (weights * self._losses(outputs, query_y)).sum()
        best = (self._best(losses)[:, None, None] * outputs).sum(0)
        return loss, self.likelihood.metrics(best, query_y)

    def _best(self, losses: Tensor) -> Tensor:
        """Whether a structure has the lowest loss (structures,)."""
        return torch.arange(len(losses), device=losses.device) == losses.argmin()

    def _composed(self, z: Tensor) -> Tensor:
        """The output of every structure for features z (m, features), with these added
        for classes: (structures, m, out).
        """
        with torch.autocast(z.device.type, enabled=False):
            if self.compose == "sum":
                composed = self._modules_of(z)[self.get_buffer("structures")].sum(1)
            else:
                composed = z[None]
                for _ in range(self.slots):
                    composed = self._modules_of(composed[:, None]).flatten(0, 1)
        return z + composed if isinstance(self.likelihood, Categorical) else composed

    def _modules_of(self, z: Tensor) -> Tensor:
        """The output of every module for z (..., m, features): (..., modules, m,
        out).
        """
        h = (z @ self.hidden[:, :-1] + self.hidden[:, -1:]).relu()
        return h @ self.output[:, :-1] + self.output[:, -1:]

    def _means(self, composed: Tensor, y: Tensor) -> Tensor:
        """Class means (structures, ways, d); empty for reals."""
        if not isinstance(self.likelihood, Categorical):
            return composed.new_zeros(0)
        return torch.vmap(class_means, (0, None))(composed, y)

    def _outputs(self, composed: Tensor, means: Tensor) -> Tensor:
        """The outputs of every structure (structures, m, out_dim)."""
        if not isinstance(self.likelihood, Categorical):
            return composed
        return -self.log_scale.exp() * torch.vmap(squared_distance)(composed, means)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.vmap(self.likelihood.nll, (0, None))(outputs, y)  # (structures,)
