"""Fine-tuning: Baseline and Baseline++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner, Recipe
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners.metric.distances import class_means
from innerloop.nets.named import encoder, flat_features


def cosine_scores(z: Tensor, weight: Tensor, scale: float = 10.0) -> Tensor:
    """Scaled cosine similarities: features (n, d) and class vectors (ways, d) to (n, ways)."""
    return scale * F.linear(F.normalize(z, dim=-1), F.normalize(weight, dim=-1))


class CosineHead(nn.Module):
    """A head whose class scores are scaled cosine similarities: features (n, d) to (n, ways)."""

    def __init__(self, features: int, ways: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(ways, features) / features**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return cosine_scores(z, self.weight)


class FineTune(Learner):
    """Fine-tuning: learn features by classifying all training classes at once, then train only a new head on the support set.

    head <- head - inner_lr * grad(support cross-entropy), encoder frozen
    Chen, Liu, Kira, Wang and Huang 2019, "A closer look at few-shot classification", arXiv:1904.04232, section 3.1
    Its objective is no query likelihood after adapting: it is the cross-entropy of all training classes (labels never change).
    State: the weights of the task's head, a dict name -> tensor.

    encoder: the features. base: the head over the training classes, dropped after training.
    head: "linear" (Baseline) or "cosine" (Baseline++). inner_lr, inner_steps: full-batch gradient descent on the new head; the paper takes
        100 steps.
    """

    encoder: nn.Module
    base: nn.Module
    head: Literal["linear", "cosine"] = "linear"
    _: KW_ONLY
    inner_lr: float = 0.1
    inner_steps: int = 100
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    recipe = Recipe(batch=128, optimizer="AdamW", lr=2e-3, supervised=True)

    @classmethod
    def networks(cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int) -> dict[str, nn.Module]:
        body = encoder(spec, given.get("encoder"))
        features = flat_features(body, spec)
        return {"encoder": body, "base": CosineHead(features, out_dim) if given.get("head") == "cosine" else nn.Linear(features, out_dim)}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        outputs = self.base(self.encoder(task.query.x))
        return self.likelihood.nll(outputs, task.query.y), self.likelihood.metrics(outputs, task.query.y)

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        z = self.encoder(support.x)  # (n, d)
        start = class_means(z, support.y)  # (ways, d)
        weights = {"weight": start} if self.head == "cosine" else {"weight": start * 0, "bias": start[:, 0] * 0}
        for _ in range(self.inner_steps):
            grads = torch.func.grad(lambda w: self.likelihood.nll(self._scores(w, z), support.y))(weights)
            weights = {name: w - self.inner_lr * grads[name] for name, w in weights.items()}
        return weights

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return self._scores(state, self.encoder(x))

    def _scores(self, weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return F.linear(z, weights["weight"], weights["bias"]) if self.head == "linear" else cosine_scores(z, weights["weight"])
