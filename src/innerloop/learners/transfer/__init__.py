"""Learners that begin with features trained by supervised learning, and baselines
without meta-learning.
"""

from innerloop.learners.transfer.finetune import FineTune
from innerloop.learners.transfer.meta_transfer import MetaTransfer
from innerloop.learners.transfer.pmf import PMF
from innerloop.learners.transfer.probe import Probe
from innerloop.learners.transfer.scratch import Scratch

__all__ = ["PMF", "FineTune", "MetaTransfer", "Probe", "Scratch"]
