"""Tasks from any environment of gymnasium."""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.engine.user_file import absolute, is_in_file
from innerloop.rl.family import CHECKED_STEPS, Family
from innerloop.rl.gym import Array, Gym, Rows, Simulator, VectorEnv
from innerloop.rl.parameters import Parameter

VALIDATION_TASKS = 40  # where every row has a simulator of its own, which is slow


class Together(Simulator):
    """All rows at once, by the vector class of an environment, whose parameters are
    arrays. The first observations of all rows are drawn from one seed.
    """

    def __init__(self, family: Family, horizon: int):
        self.family, self.horizon = family, horizon
        self.params = np.zeros((0, 0))
        self.made: VectorEnv | None = None

    def begin(self, params: Array, seeds: list[int]) -> Array:
        if self.made is None or not np.array_equal(params, self.params):
            self.close()
            self.made = self.family.made_together(
                self.family.vector,
                len(params),
                self.family.columns(params),
                self.horizon,
            )
            self.params = params
        return self.made.reset(seed=seeds[0])[0]

    def step(self, action: Array, active: Array) -> tuple[Array, Array, Array]:
        assert self.made is not None  # see begin
        observed, reward, done, cut, _ = self.made.step(action)
        return observed, reward, done | cut

    def close(self) -> None:
        if self.made is not None:
            self.made.close()


class Parametrized(Gym):
    """Tasks of a family."""

    def __init__(
        self, family: Family, horizon: int, episodes: int = 1, split: str = "train"
    ):
        self.family = family
        super().__init__(
            self._simulator,
            family.observed,
            family.space,
            family.sample,
            horizon,
            episodes,
            split,
        )
        self.title = f"{family.name} with {' '.join(map(str, family.parameters))}"
        if family.unnoticed:
            self.note = (
                f"{' and '.join(family.unnoticed)} made no difference to "
                f"{CHECKED_STEPS} steps with random actions"
            )
        if family.vector is None:
            self.validation_size = VALIDATION_TASKS  # pyright: ignore[reportAttributeAccessIssue]

    def _simulator(self, n: int) -> Simulator:
        if self.family.vector is not None:
            return Together(self.family, self.horizon)
        return Rows(self.family.make, n)

    def words(self, params: Tensor) -> str:
        return self.family.words(params.cpu().numpy())


def parametrized(
    env: str, vary: str, horizon: int | None, episodes: int, split: str
) -> Parametrized:
    """Tasks of an environment of gymnasium, see `innerloop.rl.gym_tasks.gym_tasks`.

    Raises InnerloopError where the number of steps of an episode is not known.
    """
    family = _family(absolute(env) if is_in_file(env) else env, vary)
    most = horizon or family.spec.max_episode_steps
    if most is None:
        raise InnerloopError(
            f"{env} does not say how many steps an episode has at most: set horizon"
        )
    return Parametrized(family, most, episodes, split)


@cache
def _family(env: str, vary: str) -> Family:
    return Family(env, [Parameter.parse(word) for word in vary.split()])
