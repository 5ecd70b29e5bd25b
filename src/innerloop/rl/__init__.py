"""Tasks that are played, and what learning by acting needs."""

from collections.abc import Callable

from innerloop.rl.actor_critic import A2C, PPO, generalised_advantages
from innerloop.rl.bandits import Bandits, bandits
from innerloop.rl.baselines import oracles
from innerloop.rl.environment import Environment
from innerloop.rl.evaluation import play_test
from innerloop.rl.half_cheetah import half_cheetah
from innerloop.rl.mazes import Mazes, mazes
from innerloop.rl.mdps import MDPs, mdps
from innerloop.rl.navigation import Navigation, navigation
from innerloop.rl.policy import Policy
from innerloop.rl.policy_gradient import (
    MetaPolicyGradient,
    PolicyGradient,
    play_and_learn,
)
from innerloop.rl.rollout import Played, examples_of, play

PLAYED: dict[str, Callable[..., Environment]] = {
    "bandits": bandits,
    "mdps": mdps,
    "mazes": mazes,
    "navigation": navigation,
    "half-cheetah": half_cheetah,
}  # as TASKS, of tasks that are played
# meta-gradients that play
ACTING: dict[str, type[A2C] | type[MetaPolicyGradient]] = {
    "ppo": PPO,
    "a2c": A2C,
    "policy-gradient": MetaPolicyGradient,
}
# what outputs may mean, by the name in a run's settings
POLICIES: dict[str, type[Policy]] = {"Policy": Policy, "PolicyGradient": PolicyGradient}

__all__ = [
    "A2C",
    "ACTING",
    "PLAYED",
    "POLICIES",
    "PPO",
    "Bandits",
    "Environment",
    "MDPs",
    "Mazes",
    "MetaPolicyGradient",
    "Navigation",
    "Played",
    "Policy",
    "PolicyGradient",
    "bandits",
    "examples_of",
    "generalised_advantages",
    "half_cheetah",
    "mazes",
    "mdps",
    "navigation",
    "oracles",
    "play",
    "play_and_learn",
    "play_test",
]
