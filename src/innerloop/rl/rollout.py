"""Rollouts: an agent acts in many episodes side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner, State, Streaming
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.functional import substituted
from innerloop.engine.rows import drawing
from innerloop.learners.memory.recurrent import Recurrent
from innerloop.rl.policy import policy_of

if TYPE_CHECKING:
    from innerloop.rl.environment import Environment


class Step(NamedTuple):
    """One step of many episodes side by side."""

    x: Tensor  # (rows, *x_shape)  observations
    y: Tensor  # (rows, actions + 2)  [action | reward | done]
    outputs: Tensor  # (rows, out_dim)  of the agent's network
    training_reward: Tensor  # (rows,)


class Rollout(NamedTuple):
    """Episodes of n tasks, k of each side by side. After the end of a short episode,
    its row continues with the next one.
    """

    x: Tensor  # (n, k, steps, *x_shape)  observations
    y: Tensor  # (n, k, steps, actions + 2)  [action | reward | done]
    outputs: Tensor  # (n, k, steps, out_dim)  of the agent's network
    training_reward: Tensor  # (n, k, steps)

    @classmethod
    def of(cls, steps: Iterable[Step], n: int) -> Rollout:
        """From the steps of n tasks."""
        columns = zip(*steps, strict=True)
        return cls(
            *(torch.stack(column, 1).unflatten(0, (n, -1)) for column in columns)
        )

    @property
    def reward(self) -> Tensor:
        return self.y[..., -2]  # (n, k, steps)

    @property
    def done(self) -> Tensor:
        return self.y[..., -1]  # (n, k, steps)

    @property
    def examples(self) -> Examples:
        """All steps of every task: x (n, k steps, *x_shape), y (n, k steps,
        actions + 2).
        """
        return Examples(self.x.flatten(1, 2), self.y.flatten(1, 2))

    def weighted(self, weight: Tensor) -> Examples:
        """All steps of every task, with weights (n, k, steps) in place of the
        rewards.
        """
        y = torch.cat([self.y[..., :-2], weight[..., None], self.y[..., -1:]], -1)
        return Examples(self.x.flatten(1, 2), y.flatten(1, 2))


class Agent(ABC):
    """Something that acts in many episodes side by side."""

    @abstractmethod
    def begin(self, rows: int) -> None:
        """Start trials in so many rows, without any memory."""

    @abstractmethod
    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (rows, actions) for observations (rows, *x_shape), and the network's
        outputs (rows, out_dim).
        """

    def learn(self, x: Tensor, y: Tensor, next_x: Tensor) -> None:  # noqa: B027
        """See what followed: y (rows, actions + 2) is [action | reward | done], next_x
        the observations after the step, before a new episode starts.
        """


@torch.no_grad()
def interact(
    agent: Agent,
    environment: Environment,
    params: Tensor,
    rng: torch.Generator,
    steps: int,
) -> Iterator[Step]:
    """`steps` steps of an agent in tasks with parameters (rows, p), one episode after
    the other.

    rng: draws what the environment draws, on the CPU.
    """
    agent.begin(len(params))
    n = len(params)
    # what `rng` draws must not depend on whether an episode ends, in any of the rows
    copy = rng.clone_state()
    seed = int(torch.randint(2**62, (), generator=copy, device=rng.device))
    with drawing(rng, n):
        state = environment.start(params, rng)
    clock = torch.zeros(len(params), dtype=torch.long, device=params.device)
    x = environment.observe(params, state)
    for number in range(steps):
        action, outputs = agent.act(x)
        training_reward = environment.training_reward(params, state, action)
        with drawing(rng, n):
            state, reward, done = environment.step(params, state, action, rng)
        clock = clock + 1
        done = done | (clock == environment.horizon)
        ending = torch.stack([reward, done.to(reward.dtype)], -1)
        y = torch.cat([action, ending], -1)
        next_x = environment.observe(params, state)
        agent.learn(x, y, next_x)
        yield Step(
            x, y, outputs, reward if training_reward is None else training_reward
        )
        if bool(done.any()):
            starts = torch.Generator(rng.device).manual_seed(seed + number)
            with drawing(starts, n):
                first = environment.start(params, starts)
            state = torch.where(done[:, None], first, state)
            clock = torch.where(done, 0, clock)
            next_x = environment.observe(params, state)
        x = next_x


