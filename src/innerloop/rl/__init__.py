"""Environments, and what learning by acting in them needs."""

from collections.abc import Callable

from innerloop.core.likelihood import Likelihood
from innerloop.metagrad.base import MetaGradient
from innerloop.rl.actor_critic import A2C, PPO
from innerloop.rl.advantages import generalized_advantages
from innerloop.rl.bandits import Bandits, bandits
from innerloop.rl.environment import Environment
from innerloop.rl.evaluation import baseline_rewards, evaluate
from innerloop.rl.gym_tasks import gym_tasks
from innerloop.rl.half_cheetah import half_cheetah
from innerloop.rl.mazes import Mazes, mazes
from innerloop.rl.mdps import MDPs, mdps
from innerloop.rl.navigation import Navigation, navigation
from innerloop.rl.policy import Policy, PolicyGradient
from innerloop.rl.policy_gradient import MetaPolicyGradient, adapt_by_acting
from innerloop.rl.rollout import Rollout, rollout

# by the name that commands use
ENVIRONMENTS: dict[str, Callable[..., Environment]] = {
    "bandits": bandits,
    "mdps": mdps,
    "mazes": mazes,
    "navigation": navigation,
    "half-cheetah": half_cheetah,
    "gym": gym_tasks,
}
META_GRADIENTS: dict[str, type[MetaGradient]] = {
    "ppo": PPO,
    "a2c": A2C,
    "policy-gradient": MetaPolicyGradient,
}
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "policy": Policy,
    "policy-gradient": PolicyGradient,
}

__all__ = [
    "A2C",
    "ENVIRONMENTS",
    "LIKELIHOODS",
    "META_GRADIENTS",
    "PPO",
    "Bandits",
    "Environment",
    "MDPs",
    "Mazes",
    "MetaPolicyGradient",
    "Navigation",
    "Policy",
    "PolicyGradient",
    "Rollout",
    "adapt_by_acting",
    "bandits",
    "baseline_rewards",
    "evaluate",
    "generalized_advantages",
    "gym_tasks",
    "half_cheetah",
    "mazes",
    "mdps",
    "navigation",
    "rollout",
]
