"""JSON schemas, checked quickly: a drawing holds hundreds of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

Test = Callable[[Any], bool]

_NUMBER = {"type", "minimum", "maximum"}
_ARRAY = {"type", "items", "minItems", "maxItems"}


def quick_test(schema: Any) -> Test | None:
    """A function that is true only for values that fit a schema of bounded numbers, or
    of arrays of these; None for any other schema.
    """
    if not isinstance(schema, dict):
        return None
    if schema.get("type") == "number" and schema.keys() == _NUMBER:
        return _bounded(schema["minimum"], schema["maximum"])
    if schema.get("type") != "array" or not schema.keys() <= _ARRAY:
        return None
    inner = quick_test(schema.get("items"))
    if inner is None:
        return None
    return _array(inner, schema.get("minItems", 0), schema.get("maxItems"))


def _bounded(low: float, high: float) -> Test:
    def fits(value: Any) -> bool:
        # a Boolean is an int in Python, not a number in JSON
        return (type(value) is float or type(value) is int) and low <= value <= high

    return fits


def _array(inner: Test, least: int, most: int | None) -> Test:
    def fits(value: Any) -> bool:
        if type(value) is not list or len(value) < least:
            return False
        return (most is None or len(value) <= most) and all(map(inner, value))

    return fits


_slow_items = Draft202012Validator.VALIDATORS["items"]
_tests: dict[int, tuple[Any, Test | None]] = {}  # of schemas by their identity


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """The keyword `items`; only arrays with a fault are looked at one by one."""
    known = _tests.get(id(items))
    if known is None or known[0] is not items:
        known = _tests[id(items)] = items, quick_test(items)
    test = known[1]
    if test is not None and isinstance(instance, list) and all(map(test, instance)):
        return
    yield from _slow_items(validator, items, instance, schema) or ()


Validator: Any = extend(Draft202012Validator, {"items": _items})
