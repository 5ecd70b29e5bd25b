"""Schemas of numbers are checked quickly, and as the slow validator does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from innerloop.web.http import NUMBER, SHARE, array, record, text
from innerloop.web.validation import Validator, quick_test

POINT = array(SHARE, 2, 2)
SCHEMAS = [
    array(NUMBER),
    array(array(POINT, 3, 1), 2, 1),
    record(strokes=array(array(POINT, 3, 1), 2, 1)),
    array({"anyOf": [array(NUMBER, 2), text(2)]}),
    array({"type": "integer", "minimum": 0}),
]
numbers = st.sampled_from([0, 1, 0.5, -1, 2, 1e10, True, None, "x", {}])
points = st.lists(numbers, min_size=1, max_size=3)
values = st.recursive(
    numbers | points, lambda inner: st.lists(inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize("schema", SCHEMAS)
@given(value=values)
@example(value=[[[0, 0.5], [1, 1]]])
@example(value=[[[0, True], [1, 1]]])
@example(value=[float("nan")])
def test_the_same_values_fit(schema: Any, value: Any) -> None:
    for whole in (value, {"strokes": value}):
        quick = [e.message for e in Validator(schema).iter_errors(whole)]
        slow = [e.message for e in Draft202012Validator(schema).iter_errors(whole)]
        if json.dumps(whole).find("NaN") < 0:
            assert quick == slow


def test_only_schemas_of_numbers_are_quick() -> None:
    assert quick_test(POINT) is not None
    assert quick_test(array(POINT)) is not None
    for schema in (
        text(5),
        array(text(5)),
        record(x=NUMBER),
        {"type": "number"},
        {**SHARE, "multipleOf": 0.5},
        {**POINT, "uniqueItems": True},
        {"type": "array"},
        True,
        None,
    ):
        assert quick_test(schema) is None


def test_a_fault_is_named_by_its_place() -> None:
    value = [[[0.5, 0.5]], [[0.5, 7.5]]]
    (error,) = Validator(array(array(POINT))).iter_errors(value)
    assert list(error.absolute_path) == [1, 0, 1]
    assert "7.5" in error.message
