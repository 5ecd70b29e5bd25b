"""Learners that can add classes to what they have learned."""

from __future__ import annotations

from abc import abstractmethod

from innerloop.core.learner import Learner, State
from innerloop.core.task import Examples


class ClassIncremental(Learner):
    """A learner that can extend its state by new examples alone, without those that it
    has learned from before.
    """

    @abstractmethod
    def extend(self, state: State | None, examples: Examples) -> State:
        """The state after more examples, x (n, *x_shape) and y (n, ways), some of which
        may be of new classes: y has a column for every class so far. None is the state
        before any example.
        """
