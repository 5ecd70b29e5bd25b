"""The form of a training, made from the options that its flags are made from, and the
command line that a filled form stands for.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from innerloop.assembly import (
    TRAIN_FLAGS,
    Section,
    training_sections,
    usual_meta_gradient,
)
from innerloop.encoders import ENCODERS as PRETRAINED
from innerloop.encoders import TRAINED
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Option, flag_names
from innerloop.engine.user_file import is_in_file
from innerloop.nets.registry import ENCODERS as NETWORKS
from innerloop.registry import PRESETS, Entry, entries, find

KINDS = {"learners": "learner", "tasks": "tasks", "meta_gradients": "meta-gradient"}
PRECISIONS = ("auto", "float32", "bf16")
MOST_MINUTES = 600
MOST_STEPS = 10**7
LONGEST = 200  # characters of a text
TYPES = {int: "integer", float: "number", bool: "switch", str: "text"}


def known(kind: str) -> list[Entry]:
    """The entries of a kind that the page offers: those that ship in the package."""
    found = [entry for entry in entries(kind).values() if entry.family != "own"]
    if kind == "learner":
        found += [find(kind, name) for name in PRESETS]
    return found


def known_name(kind: str, name: str) -> str:
    """A name that was sent, if it is that of an entry. Raises InnerloopError for any
    other, a class or function in a file included.
    """
    names = {entry.name for entry in known(kind)}
    if name not in names:
        find(kind, "" if is_in_file(name) else name)  # says what comes near to it
        raise InnerloopError(f"there is no {kind} {name!r:.60}")
    return name


@cache
def catalog() -> dict[str, list[dict[str, Any]]]:
    """What can be chosen by name: name, family, a sentence, and of learners what they
    predict.
    """
    return {
        plural: [
            {
                "name": entry.name,
                "family": entry.family,
                "summary": entry.summary,
                "reference": entry.citation.short,
                "predicts": list(getattr(entry.factory, "kinds", ())),
                "needs": [o.name for o in entry.options.values() if _is_needed(o)],
            }
            for entry in known(kind)
        ]
        for plural, kind in KINDS.items()
    }


def _is_needed(option: Option) -> bool:
    return option.default is MISSING


def devices() -> list[str]:
    """Where this machine can compute."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class Form:
    """The options of one training.

    Args:
        learner, tasks, meta_gradient: names; "" for the meta-gradient that suits the
            learner.
        data: a folder; what lies in it can be chosen where an option is a path.
    """

    learner: str
    tasks: str
    meta_gradient: str
    data: Path

    def __post_init__(self) -> None:
        known_name("learner", self.learner)
        known_name("tasks", self.tasks)
        if self.meta_gradient:
            known_name("meta-gradient", self.meta_gradient)

    @property
    def how(self) -> str:
        """The meta-gradient, or else the learner's."""
        return self.meta_gradient or usual_meta_gradient(self.learner)

    def sections(self) -> list[Section]:
        """The options, restricted to what may come from a browser."""
        return [
            replace(section, options=self._restricted(section))
            for section in training_sections(self.learner, self.tasks, self.how)
        ]

    def _restricted(self, section: Section) -> dict[str, Option]:
        learner = find("learner", self.learner).factory
        networks = learner.named_networks if section.part == "learner" else ()
        found = {}
        for name, option in section.options.items():
            if option.is_path:
                option = replace(option, choices=tuple(self.items()))
            elif name in networks:
                option = replace(option, choices=network_names())
            found[name] = option
        return found

    def items(self) -> list[str]:
        """The names of the files and folders in the data folder."""
        if not self.data.is_dir():
            return []
        return sorted(p.name for p in self.data.iterdir() if p.name[:1] != ".")[:200]

    def fields(self) -> list[dict[str, Any]]:
        """The sections as data for a page."""
        taken = set(TRAIN_FLAGS)
        found = []
        for section in self.sections():
            flags = flag_names(section.options, taken, section.prefix)
            usual = section.usual
            found.append(
                {
                    "part": section.part,
                    "title": section.title,
                    "fields": [
                        field(option, flags[name], usual.get(name, option.default))
                        for name, option in section.options.items()
                    ],
                }
            )
        return found

    def arguments(self, values: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Checked options as words of a command line.

        Args:
            values: options by part and name; None stands for the default.

        Raises InnerloopError for an option that does not exist, or a bad value.
        """
        sections = self.sections()
        taken, words = set(TRAIN_FLAGS), []
        for part in values.keys() - {section.part for section in sections}:
            raise InnerloopError(f"a training has no options of {part!r:.40}")
        for section in sections:
            flags = flag_names(section.options, taken, section.prefix)
            given = {
                n: v for n, v in values.get(section.part, {}).items() if v is not None
            }
            for name, value in given.items():
                if name not in section.options:
                    raise InnerloopError(f"{section.title} has no option {name!r:.60}")
                option = section.options[name]
                words += option.words(flags[name], self._checked(option, value))
            missing = [
                o
                for n, o in section.options.items()
                if _is_needed(o) and n not in given
            ]
            if missing:
                way = f"put the data into {self.data} and choose them"
                raise InnerloopError(
                    f"{self.tasks} needs {missing[0].name}: "
                    f"{way if missing[0].is_path else missing[0].help}"
                )
        return words

    def _checked(self, option: Option, value: Any) -> Any:
        if isinstance(value, str) and (
            len(value) > LONGEST or not value.isprintable() or is_in_file(value)
        ):
            raise InnerloopError(f"{option.name} cannot be {value!r:.60}")
        if option.is_path and value not in option.choices:
            raise InnerloopError(
                f"{option.name} must name a file or folder in {self.data}"
            )
        value = option.check(value)
        return self.data.resolve() / value if option.is_path else value


@cache
def network_names() -> tuple[str, ...]:
    """Networks that can be chosen by name."""
    trained = (name + TRAINED for name in PRETRAINED)
    return (*NETWORKS, *PRETRAINED, *trained)


def field(option: Option, flag: str, default: Any) -> dict[str, Any]:
    """An option as data for a page."""
    low = high = None
    if (bounds := option.range) is not None:
        low, high = (v if abs(v) < 1e300 else None for v in (bounds.low, bounds.high))
    return {
        "name": option.name,
        "flag": flag,
        "type": "choice" if option.choices or option.is_path else TYPES[option.type],
        "help": option.help,
        "default": None if default is MISSING else default,
        "optional": option.optional or option.default is None,
        "needed": _is_needed(option),
        "from_data": option.is_path,
        "choices": list(option.choices),
        "low": low,
        "high": high,
        "open_low": bounds is not None and bounds.open_low,
        "open_high": bounds is not None and bounds.open_high,
    }


def shell_line(words: list[str]) -> str:
    """Words of a command as one line for a shell."""
    return "innerloop " + shlex.join(words)
