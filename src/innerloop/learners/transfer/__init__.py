"""Baselines that do not learn to learn."""

from innerloop.learners.transfer.finetune import FineTune
from innerloop.learners.transfer.scratch import Scratch

__all__ = ["FineTune", "Scratch"]