def rollout(
    learner: Learner,
    environment: Environment,
    params: Tensor,
    rng: torch.Generator,
    *,
    state: State = None,
    repeats: int = 1,
    episodes: int | None = None,
) -> Rollout:
    """Roll out a learner in tasks with parameters (n, p).

    Args:
        learner: a learner that streams starts every trial from its `init` and observes
            every step. Any other acts from `state`.
        environment: the environment of the tasks.
        params: parameters of the tasks.
        rng: draws the actions and what the environment draws, on the CPU.
        state: the learner's adapted states, with a leading axis n.
        repeats: how many trials of a task run side by side.
        episodes: episodes in a trial (default: the environment's).

    Raises InnerloopTypeError where the learner's outputs are not a policy.
    """
    agent = (
        streaming_agent(learner, rng)
        if state is None
        else AdaptedAgent(learner, state, len(params), rng)
    )
    steps = environment.horizon * (episodes or environment.episodes)
    rows = params.repeat_interleave(repeats, 0)
    return Rollout.of(interact(agent, environment, rows, rng, steps), len(params))


class AdaptedAgent(Agent):
    """A learner that acts from the states of n tasks, which do not change."""

    def __init__(self, learner: Learner, state: State, n: int, rng: torch.Generator):
        self.learner, self.state, self.n, self.rng = learner, state, n, rng
        self.policy = policy_of(learner)

    def begin(self, rows: int) -> None:
        pass

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        predict = torch.vmap(self.learner.predict)
        outputs = predict(self.state, x.unflatten(0, (self.n, -1))).flatten(0, 1)
        return self.policy.sample(outputs, self.rng), outputs


class StreamingAgent(Agent):
    """A learner that streams: it observes every step of a trial."""

    def __init__(self, learner: Streaming, rng: torch.Generator):
        self.learner, self.rng, self.policy = learner, rng, policy_of(learner)
        self.state: State = None

    def map(self, function: Callable[..., Any], *trees: Any) -> Any:
        """`function(learner, *trees)` for every row of the trees."""
        mapped = torch.vmap(partial(function, self.learner), randomness="different")
        return mapped(*trees)

    def begin(self, rows: int) -> None:
        self.state = tree_map(lambda t: t.expand(rows, *t.shape), self.learner.init())

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.map(_predict, self.state, x)
        return self.policy.sample(outputs, self.rng), outputs

    def learn(self, x: Tensor, y: Tensor, next_x: Tensor) -> None:
        self.state = self.map(_observe, self.state, x, y)


def _predict(learner: Streaming, state: State, x: Tensor) -> Tensor:
    return learner.predict(state, x[None])[0]


def _observe(learner: Streaming, state: State, x: Tensor, y: Tensor) -> State:
    return learner.observe(state, x, y)


def _init(learner: Streaming, row: Tensor) -> State:
    return tree_map(torch.clone, learner.init())


class RecurrentAgent(StreamingAgent):
    """A recurrent learner: it reads the labels one step late, so that acting and
    observing take one step of the network together.
    """

    learner: Recurrent

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, self.memory = self.learner.step_batch(self.state, x)
        return self.policy.sample(outputs, self.rng), outputs

    def learn(self, x: Tensor, y: Tensor, next_x: Tensor) -> None:
        self.state = self.memory, y


class PopulationAgent(StreamingAgent):
    """A learner with the parameters of many members, by name, each (members, *shape);
    the rows are those of the first member, then of the second one, and so on.
    """

    def __init__(
        self, learner: Streaming, members: dict[str, Tensor], rng: torch.Generator
    ):
        super().__init__(learner, rng)
        self.members = members

    def map(self, function: Callable[..., Any], *trees: Any) -> Any:
        def one(theta: dict[str, Tensor], trees: Any) -> Any:
            member = partial(function, substituted(self.learner, theta))
            return torch.vmap(member, randomness="different")(*trees)

        size = len(next(iter(self.members.values())))
        parted = tree_map(lambda t: t.unflatten(0, (size, -1)), trees)
        results = torch.vmap(one, randomness="different")(self.members, parted)
        return tree_map(lambda t: t.flatten(0, 1), results)

    def begin(self, rows: int) -> None:
        first = next(iter(self.members.values()))
        self.state = self.map(_init, first.new_zeros(rows))


def check_streaming(learner: Learner) -> Streaming:
    """The learner as one that streams. Raises InnerloopTypeError where it does not."""
    if not isinstance(learner, Streaming):
        raise InnerloopTypeError(
            "acting with memory needs a learner that streams, such as RL2 or LSTM; got "
            f"{type(learner).__name__}"
        )
    return learner


def streaming_agent(learner: Learner, rng: torch.Generator) -> StreamingAgent:
    """A learner that streams, as an agent."""
    streaming = check_streaming(learner)
    agent = RecurrentAgent if isinstance(streaming, Recurrent) else StreamingAgent
    return agent(streaming, rng)


def trial_outputs(learner: Streaming, trials: Examples) -> Tensor:
    """The outputs (m, steps, out_dim) of a learner along m trials."""
    if isinstance(learner, Recurrent):
        return learner.scan_batch(trials)
    return torch.vmap(lambda trial: learner.scan(trial)[1])(trials)
