"""The Python reference: docs/reference, one page for each group of public names."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ForwardRef, NamedTuple

from markup import arguments, escaped, paragraphs

from innerloop.registry import SOURCES, entries

FOLDER = Path(__file__).resolve().parent / "reference"
WIDTH = 88


class Group(NamedTuple):
    """A page: public names of modules, without those that have pages of their own."""

    title: str
    text: str
    modules: tuple[str, ...]


GROUPS = {
    "estimators": Group(
        "Estimators",
        "Few-shot prediction with the interface of scikit-learn.",
        ("innerloop.estimators",),
    ),
    "experiments": Group(
        "Experiments and results",
        "An experiment as a value, what happens while it trains, and what its tests "
        "measure. [Concepts](../concepts.md#experiments) shows them at work.",
        (
            "innerloop.experiment",
            "innerloop.assembly",
            "innerloop.engine.training_config",
            "innerloop.events",
            "innerloop.measurements",
        ),
    ),
    "core": Group(
        "Tasks, learners and likelihoods",
        "The interface that all learners and task sources share. All "
        "[learners](../learners/index.md) and [task sources](../tasks.md) have pages "
        "of their own.",
        (
            "innerloop.core.task",
            "innerloop.core.learner",
            "innerloop.core.descent",
            "innerloop.core.likelihood",
        ),
    ),
    "metagrad": Group(
        "Meta-training",
        "How the meta-parameters change. The options of each meta-gradient are on "
        "[their page](../meta_gradients.md).",
        ("innerloop.metagrad", "innerloop.optimizer"),
    ),
    "evaluation": Group(
        "Evaluation",
        "How learners are tested.",
        (
            "innerloop.evaluation.few_shot",
            "innerloop.evaluation.clustering",
            "innerloop.evaluation",
            "innerloop.testing",
        ),
    ),
    "tasks": Group(
        "Building task sources",
        "What the [task sources](../tasks.md) are made of, for your own.",
        ("innerloop.tasks", "innerloop.tasks.splits"),
    ),
    "readers": Group(
        "Readers",
        "How files and Python objects become inputs of a learner.",
        ("innerloop.readers",),
    ),
    "rl": Group(
        "Environments",
        "Tasks in which a learner acts, see "
        "[concepts](../concepts.md#reinforcement-learning).",
        ("innerloop.rl",),
    ),
    "nets": Group(
        "Networks",
        "Networks that learners are built with.",
        ("innerloop.nets",),
    ),
    "more": Group(
        "Programs, registry, errors",
        "Everything else.",
        (
            "innerloop.synthesis",
            "innerloop.registry",
            "innerloop.engine.errors",
            "innerloop.engine.memory",
        ),
    ),
}


def public(module: str) -> Iterator[tuple[str, Any]]:
    """The documented classes and functions of a module: those of its `__all__`, else
    those that `innerloop` exports, else those that it defines.
    """
    found = import_module(module)
    exported = import_module("innerloop")
    homes = [n for n, home in exported._HOME.items() if home == module]
    own = [
        name
        for name, value in vars(found).items()
        if getattr(value, "__module__", None) == module and not name.startswith("_")
    ]
    for name in getattr(found, "__all__", None) or homes or own:
        value = getattr(found, name)
        if callable(value) and inspect.getdoc(value):
            yield name, value


def registered() -> set[int]:
    """What has a page of its own, or a section of one."""
    return {
        id(entry.factory)
        for kind in SOURCES
        if kind in ("learner", "tasks")
        for entry in entries(kind).values()
    }


def _shown(annotation: Any) -> str:
    """An annotation as it is written."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return inspect.formatannotation(annotation)


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {
        inspect.Parameter.VAR_POSITIONAL: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    shown = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        shown += f": {_shown(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        value = parameter.default
        text = value.__name__ if inspect.isclass(value) else repr(value)
        text = "..." if "<" in text else text
        shown += f" = {text}" if ": " in shown else f"={text}"
    return shown


def signature(name: str, value: Callable[..., Any], *, bound: bool = False) -> str:
    """As it is written in Python, on several lines where it is long."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return f"{name}(...)"
    parameters = list(found.parameters.values())[int(bound) :]
    parts, keyword = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            parts.append("*")
        keyword |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(_parameter(parameter))
    result = found.return_annotation
    end = ")"
    if not inspect.isclass(value) and result is not found.empty:
        end += f" -> {_shown(result)}"
    line = f"{name}({', '.join(parts)}{end}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + textwrap.indent(",\n".join(parts), "    ") + f",\n{end}"


def methods(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, signature and docstring of the documented methods that a class defines."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            if text := inspect.getdoc(value):
                yield name, name, text
            continue
        function = getattr(value, "__func__", value)
        if not inspect.isfunction(function) or not (text := inspect.getdoc(function)):
            continue
        bound = not isinstance(value, staticmethod)
        yield name, signature(name, function, bound=bound), text


def heading(name: str, value: Any) -> str:
    """Classes and functions whose names differ in case only have other headings."""
    return f"class {name}" if inspect.isclass(value) else name


def described(name: str, value: Any) -> list[str]:
    """The section of a class or function."""
    text = inspect.getdoc(value) or ""
    lines = [f"## {heading(name, value)}", ""]
    lines += ["```text", signature(name, value), "```", ""]
    lines += [*paragraphs(text), *arguments(text)]
    if inspect.isclass(value):
        for method, shown, told in methods(value):
            lines += [f"### {name}.{method}", "", "```text", shown, "```", ""]
            lines += [*paragraphs(told), *arguments(told)]
    return lines


def pages() -> dict[Path, str]:
    apart, seen = registered(), set()
    index = [
        "# Python reference",
        "",
        "`import innerloop` has the names in bold; others are imported from their "
        "module. Learners and task sources are on pages of their own: "
        "[learners](../learners/index.md), [task sources](../tasks.md).",
        "",
    ]
    exported = set(import_module("innerloop").__all__)
    found: dict[Path, str] = {}
    for page, group in GROUPS.items():
        lines = [f"# {group.title}", "", group.text, ""]
        index += [f"## [{group.title}]({page}.md)", "", group.text, ""]
        index += ["| name | module | what it is |", "| --- | --- | --- |"]
        for module in group.modules:
            for name, value in public(module):
                if id(value) in apart or id(value) in seen:
                    continue
                seen.add(id(value))
                lines += described(name, value)
                summary = (inspect.getdoc(value) or "").split("\n\n")[0]
                anchor = heading(name, value).lower().replace(" ", "-")
                shown = f"**`{name}`**" if name in exported else f"`{name}`"
                index.append(
                    f"| [{shown}]({page}.md#{anchor}) | `{module}` | "
                    f"{escaped(summary)} |"
                )
        index.append("")
        found[FOLDER / f"{page}.md"] = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    found[FOLDER / "index.md"] = "\n".join(index)
    return {path: text.rstrip() + "\n" for path, text in found.items()}
