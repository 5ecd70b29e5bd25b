"""Prototypical networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import (
    Metric,
    class_means,
    class_medians,
    distance,
    trusted_means,
)
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder


class ProtoNet(Learner):
    """Prototypical networks: predicts the class whose mean embedding is nearest.

    p(class k | x) = softmax(-scale * distance(f(x), c_k)), c_k the mean of f over the
    support examples of k

    Reference: Snell, Swersky and Zemel 2017, "Prototypical networks for few-shot
    learning", arXiv:1703.05175, eq. (1)-(2).

    Defaults differ from the paper, and are more accurate: a larger encoder, a learned
    scale (Oreshkin, Rodríguez López and Lacoste 2018, arXiv:1805.10123; fixed at 1 in
    the paper), `rotate_support`, classes of one group, and AdamW.

    Objective: the query loss, averaged over rotations of the support set if
    `rotate_support`.

    State: the prototypes (ways, d).

    Args:
        encoder: the network f.
        metric: "euclidean" (squared, as in the paper), "cosine" (one minus cosine
            similarity) or "p-norm" (to the power of p).
        p: exponent of the p-norm.
        scale: initial value of the learned scale of distances.
        center: how the examples of a class make its prototype: their "mean", as in the
            paper; their spatial "median", which one wrong example moves little (Liang
            et al. 2022, arXiv:2204.05494, eq. (3)); or their mean, each "weighted" by
            the probability of its label where medians are the prototypes.
        views: in evaluation mode, compare images in so many views and average the
            distances: 2 are the image and its mirror image, for photographs; 4 are the
            rotations of a square image, and 8 those with reflections, for encoders
            trained with rotated images as separate classes, as on Omniglot.
        rotate_support: in training, average the loss over splits of a task, in which
            each block of `shots` examples per class is the support set once and all
            others are the query set; costs little, since every example is embedded
            once.
    """

    encoder: nn.Module
    _: KW_ONLY
    metric: Metric = "euclidean"
    p: Positive = 1.0
    scale: Positive = 0.1
    center: Literal["mean", "median", "weighted"] = "mean"
    views: Literal[1, 2, 4, 8] = 1
    rotate_support: bool = True
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=60,
        shots=1,
        queries=4,
        groups=3,
        batch=1,
        optimizer="AdamW",
        lr=2e-3,
        weight_decay=0.01,
    )

    def __post_init__(self) -> None:
        self.log_scale = log_parameter(self.scale)
        super().__post_init__()

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        texts = TaskSpec("classes", (12,), 5, vocabulary=100)
        return (*super().specs(), texts)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        square = spec.is_image and spec.x_shape[-1] == spec.x_shape[-2]
        views = build_args.get("views", 1)
        if views > 1 and not (square if views > 2 else spec.is_image):
            raise InnerloopError(
                f"views={views} needs {'square ' if views > 2 else ''}images; got "
                f"inputs of shape {spec.x_shape}: use views=1"
            )
        body = encoder(
            spec, build_args.get("encoder"), image="conv6", vector="wide-mlp"
        )
        return {"encoder": body}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "fields": {"encoder": "conv4", "scale": 1.0, "rotate_support": False},
            "config": {
                "queries": 5,
                "groups": 0,
                "optimizer": "Adam",
                "lr": 1e-3,
                "weight_decay": 0.0,
            },
        }

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d), views concatenated."""
        if self.training or self.views == 1:
            return self.encoder(x)
        views = [x] if self.views == 2 else [x.rot90(k, (-2, -1)) for k in range(4)]
        views += [view.flip(-1) for view in views[: self.views - len(views)]]
        power = self.p if self.metric == "p-norm" else 2.0
        z = torch.cat([self.encoder(view) for view in views], -1)
        return z / self.views ** (1 / power)  # so that distances are averaged

    def centers(self, z: Tensor, y: Tensor) -> Tensor:
        """The prototypes (ways, d) of examples z (n, d) with labels y (n, ways)."""
        if self.center == "mean":
            return class_means(z, y)
        medians = class_medians(z, y)
        if self.center == "median":
            return medians
        return trusted_means(z, y, self.compare(z, medians))

    def adapt(self, support: Examples) -> Tensor:
        return self.centers(self.embed(support.x), support.y)  # (ways, d)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.compare(self.embed(x), state)  # (m, ways)

    def compare(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Logits (m, k) of embedded examples z (m, d) for prototypes (k, d)."""
        return -self.log_scale.exp() * distance(z, prototypes, self.metric, self.p)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if not self.rotate_support:
            return super().loss(task)
        z = self.embed(torch.cat([task.support.x, task.query.x]))  # (m, d)
        y = torch.cat([task.support.y, task.query.y])  # (m, ways)
        n = len(task.support.y)
        return rotated_loss(z, y, n, self.compare, self.likelihood, self.centers)


def rotated_loss(
    z: Tensor,
    y: Tensor,
    n: int,
    compare: Callable[[Tensor, Tensor], Tensor],
    likelihood: Likelihood,
    centers: Callable[[Tensor, Tensor], Tensor] = class_means,
) -> tuple[Tensor, Metrics]:
    """The loss of prototypes, averaged over rotations of the support set: each block of
    as many examples per class is the support set once and all others are the query set.

    Args:
        z, y: embedded examples (m, d) and one-hot labels (m, ways); the first `n` are
            the support set.
        compare: logits (m, k) of embedded examples (m, d) for prototypes (k, d).
        likelihood: how logits are scored.
        centers: prototypes (ways, d) of a support set z (n, d), y (n, ways).
    """
    # the number of examples of the same class before an example (m,)
    rank = (y * y.cumsum(0)).sum(-1) - 1
    # the rotation in which an example is in the support set (m,)
    turn = rank // (y @ y[:n].sum(0))
    turns = torch.arange(len(y) // n, device=y.device)
    in_support = (turn == turns[:, None]).to(y.dtype)  # (turns, m)
    members = in_support[..., None] * y  # (turns, m, ways)
    counts = members.sum(1)  # (turns, ways)
    prototypes = torch.vmap(centers, (None, 0))(z.to(y.dtype), members)
    logits = compare(z, prototypes.flatten(0, 1))
    outputs = logits.unflatten(-1, counts.shape)  # (m, turns, ways)
    # classes without examples left for this rotation
    outputs = outputs.masked_fill(counts == 0, torch.finfo(outputs.dtype).min)
    nll = torch.vmap(torch.vmap(likelihood.nll, (0, None)))(outputs, y)
    in_query = (turn[:, None] != turns) & (y @ counts.T > 0)  # (m, turns)
    loss = torch.where(in_query, nll, 0).sum() / in_query.sum()
    return loss, likelihood.metrics(outputs[n:, 0], y[n:])
