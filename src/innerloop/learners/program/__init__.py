"""Learners that write a task's network or program, or compose it from parts."""

from innerloop.learners.program.cnaps import CNAPs
from innerloop.learners.program.deepcoder import DeepCoder
from innerloop.learners.program.modular import Modular
from innerloop.learners.program.robustfill import RobustFill
from innerloop.learners.program.versa import Versa

__all__ = ["CNAPs", "DeepCoder", "Modular", "RobustFill", "Versa"]
