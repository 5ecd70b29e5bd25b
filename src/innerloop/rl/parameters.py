"""Parameters of environments that differ between tasks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError

PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Parameter:
    """A parameter of an environment that differs between tasks.

    Args:
        name: as the environment calls it.
        values: the ends of a range, or the choices.
        is_range: whether it is drawn uniformly between two ends.
        whole: whether what is drawn from a range is an integer, ends included.
    """

    name: str
    values: tuple[Any, ...]
    is_range: bool = False
    whole: bool = False

    @classmethod
    def parse(cls, word: str) -> Parameter:
        """From NAME=LOW:HIGH, or NAME=A,B,C.

        Raises InnerloopError for anything else.
        """
        name, equals, text = word.partition("=")
        is_range = ":" in text
        values = tuple(map(_plain, text.split(":" if is_range else ",")))
        right = name.isidentifier() and equals and "" not in values
        if right and is_range:
            right = len(values) == 2 and all(map(_is_number, values))
            right = right and values[0] < values[1]
        if not right:
            raise InnerloopError(
                "vary must be NAME=LOW:HIGH with LOW less than HIGH, or NAME=A,B,C; "
                f"got {word!r}"
            )
        return cls(name, values, is_range)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """The numbers (n,) of n tasks: a value of the range, or the index of a
        choice.
        """
        if not self.is_range:
            return torch.randint(len(self.values), (n,), generator=generator).float()
        low, high = self.values
        drawn = torch.rand(n, generator=generator)
        if self.whole:
            return low + (drawn * (high - low + 1)).floor().clamp(max=high - low)
        return low + (high - low) * drawn

    def value(self, number: float) -> Any:
        """What the environment is given for a number from `sample`."""
        if not self.is_range:
            return self.values[round(number)]
        return round(number) if self.whole else float(number)

    def typed(self, default: Any) -> Parameter:
        """With integers drawn from a range between integers, if the default is one."""
        ends = (*self.values, default)
        integers = all(isinstance(v, int) and not isinstance(v, bool) for v in ends)
        return replace(self, whole=self.is_range and integers)

    @property
    def is_numeric(self) -> bool:
        """Whether all of its values are finite numbers."""
        return all(map(_is_number, self.values))

    def ends(self) -> list[float]:
        """The numbers of the ends of the range, or of all choices."""
        if self.is_range:
            return [float(value) for value in self.values]
        return [float(i) for i in range(len(self.values))]

    def __str__(self) -> str:
        shown = ":" if self.is_range else ","
        return f"{self.name}={shown.join(map(str, self.values))}"


def _plain(text: str) -> Any:
    """A number, true, false or null; or else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, PLAIN) or value is None else text


def _is_number(value: Any) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)
