"""Prototypical networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.metric.distances import Metric, class_means, distance
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder


class ProtoNet(Learner):
    """Prototypical networks: a class is the mean of its embedded examples, the nearest
    one wins.

    p(class k | x) = softmax(-scale * distance(f(x), c_k)), c_k the mean of f over the
    support examples of k
    Snell, Swersky and Zemel 2017, "Prototypical networks for few-shot learning",
    arXiv:1703.05175, eq. (1)-(2).
    Its objective is the query loss averaged over several deals of the task's examples:
    first the support set is the support set, then the next `shots` examples of every
    class are, and so on; all others are asked.
    State: the prototypes (ways, d).

    encoder: f. metric: "euclidean" (squared, as in the paper), "cosine", or "p-norm".
    p: the power of the p-norm, whose p-th power is taken. scale: where the learned
    scale of distances begins; the paper has 1, fixed (a learned one: Oreshkin et al.
    2018, arXiv:1805.10123). rotate_support: learn from all those deals, which costs little,
    since every example is embedded once; the paper learns from the first alone. views:
    after training, compare square images in so many ways at once and average the
    distances: 4 quarter turns, or 8 with mirror images. For encoders that were trained
    on turned images as classes of their own, as on Omniglot; each view then errs in its
    own way.
    """

    encoder: nn.Module
    _: KW_ONLY
    metric: Metric = "euclidean"
    p: float = 1.0
    scale: float = 0.1
    views: Literal[1, 4, 8] = 1
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
        self.log_scale = positive(self.scale, "the scale of distances")
        if self.views not in (1, 4, 8):
            raise InnerloopError(
                f"images are compared in 1, 4 or 8 views, not {self.views}"
            )
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if build_args.get("views", 1) > 1 and not (
            spec.is_image and spec.x_shape[-1] == spec.x_shape[-2]
        ):
            raise InnerloopError(
                f"only square images can be compared in {build_args['views']} views, and inputs here have shape {spec.x_shape}"
            )
        return {
            "encoder": encoder(
                spec, build_args.get("encoder"), image="conv6", vector="wide-mlp"
            )
        }

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d), all views side by
        side.
        """
        if self.training or self.views == 1:
            return self.encoder(x)
        seen = [x.rot90(turn, (-2, -1)) for turn in range(4)]
        seen += [view.flip(-1) for view in seen[: self.views - 4]]
        power = self.p if self.metric == "p-norm" else 2.0
        return torch.cat([self.encoder(view) for view in seen], -1) / self.views ** (
            1 / power
        )

    def adapt(self, support: Examples) -> Tensor:
        return class_means(self.embed(support.x), support.y)  # (ways, d)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.compare(self.embed(x), state)  # (m, ways)

    def compare(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Logits (m, k) of embedded examples z (m, d) for prototypes (k, d)."""
        return -self.log_scale.exp() * distance(z, prototypes, self.metric, self.p)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if not self.rotate_support:
            return super().loss(task)
        shots = len(task.support.y)
        z, y = (
            self.embed(torch.cat([task.support.x, task.query.x])),
            torch.cat([task.support.y, task.query.y]),
        )
        # (m,): how many examples of its class come before an example
        rank = (y * y.cumsum(0)).sum(-1) - 1
        # (m,): when it is in the support set
        turn = rank // (y @ task.support.y.sum(0))
        turns = torch.arange(len(y) // shots, device=y.device)
        dealt = (turn == turns[:, None]).to(y.dtype)[:, None] * y.T  # (turns, ways, m)
        counts = dealt.sum(-1)  # (turns, ways)
        # (turns, ways, d)
        prototypes = dealt @ z.to(y.dtype) / counts.clamp_min(1)[..., None]
        # (m, turns, ways)
        outputs = self.compare(z, prototypes.flatten(0, 1)).unflatten(-1, counts.shape)
        # a class that has run out of examples
        outputs = outputs.masked_fill(counts == 0, torch.finfo(outputs.dtype).min)
        # (m, turns)
        each = torch.vmap(torch.vmap(self.likelihood.nll, (0, None)))(outputs, y)
        asked = (turn[:, None] != turns) & (y @ counts.T > 0)
        loss = torch.where(asked, each, 0).sum() / asked.sum()
        return loss, self.likelihood.metrics(outputs[shots:, 0], task.query.y)
