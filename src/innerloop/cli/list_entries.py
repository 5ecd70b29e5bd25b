"""`innerloop list`."""

from __future__ import annotations

import json
from dataclasses import MISSING
from typing import Any

import click

from innerloop.cli.flags import SectionedCommand, option

KINDS = {
    "learners": "learner",
    "tasks": "tasks",
    "meta-gradients": "meta-gradient",
    "evaluations": "evaluation",
    "readers": "reader",
    "encoders": "encoder",
}
WIDTH = 80


def catalog() -> list[dict[str, Any]]:
    """Every entry of the registry: kind, name, family, summary, reference."""
    from innerloop.registry import PRESETS, entries, find

    found = []
    for kind in KINDS.values():
        known = list(entries(kind).values())
        if kind == "learner":
            known += [find("learner", name) for name in PRESETS]
        for entry in known:
            paper, preset = entry.citation, entry.preset
            found.append(
                {
                    "kind": kind,
                    "name": entry.name,
                    "family": entry.family,
                    "summary": entry.summary,
                    "preset_of": preset.learner if preset else None,
                    "reference": paper.short or None,
                    "arxiv": paper.arxiv,
                    "year": paper.year,
                }
            )
    return found


def run(name: str | None, as_json: bool) -> None:
    from innerloop.registry import entries

    if as_json:
        print(json.dumps(catalog(), indent=2))
    elif name is None or name in KINDS:
        for title, kind in KINDS.items():
            if name in (None, title):
                _section(title, [e for e in catalog() if e["kind"] == kind])
    else:
        from innerloop.engine.did_you_mean import did_you_mean
        from innerloop.engine.errors import InnerloopError
        from innerloop.registry import find

        problems = 0
        for kind in KINDS.values():
            try:
                _describe(find(kind, name))
            except InnerloopError:
                problems += 1
        if problems == len(KINDS):
            names = [key for kind in KINDS.values() for key in entries(kind)]
            raise InnerloopError(
                f"nothing is called {name!r}{did_you_mean(name, names, '')}".rstrip(
                    "; "
                )
            )


def _section(title: str, found: list[dict[str, Any]]) -> None:
    print(f"{title.upper()}")
    width = max(len(entry["name"]) for entry in found)
    for entry in found:
        line = f"  {entry['name']:<{width}}  {entry['summary']}"
        print(line if len(line) <= WIDTH else line[: WIDTH - 3].rstrip() + "...")
    print()


def _describe(entry: Any) -> None:
    print(entry.title if entry.preset else entry.docstring)
    if facts := {**entry.facts, **entry.status}:
        print()
        for name, text in facts.items():
            print(f"{name}: {text}")
    if entry.preset is not None:
        preset = entry.preset
        print(f"\nThe same as: {' '.join([preset.learner, *preset.flags])}")
        print(f"\nReference: {preset.reference}")
    elif entry.options:
        print("\nOptions:")
        for option in entry.options.values():
            default = (
                "" if option.default is MISSING else f"  (default: {option.default})"
            )
            print(f"  {option.flag}{default}")
    print()


command = SectionedCommand(
    "list",
    params=[
        click.Argument(["name"], required=False),
        option("--json", "Everything, as JSON.", "as_json", is_flag=True),
    ],
    callback=run,
    help="List all learners, tasks, meta-gradients, evaluations, readers and "
    f"pretrained encoders; or only NAME, one of {', '.join(KINDS)}; or describe one "
    "entry, such as protonet.",
)
