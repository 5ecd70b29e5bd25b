"""What advice compares."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from innerloop.advice.data import LabeledData
from innerloop.advice.scoring import NearestNeighbor
from innerloop.core.learner import Learner
from innerloop.core.task import TaskSpec
from innerloop.registry import find

# the task source of the user's own items, and its option for the path
OWN = {"image": ("folder", "root"), "text": ("text", "file"), "row": ("arrays", "file")}
NEW = "NEW"  # in commands, what is to be labeled


@dataclass(frozen=True)
class Candidate:
    """Something that could classify the user's items. The simplest to use come first in
    a list of them.

    Args:
        name: in tables.
        learner: its name in the registry, or "" for the nearest neighbor.
        options: the learner's options.
        raw: whether it reads the items as they are, not their vectors.
        trained: whether it is meta-trained before.
        slow: whether it takes gradient steps in every task.
        source: the known task source that it is trained on, or "" for the user's own
            classes.
    """

    name: str
    learner: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    raw: bool = False
    trained: bool = False
    slow: bool = False
    source: str = ""

    def build(self, spec: TaskSpec) -> Learner:
        if not self.learner:
            return NearestNeighbor()
        return find("learner", self.learner).factory.build(spec, **self.options)

    def commands(self, data: LabeledData) -> tuple[str, ...]:
        """The command lines that label new items by it; none where there is no command
        for it.
        """
        where = str(data.path) if data.path else "DATA"
        flags = [w for n, v in data.columns.items() for w in (_flag(n), v)]
        adapt = ["--support", where, "--query", NEW, "--out", "labels.csv", *flags]
        if self.learner == "probe" and not (set(self.options) - {"encoder"}):
            named = ["--encoder", data.encoder] if data.encoder else []
            return (_line("adapt", *adapt, *named),)
        if not self.learner or data.what not in OWN:
            return ()
        options = [w for n, v in self.options.items() for w in (_flag(n), str(v))]
        task, root = OWN[data.what]
        if self.source:
            tasks = [self.source]
        else:
            tasks = [task, _flag(root), where, "--all-classes", *flags]
        run = f"runs/{self.learner}"
        length = ["--minutes", "10"] if self.trained else ["--steps", "1"]
        return (
            _line("train", self.learner, *tasks, *options, *length, "--out", run),
            _line("adapt", run, *adapt),
        )


def candidates(data: LabeledData) -> list[Candidate]:
    """The candidates for these data, the simplest to use first."""
    encoder = {"encoder": data.encoder} if data.encoder else {}
    found = [Candidate("probe", "probe", encoder)]
    found += [
        Candidate(f"probe, head {head}", "probe", {**encoder, "head": head})
        for head in ("mean", "ridge", "logistic", "mahalanobis")
    ]
    plain = {
        "image": "nearest neighbor on pixels",
        "text": "nearest neighbor on words",
    }.get(data.what, "nearest neighbor")
    found.append(Candidate(plain, "", raw=data.raw is not None))
    flat = encoder or {"encoder": "flatten"}
    cosine = {**flat, "head": "cosine"}
    found.append(Candidate("finetune", "finetune", cosine))
    if data.encoder:
        name = "finetune, with an adapter"
        options = {**cosine, "adapted": "all"}
        found.append(Candidate(name, "finetune", options, slow=True))
    return found


def trained_candidates(data: LabeledData, source: str = "") -> list[Candidate]:
    """Those that are meta-trained: on some of the user's classes, or on a known task
    source.
    """
    encoder = {"encoder": data.encoder} if data.encoder else {}
    on = f"trained on {source}" if source else "trained on other classes"
    return [
        Candidate(f"{name}, {on}", name, encoder, trained=True, source=source)
        for name in ("protonet", "r2d2")
    ]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _line(*words: str) -> str:
    return " ".join(["innerloop", *map(shlex.quote, words)])
