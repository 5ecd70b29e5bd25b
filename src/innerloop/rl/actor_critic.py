"""Actor-critic meta-gradients for learners that act with memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import Count, Fraction, NonNegative, Positive
from innerloop.engine.rows import rows_of
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.metagrad.base import Draw, Gradient, Update
from innerloop.rl.acting import ActingGradient
from innerloop.rl.advantages import generalized_advantages
from innerloop.rl.environment import as_environment
from innerloop.rl.policy import Policy, policy_of
from innerloop.rl.rollout import check_streaming, rollout, trial_outputs


class Trials(NamedTuple):
    """n trials, and what is learned from them."""

    x: Tensor  # (n, steps, *x_shape)  observations
    y: Tensor  # (n, steps, actions + 2)  [action | reward | done]
    log_p: Tensor  # (n, steps)  of the actions, under the policy that sampled them
    advantage: Tensor  # (n, steps)  standardized
    returns: Tensor  # (n, steps)  the targets of the value


class A2C(ActingGradient):
    """A2C: advantage actor-critic over whole trials.

    loss = -log pi(a_t | h_t) A_t - entropy H(pi) + critic ((V(h_t) - R_t) / left_t)^2

    Reference: Mnih, Puigdomènech Badia, Mirza, Graves, Lillicrap, Harley, Silver and
    Kavukcuoglu 2016, "Asynchronous methods for deep reinforcement learning",
    arXiv:1602.01783; with memory: Wang, Kurth-Nelson, Tirumala, Soyer, Leibo, Munos,
    Blundell, Kumaran and Botvinick 2016, "Learning to reinforcement learn",
    arXiv:1611.05763.

    A_t are generalized advantages and R_t = A_t + V(h_t). The learner outputs its value
    as the mean reward of the left_t remaining steps, so that its scale does not depend
    on the length of a trial. The weight of the entropy falls linearly to zero.

    Args:
        discount: discount factor of future rewards.
        trace: lambda of the generalized advantages.
        entropy: weight of the entropy in the loss, at the start of training.
        critic: weight of the squared error of the value in the loss.
        sampled_rewards: learn from the sampled rewards, instead of the environment's
            training reward, which has less variance.
    """

    discount: Fraction = 1.0
    trace: Fraction = 0.95
    entropy: NonNegative = 0.04
    critic: NonNegative = 0.5
    sampled_rewards: bool = False

    requires = Streaming
    defaults = MetaTrainConfig(
        batch=512, optimizer="Adam", lr=4e-3, warmup=0.01, clip=0.5, meta_gradient="a2c"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.progress = 0.0

    def likelihood(self, tasks: TaskDistribution) -> Policy:
        return replace(as_environment(tasks).likelihood(), value=True)

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        check_actor_critic(learner)

    def on_progress(self, progress: float) -> None:
        self.progress = progress

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        trials, metrics = self.collect(learner, draw())
        return self.gradient(learner, trials, metrics)

    @torch.no_grad()
    def collect(self, learner: Learner, tasks: Task) -> tuple[Trials, Metrics]:
        """Roll out one trial of every task."""
        policy = check_actor_critic(learner)[1]
        params = self.environment.params_of(tasks)
        with rows_of(self.own):
            played = rollout(learner, self.environment, params, self.generator)
        x, y, outputs, training_reward = (part[:, 0] for part in played)
        reward = y[..., -2]
        value = self.value(policy, outputs)  # (n, steps)
        advantage = generalized_advantages(
            reward if self.sampled_rewards else training_reward,
            value,
            self.discount,
            self.trace,
        )
        returns = advantage + value
        every = self.whole(advantage)
        advantage = (advantage - every.mean()) / every.std().clamp_min(1e-8)
        log_p = policy.log_prob(outputs, y[..., :-2])
        metrics = {"reward": self.whole(reward.sum(-1)).mean()}
        return Trials(x, y, log_p, advantage, returns), metrics

    def left(self, outputs: Tensor) -> Tensor:
        """The discounted number of remaining steps (steps,), for outputs (n, steps,
        out_dim).
        """
        ones = outputs.new_ones(outputs.shape[1])
        return generalized_advantages(ones, torch.zeros_like(ones), self.discount, 1.0)

    def value(self, policy: Policy, outputs: Tensor) -> Tensor:
        """V (n, steps)."""
        mean_reward = policy.split(outputs)[1]
        assert mean_reward is not None  # see check_actor_critic
        return mean_reward * self.left(outputs)

    def surrogate(self, log_p: Tensor, trials: Trials) -> Tensor:
        """What the policy maximizes at every step (n, steps), from the current log
        probabilities of the actions.
        """
        return log_p * trials.advantage

    def gradient(self, learner: Learner, trials: Trials, metrics: Metrics) -> Gradient:
        """The gradient of the loss, and metrics."""
        streaming, policy = check_actor_critic(learner)
        theta = {name: p for name, p in learner.named_parameters() if p.requires_grad}
        # (n, steps, out_dim)
        outputs = trial_outputs(streaming, Examples(trials.x, trials.y))
        entropy = policy.entropy(outputs).mean()
        error = (self.value(policy, outputs) - trials.returns) / self.left(outputs)
        squared_error = error.square().mean()
        log_p = policy.log_prob(outputs, trials.y[..., :-2])
        loss = (
            self.critic * squared_error
            - self.surrogate(log_p, trials).mean()
            - self.entropy * (1 - self.progress) * entropy
        )
        grads = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
        shown = {
            "loss": loss,
            **metrics,
            "entropy": entropy,
            "value_error": squared_error,
        }
        return Gradient(
            dict(zip(theta, grads, strict=True)),
            {name: value.detach() for name, value in shown.items()},
        )


class PPO(A2C):
    """PPO: proximal policy optimization over whole trials.

    loss = -min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t) in place of the policy
    term of A2C, rho_t = pi(a_t | h_t) / pi_sampled(a_t | h_t)

    Reference: Schulman, Wolski, Dhariwal, Radford and Klimov 2017, "Proximal policy
    optimization algorithms", arXiv:1707.06347, eq. (7), (9).

    A round is one trial of every task in a batch. It is used `epochs` times, in
    minibatches of whole trials, before the next batch is drawn.

    Args:
        discount: discount factor of future rewards.
        trace: lambda of the generalized advantages.
        entropy: weight of the entropy in the loss, at the start of training.
        critic: weight of the squared error of the value in the loss.
        sampled_rewards: learn from the sampled rewards, instead of the environment's
            training reward, which has less variance.
        epochs: how often a trial is used.
        minibatches: meta-steps in an epoch.
        clip: how far the probability ratio may move from 1.
    """

    epochs: Count = 4
    minibatches: Count = 2
    clip: Positive = 0.2

    defaults = MetaTrainConfig(
        batch=512, optimizer="Adam", lr=4e-3, warmup=0.01, clip=0.5, meta_gradient="ppo"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trials: Trials | None = None
        self.metrics: Metrics = {}
        self.parts: list[Tensor] = []  # minibatches to come: indices of trials
        self.weight = 1.0  # share of the last one that this process computed

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        if self.trials is None or not self.parts:
            self.trials, self.metrics = self.collect(learner, draw())
            n = len(self.trials.x) if self.own is None else self.own.total
            self.parts = [
                part
                for _ in range(self.epochs)
                for part in torch.randperm(n, generator=self.generator).chunk(
                    self.minibatches
                )
            ]
        part = self.parts.pop(0)
        rows = part if self.own is None else self.own.within(part)
        self.weight = len(rows) / len(part)
        rows = rows if len(rows) else torch.zeros(1, dtype=torch.long)
        rows = rows.to(self.trials.x.device)
        trials = Trials(*(tensor[rows] for tensor in self.trials))
        return self.gradient(learner, trials, self.metrics)

    def part(self, learner: Learner, draw: Draw) -> tuple[Update, float | None]:
        # trials stay where they were collected, and a minibatch takes some of each
        return super().part(learner, draw)[0], self.weight

    def surrogate(self, log_p: Tensor, trials: Trials) -> Tensor:
        ratio = (log_p - trials.log_p).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return torch.minimum(ratio * trials.advantage, clipped * trials.advantage)

    def round_state(self) -> dict[str, Any]:
        if self.trials is None or not self.parts:
            return {}
        return {
            "trials": tuple(map(self.whole, self.trials)),
            "metrics": dict(self.metrics),
            "parts": list(self.parts),
        }

    def load_round_state(self, state: dict[str, Any]) -> None:
        self.trials = None
        if state:
            self.take_share(len(state["trials"][0]))
            self.trials = Trials(*map(self.mine, state["trials"]))
        self.metrics = dict(state.get("metrics", {}))
        self.parts = list(state.get("parts", []))


def check_actor_critic(learner: Learner) -> tuple[Streaming, Policy]:
    """The learner and its policy.

    Raises InnerloopTypeError where it does not stream, or its outputs are not a policy
    with a value.
    """
    streaming, policy = check_streaming(learner), policy_of(learner)
    if not policy.value:
        raise InnerloopTypeError(
            "an actor-critic needs outputs with a value: build "
            f"{type(learner).__name__} with likelihood=Policy(value=True); got {policy}"
        )
    return streaming, policy
