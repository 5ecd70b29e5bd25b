"""Environments of gymnasium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.rl.environment import Environment

try:
    import gymnasium
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
except ImportError as error:
    raise MissingPackageError(
        "this environment needs gymnasium: pip install 'innerloop[gym]'"
    ) from error

Vector = SyncVectorEnv | AsyncVectorEnv
Goal = Literal["direction", "velocity"]
SEEDS = 2**31


class Gym(Environment):
    """Tasks of a vector environment of gymnasium whose sub-environments have an
    attribute `task`, which is set to the parameters of a task.

    Actions are discrete, or reals that are clipped to the bounds of the action space.
    The state of an episode is in the simulators, and `state` is the last observation,
    so that an environment serves one rollout at a time. `start` resets the rows whose
    episode is done, or all rows where none is.

    Args:
        make: makes a vector environment with so many sub-environments that does not
            reset itself (AutoresetMode.DISABLED); one is kept for every number.
        tasks: draws the parameters (n, p) of n tasks.
        horizon: most steps in an episode.
        episodes: episodes in a trial.
        split: the split of the tasks.

    Raises InnerloopError for other spaces than boxes of observations, and boxes or
    numbers of actions.
    """

    def __init__(
        self,
        make: Callable[[int], Vector],
        tasks: Callable[[int, torch.Generator], Tensor],
        horizon: int,
        episodes: int = 1,
        split: str = "train",
    ):
        self.make, self.tasks = make, tasks
        self.simulators: dict[int, Vector] = {}
        one = self.simulator(1)
        observed, space = one.single_observation_space, one.single_action_space
        if not isinstance(observed, gymnasium.spaces.Box) or not isinstance(
            space, gymnasium.spaces.Box | gymnasium.spaces.Discrete
        ):
            raise InnerloopError(
                "observations must be a Box, and actions a Box or Discrete; got "
                f"{observed} and {space}"
            )
        self.space = space
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        actions = (
            int(space.n)
            if isinstance(space, gymnasium.spaces.Discrete)
            else int(np.prod(space.shape))
        )
        super().__init__(tuple(observed.shape), actions, horizon, episodes, split)
        self.clock, self.done = np.zeros(0, dtype=int), np.zeros(0, dtype=bool)

    def simulator(self, n: int) -> Vector:
        """The vector environment of n rows. Raises InnerloopError for one that resets
        itself.
        """
        if n not in self.simulators:
            made = self.make(n)
            if made.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
                raise InnerloopError(
                    "the vector environment must not reset itself: make it with "
                    "autoreset_mode=AutoresetMode.DISABLED"
                )
            self.simulators[n] = made
        return self.simulators[n]

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        return self.tasks(n, generator)

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        simulator, n = self.simulator(len(params)), len(params)
        some = len(self.done) == n and bool(self.done.any())
        reset = self.done if some else np.ones(n, dtype=bool)
        simulator.set_attr("task", list(params.cpu().numpy()))
        seeds = torch.randint(SEEDS, (n,), generator=rng).tolist()
        observed, _ = simulator.reset(seed=seeds, options={"reset_mask": reset})
        self.clock = np.where(reset, 0, self.clock if some else 0)
        self.done = np.zeros(n, dtype=bool)
        return self._tensor(observed, params).flatten(1)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return state.unflatten(1, self.spec.x_shape)

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.space, gymnasium.spaces.Box):
            shaped = action.cpu().numpy().reshape(-1, *self.space.shape)
            clipped = shaped.clip(self.space.low, self.space.high)
            taken = clipped.astype(self.space.dtype)
        else:
            taken = action.argmax(-1).cpu().numpy() + int(self.space.start)
        observed, reward, ended, cut, _ = self.simulator(len(params)).step(taken)
        self.clock = self.clock + 1
        self.done = ended | cut | (self.clock == self.horizon)
        return (
            self._tensor(observed, params).flatten(1),
            self._tensor(reward, params),
            torch.from_numpy(self.done).to(params.device),
        )

    def close(self) -> None:
        """Close all simulators."""
        for simulator in self.simulators.values():
            simulator.close()
        self.simulators.clear()

    @staticmethod
    def _tensor(values: Any, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(like.device)


class GoalReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards a runner for its velocity in the direction task[0] (1 or -1), or for
    reaching the velocity task[0].
    """

    def __init__(self, env: gymnasium.Env[Any, Any], goal: Goal):
        super().__init__(env)
        self.goal, self.task = goal, np.ones(1)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observed, _, done, cut, info = self.env.step(action)
        velocity, target = float(info["x_velocity"]), float(self.task[0])
        forward = self.goal == "direction"
        reward = target * velocity if forward else -abs(velocity - target)
        return observed, reward + float(info["reward_ctrl"]), done, cut, info


def runner(
    name: str, goal: Goal, horizon: int, episodes: int, split: str = "train"
) -> Gym:
    """A runner of gymnasium, by its name there; its tasks are to run forward or
    backward, or at a velocity between 0 and 2.
    """

    def one() -> gymnasium.Env[Any, Any]:
        try:
            env = gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True)
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingPackageError(
                "the runners need MuJoCo: pip install 'innerloop[gym]'"
            ) from error
        return GoalReward(env, goal)

    def tasks(n: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(n, 1, generator=generator)
        return 2 * drawn if goal == "velocity" else 1 - 2 * (drawn < 0.5).float()

    def make(n: int) -> Vector:
        return SyncVectorEnv([one] * n, autoreset_mode=AutoresetMode.DISABLED)

    environment = Gym(make, tasks, horizon, episodes, split)
    environment.title = f"{name} with a {goal} as goal"
    return environment
