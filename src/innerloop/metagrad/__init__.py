"""Meta-gradients, and the outer loop."""

from innerloop.metagrad.backprop import Backprop, backprop
from innerloop.metagrad.base import Gradient, MetaGradient, Move, Update
from innerloop.metagrad.cma_es import CMAES
from innerloop.metagrad.distributed import distributed
from innerloop.metagrad.es import ES, es
from innerloop.metagrad.implicit import Implicit, implicit
from innerloop.metagrad.meta_train import calibrate, meta_train
from innerloop.metagrad.neat import NEATEvolution
from innerloop.metagrad.on_ray import on_ray
from innerloop.metagrad.reptile import Reptile, reptile

# by the name that commands use; those that act in environments are in innerloop.rl
META_GRADIENTS: dict[str, type[MetaGradient]] = {
    "backprop": Backprop,
    "reptile": Reptile,
    "implicit": Implicit,
    "es": ES,
    "cma-es": CMAES,
    "neat": NEATEvolution,
}

__all__ = [
    "CMAES",
    "ES",
    "META_GRADIENTS",
    "Backprop",
    "Gradient",
    "Implicit",
    "MetaGradient",
    "Move",
    "NEATEvolution",
    "Reptile",
    "Update",
    "backprop",
    "calibrate",
    "distributed",
    "es",
    "implicit",
    "meta_train",
    "on_ray",
    "reptile",
]
