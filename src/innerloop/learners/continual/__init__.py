"""Learners that are trained to go on learning without forgetting."""

from innerloop.learners.continual.oml import OML

__all__ = ["OML"]
