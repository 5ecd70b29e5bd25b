"""Learners that can go on learning."""

from __future__ import annotations

from abc import abstractmethod

from innerloop.core.learner import Learner, State
from innerloop.core.task import Examples


class ClassIncremental(Learner):
    """A learner that can go on learning, from new examples alone: what it learned
    before is in its state, and is not shown again.
    """

    @abstractmethod
    def further(self, state: State | None, examples: Examples) -> State:
        """The state after more examples, x (n, *x_shape) and y (n, ways), of which some
        may be of classes that are new: y has a column for every class so far. State
        None: nothing was learned yet.
        """
