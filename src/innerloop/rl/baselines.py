"""Strategies that people found: they know the family that a task is drawn from, and
need no meta-training. What meta-learned ones stand beside.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.rl.bandits import Bandits
from innerloop.rl.environment import Environment
from innerloop.rl.mdps import MDPs, solved


class Strategy(ABC):
    """Plays n tasks side by side. It knows the family of the environment, and of the
    tasks what it has seen since `begin`.
    """

    def __init__(self, environment: Environment, generator: torch.Generator):
        self.environment, self.generator = environment, generator

    @abstractmethod
    def begin(self, n: int) -> None:
        """Forget everything."""

    @abstractmethod
    def act(self, x: Tensor) -> Tensor:
        """The numbers (n,) of the actions in what is seen, x (n, *x_shape)."""

    @abstractmethod
    def observe(
        self, x: Tensor, action: Tensor, reward: Tensor, after: Tensor, over: Tensor
    ) -> None:
        """What came of it: rewards (n,), what is seen next (n, *x_shape), and whether
        the episode is over (n,).
        """

    def gamma(self, shape: Tensor) -> Tensor:
        """Draws of gamma distributions with these shapes and a scale of 1: divided by
        their sum, they are of a beta or Dirichlet distribution.
        """
        return torch._standard_gamma(shape, generator=self.generator)  # pyright: ignore[reportPrivateImportUsage]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def best(self, worth: Tensor) -> Tensor:
        """The best actions (n,) of worths (n, actions), one of the best at random."""
        return torch.where(
            worth == worth.max(-1, keepdim=True).values,
            self.uniform(*worth.shape),
            -1.0,
        ).argmax(-1)

    def now_and_then(self, epsilon: float, action: Tensor) -> Tensor:
        """Actions (n,), any other with a probability of `epsilon`."""
        other = torch.randint(
            self.environment.actions, action.shape, generator=self.generator
        )
        return torch.where(self.uniform(*action.shape) < epsilon, other, action)


def strategy_rewards(
    strategy: Strategy,
    environment: Environment,
    parameters: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The rewards (n, steps) of a strategy in one trial of tasks with parameters (n,
    p).
    """
    n, rows = len(parameters), []
    strategy.begin(n)
    where, clock = environment.start(parameters, generator), torch.zeros(n)
    for _ in range(environment.steps):
        x = environment.look(parameters, where)
        action = strategy.act(x)
        where, reward, over = environment.step(
            parameters,
            where,
            F.one_hot(action, environment.actions).to(parameters.dtype),
            generator,
        )
        clock = clock + 1
        over = over | (clock == environment.horizon)
        strategy.observe(x, action, reward, environment.look(parameters, where), over)
        where = torch.where(
            over[:, None], environment.start(parameters, generator), where
        )
        clock = torch.where(over, 0.0, clock)
        rows.append(reward)
    return torch.stack(rows, 1)


class Random(Strategy):
    """Any action, whatever happens."""

    def begin(self, n: int) -> None:
        pass

    def act(self, x: Tensor) -> Tensor:
        return torch.randint(
            self.environment.actions, (len(x),), generator=self.generator
        )

    def observe(
        self, x: Tensor, action: Tensor, reward: Tensor, after: Tensor, over: Tensor
    ) -> None:
        pass


class ArmStrategy(Strategy):
    """For bandits: what counts of every arm is how often it was pulled (n, k) and what
    it gave in all (n, k).
    """

    environment: Bandits

    def begin(self, n: int) -> None:
        self.pulls, self.sums = (
            torch.zeros(n, self.environment.actions),
            torch.zeros(n, self.environment.actions),
        )
        self.time = 0

    def observe(
        self, x: Tensor, action: Tensor, reward: Tensor, after: Tensor, over: Tensor
    ) -> None:
        self.pulls.scatter_add_(1, action[:, None], torch.ones(len(action), 1))
        self.sums.scatter_add_(1, action[:, None], reward[:, None])
        self.time += 1

    def act(self, x: Tensor) -> Tensor:
        return self.best(self.worth())

    @abstractmethod
    def worth(self) -> Tensor:
        """What an arm is worth trying (n, k)."""

    def mean(self) -> Tensor:
        """The posterior mean (n, k) of every arm: of Beta(1, 1), or of the standard
        normal distribution.
        """
        bernoulli = self.environment.rewards == "bernoulli"
        return (
            (1 + self.sums) / (2 + self.pulls)
            if bernoulli
            else self.sums / (1 + self.pulls)
        )

    def sampled(self) -> Tensor:
        """A draw (n, k) from the posterior of every arm."""
        if self.environment.rewards == "bernoulli":
            a, b = (
                self.gamma(1 + count) for count in (self.sums, self.pulls - self.sums)
            )
            return a / (a + b)
        return (
            self.mean()
            + torch.randn(self.pulls.shape, generator=self.generator)
            / (1 + self.pulls).sqrt()
        )


