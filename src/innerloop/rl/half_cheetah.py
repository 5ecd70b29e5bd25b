"""The half-cheetah of MuJoCo, which runs as it is asked."""

from __future__ import annotations

from typing import Literal

from innerloop.engine.errors import InnerloopError
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import check_split


def half_cheetah(
    split: str = "train",
    *,
    asked: Literal["direction", "velocity"] = "direction",
    horizon: int = 200,
    episodes: int = 20,
) -> Environment:
    """A simulated half-cheetah that finds out whether to run forward or backward, or
    how fast, Finn et al. 2017, arXiv:1703.03400.

    Section 5.3 there; HalfCheetah-v5 of gymnasium. The reward of a step is the speed in
    the direction that is asked for, or minus the distance from the speed, drawn from 0
    to 2; less 0.1 times the squared action. There are two directions, so every split has
    the same.
    Raises ImportError where gymnasium or MuJoCo is not installed.
    """
    check_split(split)
    if asked not in ("direction", "velocity"):
        raise InnerloopError(
            f'the cheetah is asked for "direction" or "velocity", not {asked!r}'
        )
    from innerloop.rl.gym import running

    return running("HalfCheetah-v5", asked, horizon, episodes)
