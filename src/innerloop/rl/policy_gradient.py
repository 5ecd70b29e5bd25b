"""Learners that descend, on tasks that are played: what they play with their start,
they learn from, and play again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Metrics
from innerloop.core.meta_test import Estimate, TestResult
from innerloop.metagrad.base import Grads
from innerloop.metagrad.backprop import backprop
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.rl.advantages import advantages, counted
from innerloop.rl.environment import Environment
from innerloop.rl.policy import Policy
from innerloop.rl.rollout import Played, examples_of, play

Estimator = Literal["dice", "lvc", "biased"]


@dataclass(frozen=True)
class PolicyGradient(Policy):
    """A policy whose loss has a second derivative to go by: that of the expected
    return, not only of the actions that happened to be drawn.

    The first derivative is that of REINFORCE, whatever the estimator. A meta-gradient
    goes through an inner step, so it takes the derivative again: under other weights
    other episodes would have been played. A_t is the weight of a step, log p_t the log
    probability of its action.

    estimator: what is averaged over the steps and differentiated.
        "dice": (M_t - M_(t-1)) A_t, where M_t = exp(sum of log p - stopped(log p) over
        the episode, up to step t). In expectation all derivatives are right (Foerster
        et al. 2018, arXiv:1802.05098; for advantages, Farquhar et al. 2019,
        arXiv:1909.10549).
        "lvc": exp(log p_t - stopped(log p_t)) A_t. Leaves out the products of two
        different steps, which are noisy; exact where episodes have one step (low
        variance curvature, Rothfuss et al. 2019, arXiv:1810.06784, section 5).
        "biased": log p_t A_t, that of `Policy`. The draw of the episodes is taken to be
        fixed, and the second derivative is wrong.
    """

    estimator: Estimator = "lvc"

    def __post_init__(self) -> None:
        if self.estimator not in ("dice", "lvc", "biased"):
            raise InnerloopError(
                f'the estimator is "dice", "lvc" or "biased", not {self.estimator!r}'
            )

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self.estimator == "biased":
            return super().nll(outputs, y)
        log_p = self.log_prob(outputs, y[..., :-2])  # (m,)
        log_ratio = log_p - log_p.detach()
        if self.estimator == "lvc":
            return -(log_ratio.exp() * y[..., -2]).mean()
        summed = torch.cat([log_ratio.new_zeros(1), log_ratio.cumsum(0)])  # (m + 1,)
        step = torch.arange(len(y), device=y.device)
        ends = ((step + 1) * (y[..., -1] > 0.5)).cummax(0).values  # (m,)
        # (m,) up to the step's episode
        begun = summed[torch.cat([ends.new_zeros(1), ends[:-1]])]
        return -(
            ((summed[1:] - begun).exp() - (summed[:-1] - begun).exp()) * y[..., -2]
        ).mean()


class _Round(NamedTuple):
    """What a batch of tasks was played like, before and after adapting, the log
    probabilities (n, m) of the actions then, and the returns.
    """

    task: Task
    log_p: tuple[Tensor, Tensor]
    metrics: Metrics


@dataclass
class MetaPolicyGradient:
    """The meta-gradient of tasks that are played, for learners that descend, such as
    MAML.

    Every task is played with the start weights, adapted to, and played again with the
    adapted weights. The return of that is to rise, and its gradient flows through the
    adaptation, whose second derivative is as the estimator of the learner's
    `PolicyGradient` says.
    Finn, Abbeel and Levine 2017, arXiv:1703.03400, Algorithm 3, with the plain policy
    gradient as meta-optimiser instead of TRPO.

    environment: whose tasks. episodes: how many of a task are played, side by side,
    before adapting, and after; by default as many as a trial has. A learner with no
    inner step plays after only.
    discount: of rewards to come. standardised: whether advantages are, task by task.
    uses: how many meta-steps go by what was played once, the later ones with every
    action weighed by how much more probable it has become, and without those that
    became so by more than `clip` already (Rothfuss et al. 2019, arXiv:1810.06784, eq.
    (12), without the penalty on the divergence). generator: draws actions.
    """

    defaults: ClassVar[MetaTrainConfig] = MetaTrainConfig(
        batch=20,
        optimizer="Adam",
        lr=3e-3,
        warmup=0.0,
        decay=False,
        meta_gradient="policy-gradient",
    )
    learner_fields: ClassVar[dict[str, Any]] = {
        "inner_lr": 0.1,
        "initial_rate": 0.1,
    }  # of learners, where they have them: Finn et al. 2017, appendix A.2

    environment: Environment
    episodes: int | None = None
    discount: float = 0.99
    standardised: bool = True
    uses: int = 1
    clip: float = 0.3
    generator: torch.Generator = field(
        default_factory=lambda: torch.Generator().manual_seed(0)
    )

    def __post_init__(self) -> None:
        self.times = (
            self.environment.episodes if self.episodes is None else self.episodes
        )
        if min(self.times, self.uses) < 1:
            raise InnerloopError(
                f"at least one episode is played and used, not {self.times} and {self.uses}"
            )
        self._round: _Round | None = None
        self._used = 0

    @classmethod
    def policy(cls, environment: Environment) -> PolicyGradient:
        """How a learner's outputs are read."""
        return PolicyGradient(discrete=environment.discrete)

    def on_progress(self, progress: float) -> None:
        """Told how far meta-training is, from 0 to 1, which changes nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on as if it had never stopped, beside the
        generator.
        """
        leaves = (
            tree_leaves(self._round[:2])
            if self._round and self._used < self.uses
            else []
        )
        return {
            "used": self._used,
            "round": leaves,
            "metrics": dict(self._round.metrics) if leaves and self._round else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._used = state["used"]
        if state["round"]:
            x, y, query_x, query_y, before, after = state["round"]
            self._round = _Round(
                Task(Examples(x, y), Examples(query_x, query_y)),
                (before, after),
                state["metrics"],
            )

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        descent = acting(learner)
        if self._round is None or self._used >= self.uses:
            self._round, self._used = self._play(descent, tasks.support.x[:, 0]), 0
        task = (
            self._round.task if self._used == 0 else self._weighed(descent, self._round)
        )
        self._used += 1
        grads, metrics = backprop(learner, task)
        return grads, {**metrics, **self._round.metrics}

    @torch.no_grad()
    def _play(self, learner: Descent, parameters: Tensor) -> _Round:
        """A round of tasks with parameters (n, p)."""

        def once(
            weights: Weights, support: Examples
        ) -> tuple[Examples, Tensor, Tensor]:
            state = learner.mapped(learner.finalize, weights, support)
            played = play(
                learner,
                self.environment,
                parameters,
                self.generator,
                state=state,
                times=self.times,
                episodes=1,
            )
            return (
                self.examples(played),
                _log_p(learner, played.outputs.flatten(1, 2), played.examples),
                mean_return(played).mean(),
            )

        start, nothing = begun(learner, self.environment, len(parameters))
        if not learner.inner_steps:
            query, log_p, earned = once(start, nothing)
            return _Round(
                Task(query, query), (log_p, log_p), {"loss": -earned, "reward": earned}
            )
        support, log_p_before, before = once(start, nothing)
        query, log_p_after, after = once(
            learner.mapped(learner.adapt, support), support
        )
        return _Round(
            Task(support, query),
            (log_p_before, log_p_after),
            {"loss": -after, "reward_before": before, "reward": after},
        )

    def examples(self, played: Played) -> Examples:
        """What was played, every action with its advantage; an episode that the end of
        the steps cut off is over there.
        """
        y = played.y.clone()
        y[..., -1, -1] = 1.0
        return examples_of(
            played._replace(y=y), advantages(played, self.discount, self.standardised)
        )

    @torch.no_grad()
    def _weighed(self, learner: Descent, then: _Round) -> Task:
        """The round as the learner that is now would see it: min(ratio advantage,
        clipped ratio advantage) has the gradient of these weights.
        """

        def ratio(weights: Weights, examples: Examples, log_p: Tensor) -> Tensor:
            # (n, m)
            return (
                _log_p(
                    learner,
                    learner.mapped(learner.predict, weights, examples.x),
                    examples,
                )
                - log_p
            ).exp()

        support, query = then.task
        start, _ = begun(learner, self.environment, len(support.x))
        support = _times(
            support,
            ratio(
                learner.mapped(learner.finalize, start, support), support, then.log_p[0]
            ),
        )
        r, advantage = (
            ratio(learner.mapped(learner.adapt, support), query, then.log_p[1]),
            query.y[..., -2],
        )
        gone = ((r > 1 + self.clip) & (advantage > 0)) | (
            (r < 1 - self.clip) & (advantage < 0)
        )
        return Task(support, _times(query, r.masked_fill(gone, 0.0)))


def acting(learner: Learner) -> Descent:
    """The learner, as one that descends and acts. Raises TypeError where it is none."""
    if not isinstance(learner, Descent):
        raise InnerloopTypeError(
            f"a policy gradient moves weights, so it needs a learner whose state is weights, such as MAML; not {type(learner).__name__}"
        )
    if not isinstance(learner.likelihood, PolicyGradient):
        raise InnerloopTypeError(
            f"the outputs must be a policy: build the learner with likelihood=PolicyGradient(...), not {learner.likelihood}"
        )
    return learner


def begun(
    learner: Descent, environment: Environment, n: int
) -> tuple[Weights, Examples]:
    """The weights of n tasks before the first step, and the examples that they have
    seen: one of zeros, of weight zero.
    """
    p, spec = next(learner.parameters()), environment.spec
    nothing = Examples(p.new_zeros(n, 1, *spec.x_shape), p.new_zeros(n, 1, spec.y_dim))
    return learner.mapped(learner.init, nothing), nothing


def mean_return(played: Played) -> Tensor:
    """The undiscounted return of every task (n,), a mean over the first episodes of its
    rows.
    """
    return (played.reward * counted(played)).sum(-1).mean(-1)


def play_and_learn(
    learner: Learner,
    gradient: MetaPolicyGradient,
    parameters: Tensor,
    generator: torch.Generator,
    updates: int = 3,
    later: float = 0.25,
) -> Iterator[Played]:
    """What is played of tasks with parameters (n, p) after 0, 1, ..., `updates` steps,
    each of which learns from what was just played.

    `gradient` says what is played, how often, and what is learned from it. Steps after
    the first are `later` times as long, for the gradient grows as a policy becomes
    sure: Finn et al. 2017, arXiv:1703.03400, appendix A.2, halve the rate; `navigation`
    is better off with a quarter.
    """
    descent = acting(learner)
    with torch.no_grad():
        weights, support = begun(descent, gradient.environment, len(parameters))
    for update in range(updates + 1):
        with torch.no_grad():
            state = descent.mapped(descent.finalize, weights, support)
        played = play(
            descent,
            gradient.environment,
            parameters,
            generator,
            state=state,
            times=gradient.times,
            episodes=1,
        )
        yield played
        if update < updates:
            support = gradient.examples(played)
            support = (
                _times(support, support.y.new_tensor(later)) if update else support
            )
            with torch.no_grad():
                weights = descent.mapped(descent.step, weights, support)


def update_test(
    learner: Learner,
    environment: Environment,
    *,
    n: int,
    generator: torch.Generator,
    updates: int | None = None,
    chunk: int = 25,
) -> TestResult:
    """Play `n` unseen tasks: the mean return of an episode after the learner's inner
    steps, and after 0, 1, ... `updates` of them (default: its own).

    A trial's episodes are played before every update and after the last. generator:
    draws the tasks, and then what is drawn in play.
    """
    begin, descent = time.monotonic(), acting(learner)
    device = next(learner.parameters()).device
    gradient, found = MetaPolicyGradient(environment), []
    for parameters in environment.draw(n, generator).to(device).split(chunk):
        found.append(
            torch.stack(
                [
                    mean_return(p)
                    for p in play_and_learn(
                        descent,
                        gradient,
                        parameters,
                        generator,
                        updates or descent.inner_steps,
                    )
                ]
            )
        )
    curve = [Estimate.of(values.cpu()) for values in torch.cat(found, 1)]
    metrics = {"reward": curve[min(descent.inner_steps, len(curve) - 1)]}
    return TestResult(
        metrics,
        n,
        transductive=False,
        seconds=time.monotonic() - begin,
        score="reward",
        curve=curve,
    )


def _log_p(learner: Descent, outputs: Tensor, examples: Examples) -> Tensor:
    assert isinstance(learner.likelihood, Policy)
    return learner.likelihood.log_prob(outputs, examples.y[..., :-2])


def _times(examples: Examples, factor: Tensor) -> Examples:
    """The examples, every weight times a factor (n, m)."""
    y = examples.y.clone()
    y[..., -2] *= factor
    return Examples(examples.x, y)