class Greedy(ArmStrategy):
    """The arm with the best posterior mean."""

    def worth(self) -> Tensor:
        return self.mean()


class EpsilonGreedy(ArmStrategy):
    """The arm with the best posterior mean, and now and then any."""

    epsilon = 0.02

    def worth(self) -> Tensor:
        return self.mean()

    def act(self, x: Tensor) -> Tensor:
        return self.now_and_then(self.epsilon, super().act(x))


class UCB1(ArmStrategy):
    """The arm with the best upper confidence bound, mean + c sqrt(2 log t / pulls),
    counting one success and one failure before the first pull.

    Auer, Cesa-Bianchi and Fischer 2002, "Finite-time analysis of the multiarmed bandit
    problem", figure 1, where c = 1; a smaller one does far better on few pulls (Duan et
    al. 2016, arXiv:1611.02779, appendix).
    """

    c = 0.2

    def worth(self) -> Tensor:
        return (
            self.mean()
            + self.c * (2 * math.log(1 + self.time) / (2 + self.pulls)).sqrt()
        )


class Thompson(ArmStrategy):
    """The arm that is best in a draw from the posterior. Thompson 1933."""

    def worth(self) -> Tensor:
        return self.sampled()


class OptimisticThompson(ArmStrategy):
    """Thompson sampling whose draws are never below the posterior mean. May, Korda, Lee
    and Leslie 2012, "Optimistic Bayesian sampling".
    """

    def worth(self) -> Tensor:
        return torch.maximum(self.sampled(), self.mean())


class Gittins(ArmStrategy):
    """The arm with the highest index of Gittins 1979 for Bernoulli arms and as many
    pulls as are left: exact, by dynamic programming.

    With infinitely many discounted pulls the index would be optimal. With n pulls it is
    very nearly so (Lattimore 2016, arXiv:1511.06014).
    """

    def worth(self) -> Tensor:
        left = self.environment.horizon - self.time
        good = self.sums.long()
        return gittins(self.environment.horizon)[left][good, self.pulls.long() - good]


@cache
def gittins(pulls: int, grid: int = 512) -> dict[int, Tensor]:
    """Finite-horizon indices of a Bernoulli arm under Beta(1, 1), by the pulls m that
    are left: tables of (successes, failures).

    The index is the sure reward that makes one indifferent: to pull for up to m times
    and then take the sure reward for what is left of them, or to take it at once. With
    the sure reward w, V_m = max(m w, p (1 + V_(m-1) after a success) + (1 - p) V_(m-1)
    after a failure), where p is the posterior mean; solved for a grid of sure rewards,
    between which the index is interpolated.
    """
    sure = torch.linspace(0, 1, grid, dtype=torch.float64)
    # (successes, failures, sure)
    value = torch.zeros(pulls + 2, pulls + 2, grid, dtype=torch.float64)
    found = {}
    for m in range(1, pulls + 1):
        size = pulls - m + 1  # as many pulls as there may have been, and none
        count = torch.arange(size, dtype=torch.float64)
        # (size, size, 1)
        p = ((1 + count[:, None]) / (2 + count[:, None] + count))[..., None]
        going_on = (
            p * (1 + value[1 : size + 1, :size]) + (1 - p) * value[:size, 1 : size + 1]
        )
        # (size, size, grid) falls with the sure reward, from above 0 to below
        gain = going_on - m * sure
        # the last grid point at which going on is better
        last = (gain > 0).sum(-1, keepdim=True).clamp(1, grid - 1) - 1
        low, high = gain.gather(-1, last), gain.gather(-1, last + 1)
        found[m] = (sure[last] + (sure[1] - sure[0]) * low / (low - high))[
            ..., 0
        ].float()
        value = torch.maximum(going_on, (m * sure).expand_as(going_on))
    return found


