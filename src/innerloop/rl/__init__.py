"""Tasks that are played, and what learning by acting needs."""

from innerloop.rl.environment import Environment
from innerloop.rl.navigation import Navigation
from innerloop.rl.play import Played, examples_of, play
from innerloop.rl.policy import Policy
from innerloop.rl.policy_gradient import MetaPolicyGradient, PolicyGradient, play_and_learn

__all__ = ["Environment", "MetaPolicyGradient", "Navigation", "Played", "Policy", "PolicyGradient", "examples_of", "play", "play_and_learn"]
