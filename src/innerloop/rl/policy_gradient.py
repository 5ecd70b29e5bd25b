"""The policy gradient through adaptation, for learners that adapt weights by acting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count, Fraction, Positive
from innerloop.engine.rows import rows_of
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.metagrad.backprop import backprop
from innerloop.metagrad.base import Draw, Gradient
from innerloop.rl.acting import ActingGradient
from innerloop.rl.advantages import advantages, mean_return
from innerloop.rl.environment import Environment, as_environment
from innerloop.rl.policy import Estimator, PolicyGradient
from innerloop.rl.rollout import Rollout, rollout


class Round(NamedTuple):
    """The examples of a batch of tasks before and after adaptation, the log
    probabilities (n, m) of their actions under the policies that sampled them, and
    metrics.
    """

    task: Task
    log_p: tuple[Tensor, Tensor]
    metrics: Metrics


class MetaPolicyGradient(ActingGradient):
    """Policy gradient through adaptation: MAML for environments.

    theta <- theta + lr * d/dtheta mean over tasks of the return after adapting theta

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, Algorithm 3, with a plain policy
    gradient as meta-optimizer instead of TRPO; several meta-steps for a round:
    Rothfuss, Lee, Clavera, Asfour and Abbeel 2019, "ProMP: proximal meta-policy
    search", arXiv:1810.06784, section 6, without the KL penalty.

    In every task, the initial policy acts, adapts to its episodes, and acts again. The
    gradient of the second return flows through the adaptation; its second derivative is
    that of the estimator. A learner without inner steps acts once.

    Args:
        episodes: episodes of a task, side by side, before and after adaptation
            (default: the environment's).
        discount: discount factor of future rewards.
        standardized: standardize the advantages of every task.
        uses: meta-steps for every round. After the first one, actions are weighted by
            their probability ratio.
        clip: how far the probability ratio may move from 1.
        estimator: how the second derivative is estimated, see `PolicyGradient`.
    """

    episodes: Count | None = None
    discount: Fraction = 0.99
    standardized: bool = True
    uses: Count = 1
    clip: Positive = 0.3
    estimator: Estimator = "lvc"

    requires = Descent
    defaults = MetaTrainConfig(
        batch=20,
        optimizer="Adam",
        lr=3e-3,
        warmup=0.0,
        decay=False,
        meta_gradient="policy-gradient",
    )
    # Finn et al. 2017, appendix A.2
    learner_defaults: ClassVar = {"inner_lr": 0.1, "initial_rate": 0.1}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.round: Round | None = None
        self.used = 0

    def likelihood(self, tasks: TaskDistribution) -> PolicyGradient:
        discrete = as_environment(tasks).discrete
        return PolicyGradient(discrete=discrete, estimator=self.estimator)

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        found = check_policy_gradient(learner)[1].estimator
        if found != self.estimator:
            raise InnerloopError(
                f"estimator must be that of the learner's likelihood, {found!r}; got "
                f"{self.estimator!r}"
            )

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        if self.round is None or self.used >= self.uses:
            params = self.environment.params_of(draw())
            self.round, self.used = self.collect(learner, params), 0
        first = self.used == 0
        task = self.round.task if first else self.reweighted(learner, self.round)
        self.used += 1
        grads, metrics = backprop(learner, task)
        return Gradient(grads, {**metrics, **self.round.metrics})

    @torch.no_grad()
    def collect(self, learner: Learner, params: Tensor) -> Round:
        """Act before and after adaptation in tasks with parameters (n, p)."""
        descent = check_policy_gradient(learner)[0]

        def act(weights: Weights, support: Examples) -> tuple[Examples, Tensor, Tensor]:
            with rows_of(self.own):
                played = rollout(
                    learner,
                    self.environment,
                    params,
                    self.generator,
                    state=descent.mapped(descent.finalize, weights, support),
                    repeats=self.episodes or self.environment.episodes,
                    episodes=1,
                )
            examples = training_examples(played, self.discount, self.standardized)
            log_p = _log_p(descent, played.outputs.flatten(1, 2), examples)
            return examples, log_p, self.whole(mean_return(played)).mean()

        start, empty = initial_weights(descent, self.environment, len(params))
        support, log_p_before, before = act(start, empty)
        if not descent.inner_steps:
            metrics = {"loss": -before, "reward": before}
            return Round(Task(support, support), (log_p_before, log_p_before), metrics)
        adapted = descent.mapped(descent.adapt, support)
        query, log_p_after, after = act(adapted, support)
        metrics = {"loss": -after, "reward_before": before, "reward": after}
        return Round(Task(support, query), (log_p_before, log_p_after), metrics)

    @torch.no_grad()
    def reweighted(self, learner: Learner, played: Round) -> Task:
        """The examples of a round, weighted for the current parameters: the gradient
        with these weights is that of min(ratio * advantage, clipped ratio * advantage).
        """
        descent = check_policy_gradient(learner)[0]

        def ratio(weights: Weights, examples: Examples, log_p: Tensor) -> Tensor:
            outputs = descent.mapped(descent.predict, weights, examples.x)
            return (_log_p(descent, outputs, examples) - log_p).exp()  # (n, m)

        support, query = played.task
        start, _ = initial_weights(descent, self.environment, len(support.x))
        initial = descent.mapped(descent.finalize, start, support)
        support = _scaled(support, ratio(initial, support, played.log_p[0]))
        adapted = descent.mapped(descent.adapt, support)
        r, advantage = ratio(adapted, query, played.log_p[1]), query.y[..., -2]
        clipped = ((r > 1 + self.clip) & (advantage > 0)) | (
            (r < 1 - self.clip) & (advantage < 0)
        )
        return Task(support, _scaled(query, r.masked_fill(clipped, 0.0)))

    def round_state(self) -> dict[str, Any]:
        if self.round is None or self.used >= self.uses:
            return {}
        return {
            "task": tuple(tuple(map(self.whole, part)) for part in self.round.task),
            "log_p": tuple(map(self.whole, self.round.log_p)),
            "metrics": dict(self.round.metrics),
            "used": self.used,
        }

    def load_round_state(self, state: dict[str, Any]) -> None:
        self.round, self.used = None, 0
        if state:
            self.take_share(len(state["log_p"][0]))
            support, query = (Examples(*map(self.mine, pair)) for pair in state["task"])
            before, after = map(self.mine, state["log_p"])
            self.round = Round(Task(support, query), (before, after), state["metrics"])
            self.used = state["used"]


def check_policy_gradient(learner: Learner) -> tuple[Descent, PolicyGradient]:
    """The learner and its policy.

    Raises InnerloopTypeError where its state is not weights, or its outputs are not a
    policy with a second derivative.
    """
    if not isinstance(learner, Descent):
        raise InnerloopTypeError(
            "a policy gradient needs a learner that adapts weights, such as MAML; got "
            f"{type(learner).__name__}"
        )
    if not isinstance(learner.likelihood, PolicyGradient):
        raise InnerloopTypeError(
            f"the outputs must be a policy: build {type(learner).__name__} with "
            f"likelihood=PolicyGradient(...); got {learner.likelihood}"
        )
    return learner, learner.likelihood


def initial_weights(
    learner: Descent, environment: Environment, n: int
) -> tuple[Weights, Examples]:
    """The initial weights of n tasks, and an empty support set: one example of zeros
    with weight zero.
    """
    p, spec = next(learner.parameters()), environment.spec
    empty = Examples(p.new_zeros(n, 1, *spec.x_shape), p.new_zeros(n, 1, spec.y_dim))
    return learner.mapped(learner.init, empty), empty


def training_examples(
    played: Rollout, discount: float = 0.99, standardized: bool = True
) -> Examples:
    """The steps of a rollout, every action weighted by its advantage; the last step of
    a row ends its episode.
    """
    y = played.y.clone()
    y[..., -1, -1] = 1.0
    weight = advantages(played, discount, standardized)
    return played._replace(y=y).weighted(weight)


def adapt_by_acting(
    learner: Learner,
    environment: Environment,
    params: Tensor,
    rng: torch.Generator,
    *,
    updates: int = 3,
    episodes: int | None = None,
    later_scale: float = 0.25,
    discount: float = 0.99,
    standardized: bool = True,
) -> Iterator[Rollout]:
    """The rollouts of tasks with parameters (n, p) after 0, 1, ..., `updates` steps,
    each of which learns from the rollout before it.

    later_scale: size of the steps after the first one, relative to it. Gradients grow
    as a policy becomes less random: Finn et al. 2017, arXiv:1703.03400, appendix A.2,
    halve the learning rate; a quarter is better for `navigation`.
    """
    descent = check_policy_gradient(learner)[0]
    with torch.no_grad():
        weights, support = initial_weights(descent, environment, len(params))
    for update in range(updates + 1):
        with torch.no_grad():
            state = descent.mapped(descent.finalize, weights, support)
        played = rollout(
            descent,
            environment,
            params,
            rng,
            state=state,
            repeats=episodes or environment.episodes,
            episodes=1,
        )
        yield played
        if update < updates:
            support = training_examples(played, discount, standardized)
            if update:
                support = _scaled(support, support.y.new_full((), later_scale))
            with torch.no_grad():
                weights = descent.mapped(descent.step, weights, support)


def _log_p(learner: Descent, outputs: Tensor, examples: Examples) -> Tensor:
    policy = check_policy_gradient(learner)[1]
    return policy.log_prob(outputs, examples.y[..., :-2])


def _scaled(examples: Examples, factor: Tensor) -> Examples:
    """The examples with all weights times a factor (n, m)."""
    y = examples.y.clone()
    y[..., -2] *= factor
    return Examples(examples.x, y)
