"""Splits of the data into training, validation and test classes or tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import checked, options

SPLITS = {"train": (0.0, 0.64), "val": (0.64, 0.8), "test": (0.8, 1.0)}
_P = ParamSpec("_P")
_T = TypeVar("_T")


def task_source(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorator of a task source, a function `(split, *, **options)`: every call checks
    the split and the options.

    Raises InnerloopError for an unknown split, an unknown option, a value out of range,
    or a missing option.
    """

    @wraps(function)
    def source(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        split = args[0] if args else kwargs.get("split", "train")
        check_split(split)
        values = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in kwargs.items()
            if name != "split"
        }
        checked(function, values, function.__name__)
        for name, option in options(function).items():
            if option.default is MISSING and values.get(name) is None:
                raise InnerloopTypeError(
                    f"{function.__name__} needs {name}: {option.help}"
                )
        return function(*args, **kwargs)

    return source


def check_split(split: object) -> None:
    """Raises InnerloopError for a split that does not exist."""
    if split not in SPLITS:
        raise InnerloopError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")


def split_indices(
    names: Sequence[str], split: str, shares: dict[str, tuple[float, float]] = SPLITS
) -> list[int]:
    """The indices of the names that belong to a split, by default 64, 16 and 20 % of
    them, in an order that is fixed by the names alone.

    Raises InnerloopError for an unknown split.
    """
    check_split(split)
    order = sorted(
        range(len(names)),
        key=lambda i: hashlib.sha256(
            names[i].encode("utf-8", "surrogateescape")
        ).hexdigest(),
    )
    low, high = (round(share * len(names)) for share in shares[split])
    return sorted(order[low:high])


def class_indices(
    names: Sequence[str], split: str, all_classes: bool, source: object
) -> list[int]:
    """The indices of a user's classes that belong to a split; all of them with
    `all_classes`.

    Raises InnerloopError where a split has fewer than two classes, with the number of
    classes in every split.
    """
    if all_classes:
        return list(range(len(names)))
    chosen = split_indices(names, split)
    if len(chosen) < 2:
        raise InnerloopError(
            f"the {split} split of {source} has {len(chosen)} of {len(names)} classes "
            f"({split_sizes(names)}), and tasks need 2: add classes, or use all of "
            "them in every split with all_classes (--all-classes)"
        )
    return chosen


def split_sizes(names: Sequence[str]) -> str:
    """How many of a user's classes are in each split, in words."""
    return ", ".join(f"{split} {len(split_indices(names, split))}" for split in SPLITS)
