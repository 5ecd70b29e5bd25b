"""Learning which examples to label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.norm_stats import use_stored
from innerloop.engine.options import Count, Positive, Range
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.active.policy import SelectionPolicy, Strategy
from innerloop.learners.active.pool_features import logits, to_means
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder


class Labeled(NamedTuple):
    """Prototypes (ways, d), the number of examples of each class (ways,), and the
    largest squared distance in the pool ().
    """

    prototypes: Tensor
    counts: Tensor
    far: Tensor


class ActiveLearner(FeatureLearner):
    """Learned query selection: a policy chooses which examples of a pool to label.

    p(next = i) = softmax_i(policy(features of example i and of all others, with the
    labels so far)), trained by REINFORCE: grad = sum_t grad log p(i_t) (G_t - mean of
    G_t over the other rollouts), G_t the mean accuracy on the query set after labels t,
    t + 1, ...

    Reference: Bachman, Sordoni and Trischler 2017, "Learning algorithms for active
    learning", arXiv:1708.00088, sections 2 and 3, where the policy reads the support
    set through matching networks; the reward is that of every step there, too. Also
    trained by reinforcement learning: Woodward and Finn 2017, "Active one-shot
    learning", arXiv:1702.06559. The baseline: Kool, van Hoof and Welling 2019, "Buy 4
    REINFORCE samples, get a baseline for free!", ICLR workshop.

    Objective: two losses. The policy maximizes the accuracy above, and the scale of
    distances minimizes the query loss after the last label. Rollouts are drawn from
    torch's global generator, in training only; otherwise the policy takes the example
    with the highest score.

    State: the prototypes (ways, d) of the labeled examples, how many each class has
    (ways,), and the largest squared distance in the pool.

    Args:
        encoder: the network that encodes inputs, which is not trained; take that of a
            trained ProtoNet (`train --init-from`).
        labels: number of examples to label in a task, at most all.
        strategy: "learned", or a baseline: "sequential" (the order of the pool, which
            is random in tasks, whose pools are shuffled), "entropy" and "margin" (the
            least certain prediction), "k-center" (the farthest from all labeled ones).
        rollouts: rollouts of the policy in a task, in training.
        width: units of the policy's layers.
        scale: initial value of the learned scale of distances.
    """

    encoder: nn.Module
    _: KW_ONLY
    labels: Count = 15
    strategy: Strategy = "learned"
    rollouts: Annotated[int, Range(2)] = 16
    width: Count = 32
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    home = "pools"
    kinds = ("classes",)
    two_losses = True
    defaults = MetaTrainConfig(
        ways=8, shots=6, queries=4, batch=4, optimizer="Adam", lr=2e-3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder.requires_grad_(False)
        self.policy = SelectionPolicy(self.width)
        self.log_scale = log_parameter(self.scale)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"encoder": encoder(spec, build_args.get("encoder"), vector="flatten")}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    def embed(self, x: Tensor) -> Tensor:
        with use_stored(), torch.no_grad():
            z = widened(self.encoder(x).flatten(1))
        return z.to(self.log_scale.dtype)  # (m, d)

    def answers(self, state: Labeled, z: Tensor) -> Tensor:
        distances = squared_distance(z, state.prototypes)
        return logits(distances, state.counts, state.far, self.log_scale.exp())

    def learned(self, z: Tensor, y: Tensor) -> Labeled:
        within = squared_distance(z, z)  # (n, n)
        labeled = self.selection_order(within, y).sum(0)  # (n,)
        y = y * labeled[:, None]
        return Labeled(class_means(z, y), y.sum(0), within.amax())

    def selection_order(
        self,
        within: Tensor,
        y: Tensor,
        strategy: Strategy | None = None,
        labels: int | None = None,
    ) -> Tensor:
        """Which examples are labeled, one-hot (labels, n), one after the other, of a
        pool with squared distances (n, n) and labels y (n, ways), of which only those
        that were selected are read.
        """
        strategy = strategy or self.strategy
        labeled, order = torch.zeros_like(y[:, 0]), []
        for _ in range(min(labels or self.labels, len(y))):
            best = self.scores(within, y, labeled, strategy).argmax(-1)
            order.append(F.one_hot(best, len(y)).to(y))
            labeled = labeled + order[-1]
        return torch.stack(order)

    def next_to_label(
        self, pool: Tensor, labeled: Examples | None, labels: int
    ) -> list[int]:
        """Which inputs of a pool (m, *x_shape) to label next, the most useful first,
        where others, y (k, ways), have a label already.

        Each one counts as a new class for the next, because its label is not known.
        """
        known = 0 if labeled is None else len(labeled.y)
        ways = 0 if labeled is None else labeled.y.shape[1]
        z = self.embed(pool if labeled is None else torch.cat([labeled.x, pool]))
        within = squared_distance(z, z)
        y = z.new_zeros(len(z), ways + labels)
        if labeled is not None:
            y[:known, :ways] = labeled.y
        has_label = (torch.arange(len(z), device=z.device) < known).to(z)
        chosen: list[int] = []
        for i in range(min(labels, len(pool))):
            best = int(self.scores(within, y, has_label, self.strategy).argmax())
            chosen.append(best - known)
            has_label[best] = y[best, ways + i] = 1.0
        return chosen

    def scores(
        self, within: Tensor, y: Tensor, labeled: Tensor, strategy: Strategy
    ) -> Tensor:
        """The scores (..., n) of the policy, where labeled (..., n) have a label."""
        scale = self.log_scale.exp().detach()
        return self.policy(within, y, labeled, scale, strategy)

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        if not self.training or self.strategy != "learned":
            return super().outcome(z, y, query_z, query_y)
        within, across = squared_distance(z, z), squared_distance(query_z, z)
        far, scale = within.amax(), self.log_scale.exp()
        labeled = z.new_zeros(self.rollouts, len(z))
        log_ps, rewards, outputs = [], [], z.new_zeros(0)
        for _ in range(min(self.labels, len(z))):
            # (rollouts, n), sampled by the Gumbel-max trick
            log_p = self.scores(within, y, labeled, self.strategy).log_softmax(-1)
            gumbel = -(-torch.rand_like(log_p).clamp(1e-6, 1 - 1e-6).log()).log()
            chosen = F.one_hot((log_p.detach() + gumbel).argmax(-1), len(z)).to(z)
            labeled = labeled + chosen
            distances = to_means(across, within, y, labeled)
            outputs = logits(*distances, far, scale)  # (rollouts, m, ways)
            correct = outputs.argmax(-1) == query_y.argmax(-1)
            log_ps.append((log_p * chosen).sum(-1))
            rewards.append(correct.to(z).mean(-1))
        reward = torch.stack(rewards)  # (labels, rollouts)
        returns = reward.flip(0).cumsum(0).flip(0) / len(reward)
        # minus the mean of the other rollouts
        advantage = returns - returns.mean(-1, keepdim=True)
        advantage = advantage * self.rollouts / (self.rollouts - 1)
        policy_loss = -(torch.stack(log_ps) * advantage).sum(0).mean()
        nll = torch.vmap(self.likelihood.nll, (0, None))(outputs, query_y).mean()
        metrics = {"accuracy": reward[-1].mean(), "mean_accuracy": reward.mean()}
        return policy_loss + nll, metrics
