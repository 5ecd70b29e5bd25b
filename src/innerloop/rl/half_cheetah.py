"""The half-cheetah of MuJoCo."""

from __future__ import annotations

from typing import Literal

from innerloop.engine.options import Count
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import task_source


@task_source
def half_cheetah(
    split: str = "train",
    *,
    goal: Literal["direction", "velocity"] = "direction",
    horizon: Count = 200,
    episodes: Count = 20,
) -> Environment:
    """Half-cheetah: a simulated robot learns which way, or how fast, to run.

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, section 5.3.

    HalfCheetah-v5 of gymnasium. For "direction", the reward of a step is the velocity
    forward or backward; for "velocity", it is the negative distance to a target
    velocity, uniform in 0..2. The cost of control, 0.1 times the squared action, is
    subtracted. There are two directions, so that all splits share them.

    Needs gymnasium and MuJoCo: pip install 'innerloop[gym]'.

    Args:
        goal: what a task asks for, a direction or a velocity.
        horizon: steps in an episode.
        episodes: episodes before an update, and in a trial.
    """
    from innerloop.rl.gym import runner

    return runner("HalfCheetah-v5", goal, horizon, episodes, split)
