"""Environments of gymnasium as tasks that are played, and what its runners can be asked
for.
"""

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
        "these environments are gymnasium's: pip install 'innerloop[gym]'"
    ) from error

Vector = SyncVectorEnv | AsyncVectorEnv
SEEDS = 2**31


class Gym(Environment):
    """Tasks of any vector environment of gymnasium whose sub-environments have an
    attribute `task`, which is set to the parameters of the task.

    make: gives a vector environment of so many sub-environments, each for one task,
    that does not reset itself (AutoresetMode.DISABLED); one is made and kept for every
    number. tasks: gives the parameters (n, p) of n tasks. horizon, episodes: the
    longest episode, and how many a trial has. Actions are discrete, or reals, clipped
    to the bounds of the action space. Where an episode stands is in the simulators, not
    in `where`, which is what was seen last: it is played once, step by step, and one
    play at a time. A row that is over begins anew at the next `start`; where no row is
    over, all do.
    Raises ValueError for spaces other than boxes of observations and boxes or numbers
    of actions.
    """

    def __init__(
        self,
        make: Callable[[int], Vector],
        tasks: Callable[[int, torch.Generator], Tensor],
        horizon: int,
        episodes: int = 1,
    ):
        self.make, self.tasks = make, tasks
        self.simulators: dict[int, Vector] = {}
        one = self.simulator(1)
        seen, done = one.single_observation_space, one.single_action_space
        if not isinstance(seen, gymnasium.spaces.Box) or not isinstance(
            done, gymnasium.spaces.Box | gymnasium.spaces.Discrete
        ):
            raise InnerloopError(
                f"observations must be a Box and actions a Box or Discrete, not {seen} and {done}"
            )
        self.space = done
        self.discrete = isinstance(done, gymnasium.spaces.Discrete)  # pyright: ignore[reportAttributeAccessIssue]
        actions = (
            int(done.n)
            if isinstance(done, gymnasium.spaces.Discrete)
            else int(np.prod(done.shape))
        )
        super().__init__(tuple(seen.shape), actions, horizon, episodes)
        self.since, self.over = np.zeros(0, dtype=int), np.zeros(0, dtype=bool)

    def simulator(self, n: int) -> Vector:
        """The vector environment of n rows. Raises ValueError for one that resets
        itself.
        """
        if n not in self.simulators:
            made = self.make(n)
            if made.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
                raise InnerloopError(
                    'the vector environment resets itself: make it with autoreset_mode="Disabled"'
                )
            self.simulators[n] = made
        return self.simulators[n]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.tasks(n, generator)

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        simulator, n = self.simulator(len(parameters)), len(parameters)
        ended = (
            self.over
            if len(self.over) == n and self.over.any()
            else np.ones(n, dtype=bool)
        )
        simulator.set_attr("task", list(parameters.cpu().numpy()))
        seeds = torch.randint(SEEDS, (n,), generator=generator).tolist()
        observed, _ = simulator.reset(seed=seeds, options={"reset_mask": ended})
        self.over = np.zeros(n, dtype=bool)
        self.since = (
            np.where(ended, 0, self.since)
            if len(self.since) == n
            else np.zeros(n, dtype=int)
        )
        return self._tensor(observed, parameters).flatten(1)

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return where.unflatten(1, self.spec.x_shape)

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.space, gymnasium.spaces.Box):
            given = (
                action.cpu()
                .numpy()
                .reshape(-1, *self.space.shape)
                .clip(self.space.low, self.space.high)
                .astype(self.space.dtype)
            )
        else:
            given = action.argmax(-1).cpu().numpy() + int(self.space.start)
        observed, reward, ended, cut, _ = self.simulator(len(parameters)).step(given)
        self.since = self.since + 1
        self.over = ended | cut | (self.since == self.horizon)
        over = torch.from_numpy(self.over).to(parameters.device)
        return (
            self._tensor(observed, parameters).flatten(1),
            self._tensor(reward, parameters),
            over,
        )

    def close(self) -> None:
        for simulator in self.simulators.values():
            simulator.close()
        self.simulators.clear()

    @staticmethod
    def _tensor(values: Any, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(like.device)


class Running(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A runner that is rewarded for what its task asks: for speed in a direction,
    task[0] = 1 or -1, or for going at the speed task[0].
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], asked: Literal["direction", "velocity"]
    ):
        super().__init__(env)
        self.asked, self.task = asked, np.ones(1)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, _, over, cut, info = self.env.step(action)
        speed, goal = float(info["x_velocity"]), float(self.task[0])
        earned = goal * speed if self.asked == "direction" else -abs(speed - goal)
        return seen, earned + float(info["reward_ctrl"]), over, cut, info


def running(
    name: str, asked: Literal["direction", "velocity"], horizon: int, episodes: int
) -> Gym:
    """A runner of gymnasium, by its name there, that is asked to go forward or
    backward, or at a speed between 0 and 2.
    """

    def one() -> gymnasium.Env[Any, Any]:
        try:
            return Running(
                gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True),
                asked,
            )
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingPackageError(
                "the runners run in MuJoCo: pip install 'innerloop[gym]'"
            ) from error

    def tasks(n: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(n, 1, generator=generator)
        return 2 * drawn if asked == "velocity" else 1 - 2 * (drawn < 0.5).float()

    return Gym(
        lambda n: SyncVectorEnv([one] * n, autoreset_mode=AutoresetMode.DISABLED),
        tasks,
        horizon,
        episodes,
    )
