"""Siamese networks with a contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners.metric.distances import nearest, same_class, squared_distance
from innerloop.nets.registry import encoder


class SiameseNet(Learner):
    """Siamese networks: pairs of one class are pulled together, others pushed apart by
    a margin; the nearest support example wins.

    D^2 / 2 for a pair of one class, max(0, margin - D)^2 / 2 for another, D the
    distance of the embeddings
    Hadsell, Chopra and LeCun 2006, "Dimensionality reduction by learning an invariant
    mapping", eq. (4); for one-shot recognition Koch et al. 2015. Its objective is that
    contrastive loss, averaged over the pairs of each kind, of all the task's examples:
    no query likelihood. State: the embedded support set (n, d) and its targets (n,
    ways).

    encoder: both twins. margin: how far apart other classes are to be.
    """

    encoder: nn.Module
    _: KW_ONLY
    margin: float = 10.0
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
        # (m, ways)
        return -nearest(squared_distance(self.embed(x), state[0]), state[1])

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        shots = len(task.support.x)
        z, y = (
            self.embed(torch.cat([task.support.x, task.query.x])),
            torch.cat([task.support.y, task.query.y]),
        )
        squared = squared_distance(z, z)  # (n, n)
        same = same_class(y)
        pair = 1 - torch.eye(len(y), dtype=y.dtype, device=y.device)
        pull = squared / 2
        push = (self.margin - (squared + 1e-8).sqrt()).clamp_min(0).square() / 2
        loss = _mean(pull, same * pair) + _mean(push, 1 - same)
        return loss, self.likelihood.metrics(
            -nearest(squared[shots:, :shots], task.support.y), task.query.y
        )


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1)
