"""The meta-gradients of learners that act with memory: raise the reward of whole
trials.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Metrics
from innerloop.metagrad.base import Grads
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.rl.environment import Environment
from innerloop.rl.policy import Policy
from innerloop.rl.rollout import followed, play


def generalised_advantages(
    reward: Tensor, value: Tensor, discount: float, trace: float
) -> Tensor:
    """How much better an action was than expected (..., steps), from rewards and values
    (..., steps) of whole trials.

    A_t = sum_k (discount trace)^k delta_(t+k), delta_t = r_t + discount V_(t+1) - V_t,
    and V = 0 when the trial is over
    Schulman et al. 2016, "High-dimensional continuous control using generalized
    advantage estimation", arXiv:1506.02438, eq. (16). The sum goes on over the ends of
    episodes, for so does the trial: what is found out in one episode is worth what it
    earns in the next ones.
    """
    after, following, rows = (
        torch.zeros_like(reward[..., 0]),
        torch.zeros_like(reward[..., 0]),
        [],
    )
    for r, v in zip(reward.unbind(-1)[::-1], value.unbind(-1)[::-1], strict=True):
        after = r + discount * following - v + discount * trace * after
        following = v
        rows.append(after)
    return torch.stack(rows[::-1], -1)


class Trials(NamedTuple):
    """n trials as they were played, and what is learned from them."""

    x: Tensor  # (n, steps, *x_shape)
    y: Tensor  # (n, steps, actions + 2)  [action | reward | over]
    log_p: Tensor  # (n, steps)  of the actions, when they were drawn
    advantage: Tensor  # (n, steps)  of mean 0 and deviation 1
    returns: Tensor  # (n, steps)  what the value should have been


@dataclass
class A2C:
    """Advantage actor-critic: play, and make what was better than expected more
    probable.

    - log pi(a_t | h_t) A_t - entropy H(pi(. | h_t)) + critic ((V(h_t) - R_t) /
    left_t)^2, R_t = A_t + V(h_t), mean over all steps
    Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning",
    arXiv:1602.01783; with memory: Wang et al. 2016, arXiv:1611.05763. The learner tells
    its value as a mean reward for each of the steps that are left, so that its size
    does not depend on the length of a trial.

    environment: whose tasks. discount, trace: of `generalised_advantages`. entropy,
    critic: their weights in the loss; that of the entropy falls to nothing with `at`.
    lucky: go by the rewards as they were drawn, not by the environment's `credit`,
    which is the better guide. generator: draws what is drawn.
    """

    environment: Environment
    discount: float = 1.0
    trace: float = 0.95
    entropy: float = 0.04
    critic: float = 0.5
    lucky: bool = False
    generator: torch.Generator = field(
        default_factory=lambda: torch.Generator().manual_seed(0)
    )

    def __post_init__(self) -> None:
        if not (
            0 <= self.discount <= 1
            and 0 <= self.trace <= 1
            and min(self.entropy, self.critic) >= 0
        ):
            told = (
                f"got {self.discount}, {self.trace}, {self.entropy} and {self.critic}"
            )
            raise InnerloopError(
                f"discount and trace are from 0 to 1, entropy and critic 0 or more: {told}"
            )
        self._progress = 0.0

    @classmethod
    def policy(cls, environment: Environment) -> Policy:
        """How a learner's outputs are read: actions, and a value."""
        return Policy(discrete=environment.discrete, value=True)

    def on_progress(self, progress: float) -> None:
        """Told how far meta-training is, from 0 to 1."""
        self._progress = progress

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on as if it had never stopped, beside the
        generator.
        """
        return {"progress": self._progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._progress = state["progress"]

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        streaming, policy = acting(learner)
        trials, metrics = self.round(streaming, policy, tasks)
        return self.gradient(streaming, policy, trials, metrics)

    @torch.no_grad()
    def round(
        self, learner: Streaming, policy: Policy, tasks: Task
    ) -> tuple[Trials, Metrics]:
        """Play a trial of every task."""
        played = play(learner, self.environment, tasks.support.x[:, 0], self.generator)
        x, y, outputs, credit = (part[:, 0] for part in played)
        value = self.value(policy, outputs)  # (n, steps)
        advantage = generalised_advantages(
            y[..., -2] if self.lucky else credit, value, self.discount, self.trace
        )
        returns = advantage + value
        advantage = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-8)
        return Trials(
            x, y, policy.log_prob(outputs, y[..., :-2]), advantage, returns
        ), {"reward": y[..., -2].sum(-1).mean()}

    def left(self, outputs: Tensor) -> Tensor:
        """What a reward of 1 in each of the steps that are left is worth (steps,), for
        outputs (n, steps, out_dim).
        """
        ones = outputs.new_ones(outputs.shape[1])
        return generalised_advantages(ones, torch.zeros_like(ones), self.discount, 1.0)

    def value(self, policy: Policy, outputs: Tensor) -> Tensor:
        """V (n, steps)."""
        mean_reward = policy.split(outputs)[1]
        assert mean_reward is not None  # `acting` has seen to it
        return mean_reward * self.left(outputs)

    def surrogate(self, log_p: Tensor, trials: Trials) -> Tensor:
        """What is to rise, step by step (n, steps), from the log probabilities of the
        actions as they are now.
        """
        return log_p * trials.advantage

    def gradient(
        self, learner: Streaming, policy: Policy, trials: Trials, metrics: Metrics
    ) -> tuple[Grads, Metrics]:
        """The gradient of the loss by name, and metrics."""
        theta = {name: p for name, p in learner.named_parameters() if p.requires_grad}
        outputs = followed(learner, Examples(trials.x, trials.y))  # (n, steps, out_dim)
        entropy = policy.entropy(outputs).mean()
        error = (
            ((self.value(policy, outputs) - trials.returns) / self.left(outputs))
            .square()
            .mean()
        )
        rising = self.surrogate(
            policy.log_prob(outputs, trials.y[..., :-2]), trials
        ).mean()
        loss = (
            self.critic * error - rising - self.entropy * (1 - self._progress) * entropy
        )
        grads = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
        told = {"loss": loss, **metrics, "entropy": entropy, "value_error": error}
        return dict(zip(theta, grads, strict=True)), {
            name: value.detach() for name, value in told.items()
        }


@dataclass
class PPO(A2C):
    """Proximal policy optimisation: what was played is learned from several times, as
    long as the policy does not leave it far behind.

    min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t) in the place of log pi(a_t |
    h_t) A_t, rho_t = pi(a_t | h_t) / pi_played(a_t | h_t) Schulman et al. 2017,
    "Proximal policy optimization algorithms", arXiv:1707.06347, eq. (7), (9).

    epochs: how often a trial is learned from before new ones are played. minibatches:
    meta-steps of an epoch, each of as many trials, whole ones.
    """

    epochs: int = 4
    minibatches: int = 2
    clip: float = 0.2

    def __post_init__(self) -> None:
        if min(self.epochs, self.minibatches) < 1 or self.clip <= 0:
            raise InnerloopError(
                f"PPO needs epochs, minibatches and a clip above 0, got {self.epochs}, {self.minibatches} and {self.clip}"
            )
        super().__post_init__()
        self._trials: Trials | None = None
        self._metrics: Metrics = {}
        self._parts: list[Tensor] = []  # of the trials, still to be learned from

    def state_dict(self) -> dict[str, Any]:
        trials = self._trials and tuple(self._trials)
        return {
            **super().state_dict(),
            "trials": trials,
            "metrics": self._metrics,
            "parts": self._parts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._trials = Trials(*state["trials"]) if state["trials"] else None
        self._metrics, self._parts = state["metrics"], state["parts"]

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        streaming, policy = acting(learner)
        if self._trials is None or not self._parts:
            self._trials, self._metrics = self.round(streaming, policy, tasks)
            orders = [
                torch.randperm(len(self._trials.x), generator=self.generator)
                for _ in range(self.epochs)
            ]
            self._parts = [
                part for order in orders for part in order.chunk(self.minibatches)
            ]
        part = self._parts.pop(0)
        return self.gradient(
            streaming,
            policy,
            Trials(*(t[part.to(t.device)] for t in self._trials)),
            self._metrics,
        )

    def surrogate(self, log_p: Tensor, trials: Trials) -> Tensor:
        ratio = (log_p - trials.log_p).exp()
        return torch.minimum(
            ratio * trials.advantage,
            ratio.clamp(1 - self.clip, 1 + self.clip) * trials.advantage,
        )


def acting(learner: Learner) -> tuple[Streaming, Policy]:
    """The learner and its policy. Raises TypeError where it does not stream, or its
    outputs are no policy with a value.
    """
    if not isinstance(learner, Streaming):
        raise InnerloopTypeError(
            f"learning by acting with memory needs a learner that streams, such as RL2 or LSTM; not {type(learner).__name__}"
        )
    if not isinstance(learner.likelihood, Policy) or not learner.likelihood.value:
        raise InnerloopTypeError(
            f"its outputs must be a policy and a value: build it with likelihood=Policy(value=True), not {learner.likelihood}"
        )
    return learner, learner.likelihood
