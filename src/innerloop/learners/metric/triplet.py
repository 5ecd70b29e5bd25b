"""Triplet networks with semi-hard mining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import NonNegative
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import nearest, same_class, squared_distance
from innerloop.nets.registry import encoder


class TripletNet(Learner):
    """Triplet networks: triplet loss; predicts the class of the nearest example.

    max(0, |a - p|^2 - |a - n|^2 + margin), a the anchor, p of its class and n of
    another, embeddings on the unit sphere

    Reference: Schroff, Kalenichenko and Philbin 2015, "FaceNet: a unified embedding for
    face recognition and clustering", arXiv:1503.03832, eq. (1)-(3).

    Negatives are semi-hard, eq. (4): the nearest one that is farther away than the
    positive, else the farthest of all. Outputs are negative squared distances divided
    by a temperature of 0.1. Defaults differ from the paper: AdamW instead of Adagrad.

    Objective: this loss, averaged over all pairs of one class among the task's
    examples.

    State: the embedded support set (n, d) and its targets (n, ways).

    Args:
        encoder: the embedding before it is scaled to length 1.
        margin: least difference of the squared distances.
    """

    encoder: nn.Module
    _: KW_ONLY
    margin: NonNegative = 0.2
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

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"config": {"optimizer": "Adagrad", "lr": 0.05, "weight_decay": 0.0}}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) on the unit sphere (m, d)."""
        return F.normalize(widened(self.encoder(x)), dim=-1)

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        return self.embed(support.x), support.y

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        z, y = state
        return -nearest(squared_distance(self.embed(x), z), y) / 0.1  # (m, ways)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n = len(task.support.x)
        z = self.embed(torch.cat([task.support.x, task.query.x]))
        y = torch.cat([task.support.y, task.query.y])
        squared = squared_distance(z, z)  # (n + m, n + m)
        same = same_class(y)
        positive = same * (1 - torch.eye(len(y), dtype=y.dtype, device=y.device))
        hinge = (squared - semi_hard(squared, same) + self.margin).clamp_min(0)
        loss = (hinge * positive).sum() / positive.sum().clamp_min(1)
        outputs = -nearest(squared[n:, :n], task.support.y)  # (m, ways)
        return loss, self.likelihood.metrics(outputs, task.query.y)


def semi_hard(squared: Tensor, same: Tensor) -> Tensor:
    """The distance of the semi-hard negative of every (anchor, positive) pair (n, n),
    from squared distances (n, n) and which pairs share a class (n, n).
    """
    negative = same < 0.5  # (anchor, candidate)
    # (anchor, positive, candidate)
    farther = negative[:, None] & (squared[:, None] > squared[:, :, None])
    nearest_farther = torch.where(farther, squared[:, None], torch.inf).amin(-1)
    farthest = torch.where(negative, squared, -torch.inf).amax(-1, keepdim=True)
    return torch.where(nearest_farther.isfinite(), nearest_farther, farthest)
