"""Learning which labels to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.norm_stats import use_stored as settled
from innerloop.engine.precision import widened
from innerloop.learners.active.pool_features import (
    DOUBT,
    FEATURES,
    MARGIN,
    NEAR,
    logits,
    situation,
    to_means,
)
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder

Strategy = Literal["learned", "in-turn", "entropy", "margin", "k-centre"]
NEVER = -1e9


class Known(NamedTuple):
    """Prototypes (ways, d), which classes have an example (ways,), and how far a class
    without one is taken to be ().
    """

    prototypes: Tensor
    met: Tensor
    far: Tensor


class ActiveLearner(FeatureLearner):
    """Learning which labels to ask for: of a pool without labels, a policy names one
    example after the other, and the nearest class mean wins.

    p(next = i) = softmax_i(policy(features of example i and of all others, given the
    labels so far)), trained by REINFORCE:
    grad = sum_t grad log p(i_t) (G_t - mean of G_t over the other rollouts), G_t the
    mean accuracy on the query set after labels t, t + 1, ... Bachman, Sordoni and
    Trischler 2017, "Learning algorithms for active learning", arXiv:1708.00088,
    sections 2 and 3, where the policy reads the support set through matching networks
    and the reward is that of every step as well; Woodward and Finn 2017,
    arXiv:1702.06559, ask by reinforcement learning too. The baseline of the others'
    mean: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free". Its
    objective is two in one: the policy raises that accuracy, and the scale of distances
    lowers the query loss after the last label. State: the prototypes (ways, d) of what
    was asked for, which classes were met, and the largest distance.

    encoder: never trained itself: take that of a trained ProtoNet (`train --from`).
    labels: how many are asked for in a task, or all there are. strategy: "learned"; or
    what it is compared with: "in-turn" (as they lie, at random where they were
    shuffled), "entropy" and "margin" (the least certain one), "k-centre" (the one
    farthest from all that have a label).
    rollouts: of the policy in a task, in training. width: units of its layers. scale:
    where that of distances begins.
    """

    encoder: nn.Module
    _: KW_ONLY
    labels: int = 15
    strategy: Strategy = "learned"
    rollouts: int = 16
    width: int = 32
    scale: float = 10.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    two_losses: ClassVar[bool] = True  # the gradient is not that of the loss
    defaults = MetaTrainConfig(
        ways=8, shots=6, queries=4, batch=4, optimizer="Adam", lr=2e-3
    )

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise InnerloopError(
                f"a rollout is compared with the others of its task: there must be at least 2, not {self.rollouts}"
            )
        self.encoder.requires_grad_(False)
        self.read = nn.Linear(FEATURES, self.width)
        self.score = nn.Sequential(
            nn.Linear(2 * self.width, self.width), nn.ReLU(), nn.Linear(self.width, 1)
        )
        self.log_scale = positive(self.scale, "the scale of distances")
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"encoder": encoder(spec, build_args.get("encoder"), vector="flatten")}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()  # it stays as it is
        return self

    def embed(self, x: Tensor) -> Tensor:
        with settled(), torch.no_grad():
            # (m, d)
            return widened(self.encoder(x).flatten(1)).to(self.log_scale.dtype)

    def answers(self, state: Known, z: Tensor) -> Tensor:
        # (m, ways)
        return logits(
            squared_distance(z, state.prototypes),
            state.met,
            state.far,
            self.log_scale.exp(),
        )

    def learned(self, z: Tensor, y: Tensor) -> Known:
        apart = squared_distance(z, z)  # (n, n)
        asked = self.asked_for(apart, y).sum(0)  # (n,)
        y = y * asked[:, None]
        return Known(class_means(z, y), y.sum(0), apart.amax())

    def asked_for(
        self,
        apart: Tensor,
        y: Tensor,
        strategy: Strategy | None = None,
        labels: int | None = None,
    ) -> Tensor:
        """Which examples are asked for, one-hot (labels, n), one after the other, of a
        pool with squared distances (n, n) and labels y (n, ways).
        """
        asked, order = torch.zeros_like(y[:, 0]), []
        for _ in range(min(labels or self.labels, len(y))):
            order.append(
                F.one_hot(
                    self.preference(apart, y, asked, strategy or self.strategy).argmax(
                        -1
                    ),
                    len(y),
                ).to(y)
            )
            asked = asked + order[-1]
        return torch.stack(order)

    def next_to_label(
        self, pool: Tensor, labelled: Examples | None, count: int
    ) -> list[int]:
        """Which `count` examples of a pool (m, *x_shape) to have labelled next, best
        first, where others, y (k, ways), have a label already.

        One that was chosen counts as of a class of its own until its label is known.
        """
        told = 0 if labelled is None else len(labelled.y)
        z = self.embed(pool if labelled is None else torch.cat([labelled.x, pool]))
        ways = 0 if labelled is None else labelled.y.shape[1]
        # (k + m, ways + count)
        y = F.pad(
            z.new_zeros(0, 0) if labelled is None else labelled.y,
            (0, count, 0, len(pool)),
        )
        apart, asked = (
            squared_distance(z, z),
            (torch.arange(len(z), device=z.device) < told).to(z),
        )
        chosen: list[int] = []
        for i in range(min(count, len(pool))):
            chosen.append(int(self.preference(apart, y, asked, self.strategy).argmax()))
            asked[chosen[-1]] = y[chosen[-1], ways + i] = 1.0
        return [row - told for row in chosen]

    def preference(
        self, apart: Tensor, y: Tensor, asked: Tensor, strategy: Strategy
    ) -> Tensor:
        """How much each label is wanted (..., n), where those that were asked for (...,
        n) are known; far below all others for these.
        """
        # (..., n, FEATURES)
        seen = situation(apart, y, asked, self.log_scale.exp().detach())
        if strategy == "learned":
            each = self.read(seen).relu()  # (..., n, width)
            wanted = self.score(
                torch.cat([each, each.mean(-2, keepdim=True).expand_as(each)], -1)
            )[..., 0]
        else:
            wanted = {
                "in-turn": 0 * asked,
                "k-centre": seen[..., NEAR],
                "entropy": seen[..., DOUBT],
                "margin": -seen[..., MARGIN],
            }[strategy]
        return torch.where(asked > 0, NEVER, wanted)

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        if not self.training or self.strategy != "learned":
            return super().outcome(z, y, asked, wanted)
        # (n, n), (m, n)
        apart, across = squared_distance(z, z), squared_distance(asked, z)
        known, chances, rewards, outputs = (
            z.new_zeros(self.rollouts, len(z)),
            [],
            [],
            z.new_zeros(0),
        )
        for _ in range(min(self.labels, len(z))):
            # (rollouts, n)
            log_p = self.preference(apart, y, known, self.strategy).log_softmax(-1)
            noise = -(-torch.rand_like(log_p).clamp(1e-6, 1 - 1e-6).log()).log()
            # (rollouts, n)
            drawn = F.one_hot((log_p.detach() + noise).argmax(-1), len(z)).to(z)
            known = known + drawn
            # (rollouts, m, ways)
            outputs = logits(
                *to_means(across, apart, y, known), apart.amax(), self.log_scale.exp()
            )
            chances.append((log_p * drawn).sum(-1))
            rewards.append((outputs.argmax(-1) == wanted.argmax(-1)).to(z).mean(-1))
        reward = torch.stack(rewards)  # (labels, rollouts)
        to_come = reward.flip(0).cumsum(0).flip(0) / len(reward)
        # than the others
        better = (
            (to_come - to_come.mean(-1, keepdim=True))
            * self.rollouts
            / max(1, self.rollouts - 1)
        )
        policy = -(torch.stack(chances) * better).sum(0).mean()
        nll = torch.vmap(self.likelihood.nll, (0, None))(outputs, wanted).mean()
        return policy + nll, {
            "accuracy": reward[-1].mean(),
            "mean_accuracy": reward.mean(),
        }
