"""Learners that are told no label that they have not asked for."""

from innerloop.learners.active.active_learner import ActiveLearner

__all__ = ["ActiveLearner"]
