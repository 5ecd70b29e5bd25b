"""Learners that are meta-trained to learn classes one after the other without
forgetting.
"""

from innerloop.learners.class_incremental.oml import OML

__all__ = ["OML"]
