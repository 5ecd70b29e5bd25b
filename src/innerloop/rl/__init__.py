"""Tasks that are played, and what learning by acting needs."""

from collections.abc import Callable

from innerloop.rl.actor_critic import A2C, PPO, generalised_advantages
from innerloop.rl.bandits import Bandits, bandits
from innerloop.rl.environment import Environment
from innerloop.rl.mazes import Mazes, mazes
from innerloop.rl.mdps import MDPs, mdps
from innerloop.rl.oracles import oracles
from innerloop.rl.play import Played, examples_of, play
from innerloop.rl.policy import Policy
from innerloop.rl.trial import play_test

PLAYED: dict[str, Callable[..., Environment]] = {"bandits": bandits, "mdps": mdps, "mazes": mazes}  # as TASKS, of tasks that are played
ACTING: dict[str, type[A2C]] = {"ppo": PPO, "a2c": A2C}  # meta-gradients that play, by name; each takes the environment and a generator
POLICIES: dict[str, type[Policy]] = {"Policy": Policy}  # what outputs may mean, by the name that a run's settings tell

__all__ = [
    "A2C", "ACTING", "PLAYED", "POLICIES", "PPO", "Bandits", "Environment", "MDPs", "Mazes", "Played", "Policy", "bandits", "examples_of",
    "generalised_advantages", "mazes", "mdps", "oracles", "play", "play_test",
]  # fmt: skip
