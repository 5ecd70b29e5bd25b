"""Learners that infer a program from input-output examples."""

from innerloop.learners.synthesis.deepcoder import DeepCoder
from innerloop.learners.synthesis.robustfill import RobustFill

__all__ = ["DeepCoder", "RobustFill"]
