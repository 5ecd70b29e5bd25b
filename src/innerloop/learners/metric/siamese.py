"""Siamese networks with a contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import nearest, same_class, squared_distance
from innerloop.nets.registry import encoder


class SiameseNet(Learner):
    """Siamese networks: contrastive loss on pairs; predicts the nearest example.

    D^2 / 2 for a pair of one class, max(0, margin - D)^2 / 2 for any other, D the
    distance of the embeddings

    Reference: Hadsell, Chopra and LeCun 2006, "Dimensionality reduction by learning an
    invariant mapping", CVPR, eq. (4).

    For one-shot recognition: Koch, Zemel and Salakhutdinov 2015, "Siamese neural
    networks for one-shot image recognition", ICML Deep Learning Workshop.

    Objective: this contrastive loss of all pairs of the task's examples, averaged over
    the pairs of each kind.

    State: the embedded support set (n, d) and its targets (n, ways).

    Args:
        encoder: the embedding, the same for both examples of a pair.
        margin: distance up to which examples of different classes are pushed apart.
    """

    encoder: nn.Module
    _: KW_ONLY
    margin: Positive = 10.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=4,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"encoder": encoder(spec, build_args.get("encoder"), vector="wide-mlp")}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d)."""
        return self.encoder(x)

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        return self.embed(support.x), support.y

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        z, y = state
        return -nearest(squared_distance(self.embed(x), z), y)  # (m, ways)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n = len(task.support.x)
        z = self.embed(torch.cat([task.support.x, task.query.x]))
        y = torch.cat([task.support.y, task.query.y])
        squared = squared_distance(z, z)  # (n + m, n + m)
        same = same_class(y)
        distinct = 1 - torch.eye(len(y), dtype=y.dtype, device=y.device)
        pull = squared / 2
        push = (self.margin - (squared + 1e-8).sqrt()).clamp_min(0).square() / 2
        loss = _mean(pull, same * distinct) + _mean(push, 1 - same)
        outputs = -nearest(squared[n:, :n], task.support.y)  # (m, ways)
        return loss, self.likelihood.metrics(outputs, task.query.y)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1)