class ModelStrategy(Strategy):
    """For MDPs: what counts is the posterior of rewards and transitions, and an episode
    is played by the best policy of one model of them.

    prior: what mean rewards are expected to be before any was seen. They are 1 on
    average; the figures that are published go with 0.
    """

    environment: MDPs
    prior = 1.0

    def begin(self, n: int) -> None:
        shape = n, self.environment.states, self.environment.actions
        self.pulls, self.sums = torch.zeros(shape), torch.zeros(shape)
        # of the Dirichlet posterior
        self.alpha = torch.ones(*shape, self.environment.states)
        self.rows = torch.arange(n)
        self.step, self.plan = 0, torch.empty(0)

    @abstractmethod
    def model(self) -> tuple[Tensor, Tensor]:
        """Rewards (n, S, A) and transitions (n, S, A, S) to plan with."""

    def act(self, x: Tensor) -> Tensor:
        if self.step == 0:
            # (horizon, n, S, A)
            self.plan = solved(*self.model(), self.environment.horizon)
        return self.best(self.plan[self.step, self.rows, x.argmax(-1)])

    def observe(
        self, x: Tensor, action: Tensor, reward: Tensor, after: Tensor, over: Tensor
    ) -> None:
        s = x.argmax(-1)
        self.pulls[self.rows, s, action] += 1
        self.sums[self.rows, s, action] += reward
        self.alpha[self.rows, s, action, after.argmax(-1)] += 1
        self.step = (self.step + 1) % self.environment.horizon

    def mean_model(self) -> tuple[Tensor, Tensor]:
        """Posterior means: of rewards with a deviation of 1 before, and noise of
        deviation 1; of Dirichlet transitions.
        """
        return (self.prior + self.sums) / (1 + self.pulls), self.alpha / self.alpha.sum(
            -1, keepdim=True
        )

    def sampled_model(self) -> tuple[Tensor, Tensor]:
        """A draw from the posterior."""
        noise = (
            torch.randn(self.pulls.shape, generator=self.generator)
            / (1 + self.pulls).sqrt()
        )
        share = self.gamma(self.alpha)
        return self.mean_model()[0] + noise, share / share.sum(-1, keepdim=True)


class PSRL(ModelStrategy):
    """Posterior sampling: each episode, the best policy of an MDP that is drawn from
    the posterior.

    Strens 2000; Osband, Russo and Van Roy 2013, "(More) efficient reinforcement
    learning via posterior sampling", arXiv:1306.0940, Algorithm 1
    """

    def model(self) -> tuple[Tensor, Tensor]:
        return self.sampled_model()


class PessimisticPSRL(PSRL):
    """The same, expecting rewards of 0: it tries less."""

    prior = 0.0


class GreedyModel(ModelStrategy):
    """Each episode, the best policy of the posterior's mean MDP."""

    def model(self) -> tuple[Tensor, Tensor]:
        return self.mean_model()


class PessimisticGreedyModel(GreedyModel):
    """The same, expecting rewards of 0."""

    prior = 0.0


class EpsilonGreedyModel(ModelStrategy):
    """Each episode, the best policy of the posterior's mean MDP, and now and then any
    action.
    """

    epsilon = 0.1

    def model(self) -> tuple[Tensor, Tensor]:
        return self.mean_model()

    def act(self, x: Tensor) -> Tensor:
        return self.now_and_then(self.epsilon, super().act(x))


def oracles(
    environment: Environment,
) -> dict[str, Callable[[Environment, torch.Generator], Strategy]]:
    """The strategies that know how to play in an environment, by name."""
    found: dict[str, Callable[..., Strategy]] = {"random": Random}
    if isinstance(environment, Bandits):
        if environment.rewards == "bernoulli":
            found["Gittins index"] = Gittins
        found |= {"Thompson": Thompson, "optimistic Thompson": OptimisticThompson}
        found |= {"UCB1": UCB1, "epsilon-greedy": EpsilonGreedy, "greedy": Greedy}
    if isinstance(environment, MDPs):
        found |= {
            "PSRL": PSRL,
            "epsilon-greedy": EpsilonGreedyModel,
            "greedy": GreedyModel,
        }
        found |= {
            "PSRL, prior 0": PessimisticPSRL,
            "greedy, prior 0": PessimisticGreedyModel,
        }
    return found
