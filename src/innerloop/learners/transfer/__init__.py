"""Learners that begin with features trained in the ordinary way, and baselines that do
not learn to learn.
"""

from innerloop.learners.transfer.finetune import FineTune
from innerloop.learners.transfer.meta_transfer import MetaTransfer
from innerloop.learners.transfer.scratch import Scratch

__all__ = ["FineTune", "MetaTransfer", "Scratch"]
