"""Advice: which classifier to use for a user's own classes."""

from innerloop.advice.advisor import Advisor, Plan, Step, advise
from innerloop.advice.answer import Advice
from innerloop.advice.data import LabeledData, read_labeled

__all__ = [
    "Advice",
    "Advisor",
    "LabeledData",
    "Plan",
    "Step",
    "advise",
    "read_labeled",
]
