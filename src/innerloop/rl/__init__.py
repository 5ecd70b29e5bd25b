"""Tasks that are played, and what learning by acting needs."""

from innerloop.rl.environment import Environment
from innerloop.rl.navigation import Navigation
from innerloop.rl.play import Played, examples_of, play
from innerloop.rl.policy import Policy

__all__ = ["Environment", "Navigation", "Played", "Policy", "examples_of", "play"]
