"""Learners that are told no label that they have not asked for."""

from innerloop.learners.active.asking import Asking

__all__ = ["Asking"]
