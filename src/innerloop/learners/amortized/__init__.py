"""Learners whose networks compute a task's classifier or network in one pass."""

from innerloop.learners.amortized.cnaps import CNAPs
from innerloop.learners.amortized.modular import Modular
from innerloop.learners.amortized.versa import Versa

__all__ = ["CNAPs", "Modular", "Versa"]
