"""Typed options of registered classes and functions, with their ranges.

The options of a class are its dataclass fields, those of a function its keyword-only
parameters. Flags, web forms, help texts, JSON and range checks are all derived from
them. The description of an option stands in the docstring, in a section `Args:`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, InnerloopTypeError


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, with or without the ends."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below and math.isfinite(value))

    def __str__(self) -> str:
        low = f"{'greater than' if self.open_low else 'at least'} {self.low:g}"
        high = f"{'less than' if self.open_high else 'at most'} {self.high:g}"
        if self.low == -math.inf:
            return "a finite number" if self.high == math.inf else high
        return low if self.high == math.inf else f"{low} and {high}"


# Ranges for annotations: `sigma: Positive = 0.05`
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Real = Annotated[float, Range()]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Integer = Annotated[int, Range()]
Seed = Annotated[int, Range(0, 2**32 - 1)]


class Repeated:
    """For annotations: a text of words, whose flag can be repeated, a word each."""


Words = Annotated[str, Repeated()]
_DEFAULT_RANGES = {int: Range(1), float: Range(0)}  # of numbers without a range


@dataclass(frozen=True)
class Option:
    """One option: its plain type (int, float, bool, str, or another), whether None is
    allowed, the choices of a Literal, the range of a number, its default (MISSING where
    there is none), its description, whether it is the path of a file or folder, and
    whether its flag can be repeated, which joins the texts by spaces.
    """

    name: str
    type: Any
    default: Any = MISSING
    optional: bool = False
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    help: str = ""
    is_path: bool = False
    repeated: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_plain(self) -> bool:
        """Whether it can be passed as one word on a command line."""
        return self.type in (int, float, bool, str)

    def words(self, flag: str, value: Any) -> list[str]:
        """The option as words of a command line."""
        if self.type is bool:
            return [flag if value else "--no-" + flag.removeprefix("--")]
        text = repr(value) if self.type is float else str(value)
        return [f"{flag}={text}"] if text[:1] == "-" else [flag, text]

    def parse(self, word: str) -> Any:
        """A word of a command line as a value; yes and no for True and False.

        Raises InnerloopError for a word that is no value of the option.
        """
        switches = {"yes": True, "no": False}
        try:
            value = switches[word] if self.type is bool else self.type(word)
        except (KeyError, ValueError) as error:
            kind = "yes or no" if self.type is bool else _ARTICLES[self.type]
            raise InnerloopError(f"{self.name} must be {kind}; got {word!r}") from error
        return self.check(value)

    def check(self, value: Any, owner: str = "") -> Any:
        """The value, converted from int to float where that is lossless.

        Raises InnerloopError for a value that is out of range or of another type.
        """
        of = f" of {owner}" if owner else ""
        if value is None and (self.optional or self.default is None):
            return value
        if not self.is_plain:
            return value
        if self.choices:
            if value not in self.choices:
                guess = did_you_mean(str(value), map(str, self.choices), "")
                shown = ", ".join(map(str, self.choices))
                raise InnerloopError(
                    f"{self.name}{of} must be one of {shown}; got {value!r}{guess}"
                )
            return value
        if self.is_path and isinstance(value, Path):
            value = str(value)
        if self.type is float and isinstance(value, int) and value is not True:
            value = float(value)
        right = isinstance(value, self.type) and not (
            self.type is int and isinstance(value, bool)
        )
        if not right:
            raise InnerloopTypeError(
                f"{self.name}{of} must be {_ARTICLES[self.type]}; got {value!r}"
            )
        number: Any = value
        if self.type is int and abs(number) >= 2**63:  # torch has no larger integers
            raise InnerloopError(f"{self.name}{of} must be less than 2^63; got {value}")
        if self.range is not None and not self.range.holds(number):
            raise InnerloopError(f"{self.name}{of} must be {self.range}; got {value!r}")
        return value


_ARTICLES = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}


def _option(name: str, hint: Any, default: Any, text: str) -> Option:
    bounds: Range | None = None
    choices: tuple[Any, ...] = ()
    optional = is_path = repeated = False
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            hint, *extra = get_args(hint)
            bounds = next((e for e in extra if isinstance(e, Range)), bounds)
            repeated = any(isinstance(e, Repeated) for e in extra)
            continue
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        optional = optional or len(kinds) < len(get_args(hint))
        is_path = Path in kinds
        if len(kinds) > 1:  # such as a path or a text
            hint = str if str in kinds else tuple(kinds)
            break
        hint = kinds[0]
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    bounds = bounds or (_DEFAULT_RANGES.get(hint) if not choices else None)
    return Option(
        name, hint, default, optional, choices, bounds, text, is_path, repeated
    )


@cache
def options(thing: Callable[..., Any]) -> dict[str, Option]:
    """The options of a dataclass or of a function, by name, in order. A class inherits
    the descriptions of its base classes.
    """
    hints = get_type_hints(thing, include_extras=True)
    texts: dict[str, str] = {}
    for kind in reversed(getattr(thing, "__mro__", (thing,))):  # base classes first
        texts |= descriptions(inspect.cleandoc(kind.__doc__ or ""))
    if is_dataclass(thing):
        return {
            entry.name: _option(
                entry.name,
                hints[entry.name],
                entry.default,
                texts.get(entry.name, ""),
            )
            for entry in fields(thing)
            if entry.init
        }
    return {
        name: _option(
            name,
            hints.get(name, Any),
            MISSING if p.default is p.empty else p.default,
            texts.get(name, ""),
        )
        for name, p in inspect.signature(thing).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def flag_names(
    options: Mapping[str, Option], taken: set[str], prefix: str
) -> dict[str, str]:
    """The flag of every option, by its name; one that is taken is preceded by `prefix`.
    They are added to `taken`.
    """
    found = {}
    for name, option in options.items():
        flag = option.flag
        if flag in taken:
            flag = f"--{prefix}-{flag.removeprefix('--')}"
        taken |= {flag, "--no-" + flag.removeprefix("--")}
        found[name] = flag
    return found


def check_options(instance: Any) -> None:
    """Raises InnerloopError where a field of a dataclass instance is out of range."""
    for name, option in options(type(instance)).items():
        option.check(getattr(instance, name), type(instance).__name__)


def checked(
    thing: Callable[..., Any], values: Mapping[str, Any], owner: str
) -> dict[str, Any]:
    """`values` as options of `thing`.

    Raises InnerloopError for an option that it does not have, or a bad value.
    """
    known = options(thing)
    for name in values:
        if name not in known:
            raise InnerloopTypeError(
                f"{owner} has no option {name!r}{did_you_mean(name, list(known))}"
            )
    return {name: known[name].check(value, owner) for name, value in values.items()}


_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")


def descriptions(docstring: str) -> dict[str, str]:
    """The entries of the section `Args:` of a docstring, by name; a line
    `a, b: text` describes both.
    """
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if line == "Args:":
            inside = True
        elif inside and line and not line.startswith(" "):
            break
        elif inside and (entry := _ENTRY.match(line)):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2].strip())
        elif inside and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
