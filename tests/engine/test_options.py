"""Typed options and the ranges of numbers."""

from __future__ import annotations

import math

import pytest

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Option, Range


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Range(1), [1, 10**6], [0, -1, math.inf, math.nan]),
        (Range(0, open_low=True), [1e-9, 5.0], [0.0, -1.0, math.nan, -math.inf]),
        (Range(0, 1), [0, 0.5, 1], [-0.1, 1.1, math.nan]),
        (Range(0, 1, open_high=True), [0, 0.99], [1, 1.5]),
        (Range(), [-1e30, 0, 1e30], [math.inf, -math.inf, math.nan]),
    ],
)
def test_a_range_holds_what_lies_in_it(
    range_: Range, inside: list[float], outside: list[float]
) -> None:
    assert all(range_.holds(value) for value in inside)
    assert not any(range_.holds(value) for value in outside)
    option = Option("rate", float, 1.0, range=range_)
    for value in outside:
        with pytest.raises(InnerloopError, match=r"rate must be .*; got"):
            option.check(value)


def test_integers_that_torch_cannot_hold_are_refused() -> None:
    option = Option("layers", int, 1, range=Range(1))
    assert option.check(2**63 - 1) == 2**63 - 1
    with pytest.raises(InnerloopError, match=r"layers must be less than 2\^63"):
        option.check(2**63)
