"""Searching for settings: many trainings of one experiment on Ray Tune, compared on the
validation classes.
"""

from innerloop.sweep.plan import SweepPlan
from innerloop.sweep.space import Axis, applied
from innerloop.sweep.tuning import Trial, sweep

__all__ = ["Axis", "SweepPlan", "Trial", "applied", "sweep"]
