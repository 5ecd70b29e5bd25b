"""Learners that infer a program from input-output examples."""

from innerloop.learners.synthesis.deepcoder import DeepCoder
from innerloop.learners.synthesis.robustfill import RobustFill
from innerloop.learners.synthesis.rule_synthesis import RuleSynthesis

__all__ = ["DeepCoder", "RobustFill", "RuleSynthesis"]
