"""Environments of gymnasium."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.rl.environment import Environment

try:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec, load_env_creator
except ImportError as error:
    raise MissingPackageError(
        "this environment needs gymnasium: pip install 'innerloop[gym]'"
    ) from error

__all__ = ["EnvSpec", "Gym", "Rows", "Simulator", "load_env_creator", "runner"]
Goal = Literal["direction", "velocity"]
Array = np.ndarray[Any, Any]
Env = gymnasium.Env[Any, Any]
Space = gymnasium.Space[Any]
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
# what makes an environment for the parameters (p,) of a task; it is called again for
# another task, with the environment of the last one, which it may return
Make = Callable[[Array, Env | None], Env]
SEEDS = 2**31


class Simulator(ABC):
    """Episodes of n tasks side by side."""

    @abstractmethod
    def begin(self, params: Array, seeds: list[int]) -> Array:
        """Begin an episode of every task with parameters (n, p): the first observations
        (n, *x_shape).
        """

    @abstractmethod
    def step(self, action: Array, active: Array) -> tuple[Array, Array, Array]:
        """Take actions (n, ...): observations (n, *x_shape), rewards (n,), and whether
        the episode has ended (n,); of no meaning in rows that are not `active` (n,).
        """

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""


class Rows(Simulator):
    """One environment of gymnasium for every row. Rows that are not active take no
    time, unlike in gymnasium's SyncVectorEnv.
    """

    def __init__(self, make: Make, n: int):
        self.make = make
        self.envs: list[Env | None] = [None] * n
        self.params = np.zeros((n, 0))
        self.observed: list[Any] = [None] * n

    def begin(self, params: Array, seeds: list[int]) -> Array:
        fresh = self.params.shape != params.shape
        for i, (row, env, seed) in enumerate(
            zip(params, self.envs, seeds, strict=True)
        ):
            if env is None or fresh or (row != self.params[i]).any():
                env = self.envs[i] = self.make(row, env)
            self.observed[i] = env.reset(seed=seed)[0]
        self.params = params
        return np.stack(self.observed)

    def step(self, action: Array, active: Array) -> tuple[Array, Array, Array]:
        reward, ended = np.zeros(len(action)), np.zeros(len(action), dtype=bool)
        for i in active.nonzero()[0]:
            env = self.envs[i]
            assert env is not None  # see begin
            self.observed[i], reward[i], done, cut, _ = env.step(action[i])
            ended[i] = done or cut
        return np.stack(self.observed), reward, ended

    def close(self) -> None:
        for env in self.envs:
            if env is not None:
                env.close()


class Gym(Environment):
    """Tasks that are played in environments of gymnasium.

    Actions are discrete, or reals that are clipped to -1..1 and scaled to the bounds of
    the action space, where it has any. Every episode of a trial takes `horizon` steps:
    after its end, a row is idle until the others have ended, with the last observation,
    a reward of 0 and done = 1. The state of an episode is in the simulators, and
    `state` is the last observation, so that an environment serves one rollout at a
    time.

    Args:
        simulate: makes a simulator of so many rows; one is kept for every number.
        observed, space: of one environment.
        tasks: draws the parameters (n, p) of n tasks.
        horizon: most steps in an episode.
        episodes: episodes in a trial.
        split: the split of the tasks.

    Raises InnerloopError for other spaces than boxes of observations, and boxes or
    numbers of actions.
    """

    def __init__(
        self,
        simulate: Callable[[int], Simulator],
        observed: Space,
        space: Space,
        tasks: Callable[[int, torch.Generator], Tensor],
        horizon: int,
        episodes: int = 1,
        split: str = "train",
    ):
        self.simulate, self.tasks, self.space = simulate, tasks, space
        self.simulators: dict[int, Simulator] = {}
        boxes, numbers = gymnasium.spaces.Box, gymnasium.spaces.Discrete
        if not isinstance(observed, boxes) or not isinstance(space, boxes | numbers):
            raise InnerloopError(
                "observations must be a Box, and actions a Box or Discrete; got "
                f"{observed} and {space}"
            )
        self.discrete = isinstance(space, numbers)
        actions = (
            int(space.n) if isinstance(space, numbers) else int(np.prod(space.shape))
        )
        super().__init__(tuple(observed.shape), actions, horizon, episodes, split)
        self.params: Tensor | None = None  # of the rollout that is going on
        self.clock = 0  # steps of its episodes so far
        self.observed: Array = np.zeros(0)
        self.over: Array = np.zeros(0, dtype=bool)

    def simulator(self, n: int) -> Simulator:
        """The simulator of n rows."""
        if n not in self.simulators:
            self.simulators[n] = self.simulate(n)
        return self.simulators[n]

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        return self.tasks(n, generator)

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        seeds = torch.randint(SEEDS, (len(params),), generator=rng).tolist()
        # a rollout passes the same tensor at all of its steps
        if params is not self.params or self.clock in (0, self.horizon):
            simulator = self.simulator(len(params))
            self.observed = simulator.begin(params.cpu().numpy(), seeds)
            self.params, self.clock = params, 0
            self.over = np.zeros(len(params), dtype=bool)
        return self._tensor(self.observed, params).flatten(1)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return state.unflatten(1, self.spec.x_shape)

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        reward = np.zeros(len(params))
        if not self.over.all():
            active = ~self.over
            observed, reward, ended = self.simulator(len(params)).step(
                self._taken(action.cpu().numpy()), active
            )
            shaped = active.reshape(-1, *[1] * (observed.ndim - 1))
            self.observed = np.where(shaped, observed, self.observed)
            reward = np.where(active, reward, 0.0)
            self.over = self.over | ended
        self.clock += 1
        done = self.over | (self.clock == self.horizon)
        return (
            self._tensor(self.observed, params).flatten(1),
            self._tensor(reward, params),
            torch.from_numpy(done).to(params.device),
        )

    def _taken(self, action: Array) -> Array:
        """Actions (n, actions) as the environments take them."""
        if isinstance(self.space, gymnasium.spaces.Discrete):
            return action.argmax(-1) + self.space.start
        assert isinstance(self.space, gymnasium.spaces.Box)
        low, high, shape = self.space.low, self.space.high, self.space.shape
        shaped = action.reshape(-1, *shape)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            scaled = low + (shaped.clip(-1, 1) + 1) / 2 * (high - low)
        taken = np.where(bounded, scaled, shaped.clip(low, high))
        return taken.astype(self.space.dtype)

    def close(self) -> None:
        """Close all simulators."""
        for simulator in self.simulators.values():
            simulator.close()
        self.simulators.clear()
        self.params = None

    @staticmethod
    def _tensor(values: Any, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(like.device)


class GoalReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards a runner for its velocity in the direction `task` (1 or -1), or for
    reaching the velocity `task`.
    """

    def __init__(self, env: Env, goal: Goal, task: float = 1.0):
        super().__init__(env)
        self.goal, self.task = goal, task

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observed, _, done, cut, info = self.env.step(action)
        velocity = float(info["x_velocity"])
        forward = self.goal == "direction"
        reward = self.task * velocity if forward else -abs(velocity - self.task)
        return observed, reward + float(info["reward_ctrl"]), done, cut, info


def runner(
    name: str, goal: Goal, horizon: int, episodes: int, split: str = "train"
) -> Gym:
    """A runner of gymnasium, by its name there; its tasks are to run forward or
    backward, or at a velocity between 0 and 2.
    """

    def make(params: Array, old: Env | None) -> Env:
        try:
            env = old or GoalReward(
                gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True),
                goal,
            )
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingPackageError(
                "the runners need MuJoCo: pip install 'innerloop[gym]'"
            ) from error
        assert isinstance(env, GoalReward)
        env.task = float(params[0])
        return env

    def tasks(n: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(n, 1, generator=generator)
        return 2 * drawn if goal == "velocity" else 1 - 2 * (drawn < 0.5).float()

    one = make(np.ones(1), None)
    environment = Gym(
        lambda n: Rows(make, n),
        one.observation_space,
        one.action_space,
        tasks,
        horizon,
        episodes,
        split,
    )
    environment.title = f"{name} with a {goal} as goal"
    return environment
