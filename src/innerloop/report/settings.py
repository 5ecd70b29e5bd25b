"""The settings of runs, side by side."""

from __future__ import annotations

import json
from typing import Any

from innerloop.assembly import SIZES
from innerloop.common_tasks import TrainedRun
from innerloop.report.command import training_command
from innerloop.report.html import Html, badge, details, join, soft, table, tag
from innerloop.report.measure import Measured

LONG = 80  # letters of a value


def settings(found: Measured) -> Html:
    """The command of every run, what differs between runs, and everything."""
    commands = [
        tag(
            "div",
            tag("h3", badge(found.place(run.name)), f" {run.name}"),
            tag("pre", training_command(run.experiment, run.run.folder.name)),
            class_="card stack",
        )
        for run in found.runs
    ]
    values = [_values(run) for run in found.runs]
    names = list(dict.fromkeys(name for one in values for name in one))
    rows = {name: [one.get(name, "–") for one in values] for name in names}
    different = {
        name: row
        for name, row in rows.items()
        if len(set(row)) > 1 and not name.startswith("spec")
    }
    head = ["setting", *(_head(i, run) for i, run in enumerate(found.runs))]
    parts: list[Any] = [*commands]
    if len(found.runs) > 1:
        shown = (
            table(
                "What differs",
                head,
                [[n, *r] for n, r in different.items()],
                class_="settings",
            )
            if different
            else soft("All settings are the same.")
        )
        parts.append(tag("div", shown, class_="card"))
    everything = table(
        "All settings", head, [[n, *r] for n, r in rows.items()], class_="settings"
    )
    parts.append(details("All settings", everything))
    return join(parts)


def _head(place: int, run: TrainedRun) -> Html:
    return join([badge(place), " ", run.name])


def _values(run: TrainedRun) -> dict[str, str]:
    """Every setting by name, as text."""
    found: dict[str, str] = {}
    for key, value in run.experiment.as_dict().items():
        parts = (
            {"name": "", "options": value.get("options", {})}
            if (isinstance(value, dict) and set(value) == {"name", "options"})
            else None
        )
        if parts is not None:
            found[key.replace("_", " ")] = _text(value["name"])
            found |= {
                f"{key.replace('_', ' ')}: {n}": _text(v)
                for n, v in value["options"].items()
            }
        elif isinstance(value, dict):
            own = {
                n: v for n, v in value.items() if n not in SIZES
            }  # those of the tasks
            found |= {f"{key}: {n}": _text(v) for n, v in own.items()}
        elif value is not None:
            found[key.replace("_", " ")] = _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"{len(value)} values"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
