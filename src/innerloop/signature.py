"""Signatures of measurements: what must agree for two numbers to be comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from innerloop.core.task import TaskDistribution
from innerloop.measurements import TestPlan
from innerloop.registry import Entry

SIZES = ("ways", "shots", "queries")


def signature(
    source: Entry,
    split: str,
    options: Mapping[str, Any],
    tasks: TaskDistribution,
    plan: TestPlan,
    transductive: bool,
) -> str:
    """Such as "omniglot:vinyals#3f2a/5w1s/q15/inductive/t1000/s0/v0.1": the tasks and
    their protocol, a digest of the names of the test classes, ways and shots, queries,
    whether predictions use other query examples, the number of tasks, their seed, and
    the version of innerloop that drew them. Splits other than test, steps and
    arithmetic are named where they are set.

    Reference: Post 2018, "A call for clarity in reporting BLEU scores",
    arXiv:1804.08771.

    Args:
        source: of the tasks.
        split: of the data.
        options: of the source, with which `tasks` was built.
    """
    from innerloop import __version__

    named = ":".join([source.name.rsplit("/", 1)[-1], *_protocol(source, options)])
    names = tasks.class_names()
    if names:
        text = "\n".join(sorted(names)).encode("utf-8", "surrogatepass")
        named += "#" + hashlib.sha256(text).hexdigest()[:4]
    ways, shots, queries = (options.get(name) for name in SIZES)
    parts = [
        named,
        split if split != "test" else "",
        f"{ways}w{shots}s" if ways else f"{shots}s" if shots else "",
        f"q{queries}" if queries else "",
        "transductive" if transductive else "inductive",
        f"k{plan.steps}" if plan.steps is not None else "",
        plan.precision if plan.precision != "float32" else "",
        f"t{plan.n}",
        f"s{plan.seed}",
        "v" + ".".join(__version__.split(".")[:2]),
    ]
    return "/".join(part for part in parts if part)


def _protocol(source: Entry, options: Mapping[str, Any]) -> list[str]:
    """The options that say what the tasks are: those with a choice of words, and others
    that differ from their defaults; no sizes and no paths.
    """
    found = []
    for name, option in sorted(source.options.items()):
        value = options.get(name, option.default)
        if name in SIZES or option.is_path or value is None:
            continue
        if option.choices and isinstance(value, str):
            found.append(value)
        elif name in options and value != option.default:
            shown = name if value is True else f"{name}={value}"
            found.append(f"no-{name}" if value is False else shown)
    return found
