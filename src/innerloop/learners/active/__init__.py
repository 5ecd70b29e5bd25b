"""Active learners: they choose which examples are labeled."""

from innerloop.learners.active.active_learner import ActiveLearner

__all__ = ["ActiveLearner"]
