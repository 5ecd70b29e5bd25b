"""Learners that adapt by gradient steps from something meta-learned."""

from innerloop.learners.optimization.imaml import IMAML
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.optimization.meta_sgd import MetaSGD

__all__ = ["IMAML", "MAML", "MetaSGD"]
