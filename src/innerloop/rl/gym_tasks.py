"""Any environment of gymnasium, with parameters that differ between tasks."""

from __future__ import annotations

from innerloop.engine.options import Count, Words
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import task_source


@task_source
def gym_tasks(
    split: str = "train",
    *,
    env: str,
    vary: Words,
    horizon: Count | None = None,
    episodes: Count = 3,
) -> Environment:
    """Gymnasium: any environment whose parameters differ between tasks.

    Reference: Packer, Gao, Kos, Krähenbühl, Koltun and Song 2018, "Assessing
    generalization in deep reinforcement learning", arXiv:1810.12282; the interface:
    Towers et al. 2024, "Gymnasium: a standard interface for reinforcement learning
    environments", arXiv:2407.17032.

    A parameter is a keyword of the environment's constructor, a key of the dictionary
    `config` that the constructor takes, or an attribute of the environment. The agent
    does not observe it. All splits draw from the same ranges, from different seeds;
    test with other ranges for tasks beyond those of training. Reward is that of the
    environment; after the end of an episode it is 0 until its last step.

    Needs gymnasium: pip install 'innerloop[gym]'; for driving (highway-env) pip install
    'innerloop[driving]'.

    Args:
        env: the environment: NAME of gymnasium (CartPole-v1), MODULE:NAME of a package
            that registers it, or FILE.py:CLASS of your own.
        vary: a parameter and its values: NAME=LOW:HIGH (uniform) or NAME=A,B,C (one of
            them; a single one is a constant).
        horizon: most steps in an episode (default: that of the environment).
        episodes: episodes before an update, and in a trial.
    """
    from innerloop.rl.parametrized import parametrized

    return parametrized(env, vary, horizon, episodes, split)
