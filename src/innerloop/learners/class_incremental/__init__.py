"""Learners that are trained to go on learning without forgetting."""

from innerloop.learners.class_incremental.oml import OML

__all__ = ["OML"]
