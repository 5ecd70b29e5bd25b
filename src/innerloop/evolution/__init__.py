"""Learning by evolving: outer loops that move a population by the losses of its
members.
"""

from innerloop.evolution.cma import CMAES
from innerloop.evolution.neat import AugmentingTopologies
from innerloop.evolution.strategy import Strategy, evolve

STRATEGIES: dict[str, type[CMAES] | type[AugmentingTopologies]] = {
    "cma-es": CMAES,
    "neat": AugmentingTopologies,
}

__all__ = ["CMAES", "STRATEGIES", "AugmentingTopologies", "Strategy", "evolve"]
