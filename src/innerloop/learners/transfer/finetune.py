"""Fine-tuning: Baseline and Baseline++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import functional_call, trainable_names
from innerloop.engine.gradient_descent import descend
from innerloop.engine.options import CountOrZero, NonNegative
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.learners.metric.distances import class_means
from innerloop.nets.registry import encoder, flat_features

ENCODER = "encoder."  # prefix of the names of the encoder's weights in a state


def cosine_scores(z: Tensor, weight: Tensor, scale: float = 10.0) -> Tensor:
    """Scaled cosine similarities (n, ways) of features (n, d) and class vectors (ways,
    d).
    """
    return scale * F.linear(F.normalize(z, dim=-1), F.normalize(weight, dim=-1))


class CosineHead(nn.Module):
    """A head whose scores are scaled cosine similarities: features (n, d) to (n,
    ways).
    """

    def __init__(self, features: int, ways: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(ways, features) / features**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return cosine_scores(z, self.weight)


def last_block(net: nn.Module) -> str:
    """The name of a network's last block: the last entry with weights of its last
    ModuleList, else its last child with weights.

    Raises InnerloopError for a network without weights.
    """
    lists = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.ModuleList) and any(True for _ in module.parameters())
    ]
    parent = net.get_submodule(lists[-1]) if lists else net
    blocks = [
        name
        for name, child in parent.named_children()
        if any(p.dim() > 1 for p in child.parameters())
    ]
    if not blocks:
        raise InnerloopError(
            'adapted="last" needs an encoder with blocks of weights, and this one has '
            'no blocks with weights: use adapted="head"'
        )
    return f"{lists[-1]}.{blocks[-1]}" if lists else blocks[-1]


class FineTune(ClassIncremental):
    """Fine-tuning: supervised features; each task trains a new head.

    head <- head - inner_lr * grad(support cross-entropy), and likewise the adapted part
    of the encoder, with its own step size

    Reference: Chen, Liu, Kira, Wang and Huang 2019, "A closer look at few-shot
    classification", arXiv:1904.04232, section 3.1.

    Defaults differ from the paper: larger batches and AdamW.

    Objective: the cross-entropy of all training classes at once, with fixed labels.

    State: the weights of the task's head, "weight" and "bias", and the adapted weights
    of the encoder, a dict name -> tensor.

    Args:
        encoder: the features.
        base: the head over the training classes, unused after training.
        head: "linear" (Baseline) or "cosine" (Baseline++).
        inner_lr: step size of gradient descent.
        inner_steps: number of gradient descent steps.
        adapted: only the "head", as in the paper; the head and the "last" block of the
            encoder; or "all" weights.
        encoder_lr: step size of the encoder.
    """

    encoder: nn.Module
    base: nn.Module
    head: Literal["linear", "cosine"] = "linear"
    _: KW_ONLY
    inner_lr: NonNegative = 0.1
    inner_steps: CountOrZero = 100
    adapted: Literal["head", "last", "all"] = "head"
    encoder_lr: NonNegative = 0.01
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(batch=128, optimizer="AdamW", lr=2e-3, supervised=True)

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        texts = TaskSpec("classes", (12,), 5, vocabulary=100)
        return (*super().specs(), texts)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        body = encoder(spec, build_args.get("encoder"))
        head = CosineHead if build_args.get("head") == "cosine" else nn.Linear
        return {"encoder": body, "base": head(flat_features(body, spec), out_dim)}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"config": {"batch": 16, "optimizer": "Adam", "lr": 1e-3}}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        outputs = self.base(self.encoder(task.query.x))  # (m, classes)
        nll = self.likelihood.nll(outputs, task.query.y)
        return nll, self.likelihood.metrics(outputs, task.query.y)

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        return self.extend(None, support)

    def extend(
        self, state: dict[str, Tensor] | None, examples: Examples
    ) -> dict[str, Tensor]:
        before = self._adapted() if state is None else state
        z = self._features(before, examples.x)  # (n, d)
        means = class_means(z, examples.y)  # (ways, d)
        if self.head == "cosine":
            head = {"weight": means}
        else:
            head = {"weight": means * 0, "bias": means[:, 0] * 0}
        if state is not None:  # only new classes are initialized
            for name, new in head.items():
                head[name] = torch.cat([state[name], new[len(state[name]) :]])
        body = {name: w for name, w in before.items() if name.startswith(ENCODER)}
        rates = dict.fromkeys(head, self.inner_lr)
        rates |= dict.fromkeys(body, self.encoder_lr)

        def loss(weights: dict[str, Tensor]) -> Tensor:
            features = self._features(weights, examples.x) if body else z
            return self.likelihood.nll(self._scores(weights, features), examples.y)

        return descend(loss, {**head, **body}, rates, self.inner_steps)

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return self._scores(state, self._features(state, x))

    def _adapted(self) -> dict[str, Tensor]:
        """The weights of the encoder that are adapted, without frozen ones, by name."""
        if self.adapted == "head":
            return {}
        prefix = f"{last_block(self.encoder)}." if self.adapted == "last" else ""
        weights = dict(self.encoder.named_parameters())
        moving = [n for n in trainable_names(self.encoder) if n.startswith(prefix)]
        return {ENCODER + name: weights[name] for name in moving}

    def _features(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        """The features (m, d) of x under the encoder's weights in `state`."""
        weights = {
            name.removeprefix(ENCODER): w
            for name, w in state.items()
            if name.startswith(ENCODER)
        }
        return functional_call(self.encoder, weights, (x,))

    def _scores(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        """The scores (m, ways) of features z (m, d)."""
        if self.head == "cosine":
            return cosine_scores(z, state["weight"])
        return F.linear(z, state["weight"], state["bias"])
