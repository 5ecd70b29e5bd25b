"""Fine-tuning: Baseline and Baseline++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import functional_call
from innerloop.engine.gradient_descent import descend
from innerloop.engine.options import CountOrZero
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.learners.metric.distances import class_means
from innerloop.nets.registry import encoder, flat_features


def cosine_scores(z: Tensor, weight: Tensor, scale: float = 10.0) -> Tensor:
    """Scaled cosine similarities: features (n, d) and class vectors (ways, d) to (n,
    ways).
    """
    return scale * F.linear(F.normalize(z, dim=-1), F.normalize(weight, dim=-1))


class CosineHead(nn.Module):
    """A head whose class scores are scaled cosine similarities: features (n, d) to (n,
    ways).
    """

    def __init__(self, features: int, ways: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(ways, features) / features**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return cosine_scores(z, self.weight)


def _last(net: nn.Module) -> str:
    """The name of a network's last block: the last entry with weights of its last list
    of modules, else its last child with weights.

    Raises ValueError for a network without weights.
    """
    lists = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.ModuleList) and any(True for _ in module.parameters())
    ]
    within = net.get_submodule(lists[-1]) if lists else net
    found = [
        name
        for name, child in within.named_children()
        if any(p.dim() > 1 for p in child.parameters())
    ]
    if not found:
        raise InnerloopError(
            "this encoder has no blocks with weights, so none of them is the last: adapt the head alone"
        )
    return f"{lists[-1]}.{found[-1]}" if lists else found[-1]


class FineTune(ClassIncremental):
    """Fine-tuning: learn features by classifying all training classes at once, then
    train a new head, or more, on the support set.

    head <- head - inner_lr * grad(support cross-entropy), and so what is adapted of the
    encoder, at its own rate
    Chen, Liu, Kira, Wang and Huang 2019, "A closer look at few-shot classification",
    arXiv:1904.04232, section 3.1
    Its objective is no query likelihood after adapting: it is the cross-entropy of all
    training classes (labels never change).
    State: the weights of the task's head, "weight" and "bias", and those that are
    adapted of the encoder, a dict name -> tensor.

    encoder: the features. base: the head over the training classes, dropped after
    training.
    head: "linear" (Baseline) or "cosine" (Baseline++). inner_lr, inner_steps:
    full-batch gradient descent; the paper takes 100 steps. adapted: the "head" alone,
    as in the paper, also the "last" layer or block of the encoder, or "all" of it.
    encoder_lr: the step size there.
    """

    encoder: nn.Module
    base: nn.Module
    head: Literal["linear", "cosine"] = "linear"
    _: KW_ONLY
    inner_lr: float = 0.1
    inner_steps: CountOrZero = 100
    adapted: Literal["head", "last", "all"] = "head"
    encoder_lr: float = 0.01
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(batch=128, optimizer="AdamW", lr=2e-3, supervised=True)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        body = encoder(spec, build_args.get("encoder"))
        features = flat_features(body, spec)
        return {
            "encoder": body,
            "base": CosineHead(features, out_dim)
            if build_args.get("head") == "cosine"
            else nn.Linear(features, out_dim),
        }

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        outputs = self.base(self.encoder(task.query.x))
        return self.likelihood.nll(outputs, task.query.y), self.likelihood.metrics(
            outputs, task.query.y
        )

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        return self.further(None, support)

    def further(
        self, state: dict[str, Tensor] | None, examples: Examples
    ) -> dict[str, Tensor]:
        before = self._moving() if state is None else state
        z = self._features(before, examples.x)  # (n, d)
        start = class_means(z, examples.y)  # (ways, d)
        start = (
            {"weight": start}
            if self.head == "cosine"
            else {"weight": start * 0, "bias": start[:, 0] * 0}
        )
        if state is not None:  # new classes begin as in a new task
            start = {
                name: torch.cat([state[name], new[len(state[name]) :]])
                for name, new in start.items()
            }
        moving = {name: w for name, w in before.items() if name.startswith("encoder.")}
        rates = {
            **dict.fromkeys(start, self.inner_lr),
            **dict.fromkeys(moving, self.encoder_lr),
        }

        def loss(weights: dict[str, Tensor]) -> Tensor:
            return self.likelihood.nll(
                self._scores(
                    weights, self._features(weights, examples.x) if moving else z
                ),
                examples.y,
            )

        return descend(loss, {**start, **moving}, rates, self.inner_steps)

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return self._scores(state, self._features(state, x))

    def _moving(self) -> dict[str, Tensor]:
        """The weights of the encoder that are adapted, by name."""
        weights = (
            dict(self.encoder.named_parameters()) if self.adapted != "head" else {}
        )
        if self.adapted == "last":
            last = _last(self.encoder)
            weights = {
                name: w for name, w in weights.items() if name.startswith(f"{last}.")
            }
        return {f"encoder.{name}": w for name, w in weights.items()}

    def _features(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        own = {
            name.removeprefix("encoder."): w
            for name, w in state.items()
            if name.startswith("encoder.")
        }
        return functional_call(self.encoder, own, (x,)) if own else self.encoder(x)

    def _scores(self, weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return (
            F.linear(z, weights["weight"], weights["bias"])
            if self.head == "linear"
            else cosine_scores(z, weights["weight"])
        )
