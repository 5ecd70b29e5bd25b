"""What the folders of runs say: settings, progress, results of tests, and who leads."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from innerloop.core.likelihood import Likelihood
from innerloop.measurements import Measurement, plain
from innerloop.registry import entries
from innerloop.runs import Run, RunError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
OUTPUT, EVENTS, STARTED = "output.txt", "events.jsonl", "training.json"
EVENT_NAMES = ("started", "stepped", "validated", "saved", "finished")
MOST_LOG = 2**22  # bytes of a file that are read
MOST_TESTS = 50  # of a run
# options of tasks that a test replaces, see `Experiment.test_tasks`
REPLACED = ("queries", "groups", "holdout")


def run_folders(folder: Path) -> list[Path]:
    """The runs in a folder, the newest first; links are left out."""
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if NAME.fullmatch(path.name)
        and path.is_dir()
        and not path.is_symlink()
        and any((path / name).is_file() for name in (STARTED, "experiment.json"))
    ]
    return sorted(found, key=began, reverse=True)


def began(run: Path) -> float:
    """When a run began, in seconds since 1970."""
    for name in (STARTED, "experiment.json"):
        with contextlib.suppress(OSError):
            return (run / name).stat().st_mtime
    return 0.0


def read_json(file: Path) -> Any:
    """What a file holds; None where it cannot be read."""
    try:
        return json.loads(file.read_bytes()[:MOST_LOG], parse_constant=_no_number)
    except (OSError, ValueError, RecursionError):
        return None


def _no_number(text: str) -> None:
    """NaN and infinities, which JSON does not have, are None."""


class Lines:
    """The JSON lines of a file that grows; from its start again where it was replaced
    by a shorter one.
    """

    def __init__(self, file: Path):
        self.file, self.place, self.rest = file, 0, b""

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that came since the last call."""
        try:
            with self.file.open("rb") as opened:
                if opened.seek(0, 2) < self.place:
                    self.place, self.rest = 0, b""
                opened.seek(self.place)
                content = opened.read(MOST_LOG)
        except OSError:
            return []
        self.place += len(content)
        *whole, self.rest = (self.rest + content).split(b"\n")
        return [line for text in whole if (line := _line(text)) is not None]


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class History:
    """The events of a run, as its files tell them: those that were recorded, and the
    log of its validations.
    """

    def __init__(self, run: Path):
        self.recorded, self.log = Lines(run / EVENTS), Lines(run / "log.jsonl")

    def new(self) -> list[dict[str, Any]]:
        """What is new since the last call."""
        told = [
            line for line in self.recorded.new() if line.get("event") in EVENT_NAMES
        ]
        logged = [{"event": "validated", "line": line} for line in self.log.new()]
        return [*told, *logged]


@cache
def scores() -> dict[str, Likelihood]:
    """What reads outputs, by the score that it is judged by."""
    return {
        entry.factory.score: entry.factory for entry in entries("likelihood").values()
    }


def last_line(run: Path) -> str:
    """The last line of a run's output."""
    try:
        with (run / OUTPUT).open("rb") as opened:
            opened.seek(max(0, opened.seek(0, 2) - 2000))
            lines = opened.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    shown = [line.strip() for line in lines if line.strip()]
    return "".join(c for c in shown[-1] if c.isprintable())[:300] if shown else ""


def settings_of(run: Path) -> dict[str, Any]:
    """The experiment of a run as it was written, or {}."""
    try:
        return Run(run).experiment()
    except RunError:
        return {}


def summary(run: Path) -> dict[str, Any]:
    """A run as data for a page, without what a process knows.

    Raises RunError for files that are not those of a run.
    """
    try:
        return plain(_summary(run))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RunError(f"the files of {run.name} cannot be used: {error}") from error


def _summary(run: Path) -> dict[str, Any]:
    made = settings_of(run)
    asked = read_json(run / STARTED) or {}
    log = Run(run).read_log() if made else []
    last = log[-1] if log else {}
    parts = {
        part: made.get(part) or {"name": asked.get(part) or "", "options": {}}
        for part in ("learner", "tasks", "meta_gradient")
    }
    scored = [line for line in log if isinstance(line.get("validation"), int | float)]
    measure = next((name for name in scores() if scored and name in scored[-1]), "")
    spec = made.get("spec") or {}
    return {
        "name": run.name,
        "began": began(run),
        "learner": str(parts["learner"]["name"]),
        "tasks": str(parts["tasks"]["name"]),
        "meta_gradient": str(parts["meta_gradient"]["name"]),
        "options": {part: dict(parts[part]["options"]) for part in parts},
        "training": made.get("training") or {},
        "inputs": _inputs(made, spec),
        "steps": made.get("steps", asked.get("steps")),
        "minutes": made.get("minutes", asked.get("minutes")),
        "step": int(last.get("step", 0)),
        "seconds": float(last.get("seconds", 0)),
        "measure": measure,
        "score": scored[-1]["validation"] if scored else None,
        "interval": scored[-1].get("validation_interval") if scored else None,
        "trained": bool(made) and is_trained(made, last, run),
        "saved": (run / "checkpoint.bin").is_file(),
        "usable": (run / "weights.safetensors").is_file(),
        "command": str(asked.get("command", "")),
        "tests": results(run),
    }


def _inputs(made: dict[str, Any], spec: dict[str, Any]) -> str:
    """What the learner's reader reads, where the page Teach can show it; else ""."""
    reader = (made.get("reader") or {}).get("name", "")
    return str(reader) if spec.get("kind") == "classes" else ""


def is_trained(made: dict[str, Any], last: dict[str, Any], run: Path) -> bool:
    """Whether a training has reached its end."""
    if not (run / "checkpoint.bin").is_file():  # nothing to train
        return (run / "weights.safetensors").is_file()
    if made.get("steps"):
        return last.get("step", 0) >= made["steps"]
    return last.get("seconds", 0) >= 60 * (made.get("minutes") or 0) > 0


def results(run: Path) -> list[dict[str, Any]]:
    """The tests of a run, the newest first."""
    try:
        files = sorted(
            (run / "tests").glob("*.json"),
            key=lambda f: f.stat().st_mtime,
            reverse=True,
        )
    except OSError:
        return []
    found = []
    for file in files[:MOST_TESTS]:
        data = read_json(file)
        with contextlib.suppress(TypeError, KeyError, AttributeError, ValueError):
            found.append(
                {
                    "name": file.stem,
                    "tasks": str(data["tasks"]),
                    "split": str(data["split"]),
                    "n": int(data["plan"]["n"]),
                    "seed": int(data["plan"]["seed"]),
                    "settings": {
                        "options": data["options"],
                        "evaluation": data["evaluation"],
                        "steps": data["plan"]["steps"],
                        "precision": data["plan"]["precision"],
                    },
                    "seen_classes": int(data["seen_classes"]),
                    "tables": [_table(table) for table in data["tables"]],
                    "notes": [str(note) for note in data["notes"]],
                }
            )
    return found


def _table(table: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": str(table["title"]),
        "rows": [
            {
                "labels": dict(row["labels"]),
                "values": [_value(value) for value in row["values"]],
            }
            for row in table["rows"]
        ],
    }


def _value(value: dict[str, Any]) -> dict[str, Any]:
    known = {**value, "mean": float("nan") if value["mean"] is None else value["mean"]}
    return {**value, "text": str(Measurement(**known))}


# ------------------------------------------------------------------ leaderboard


def leaderboard(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that were tested on the same tasks and settings, the best first, for all
    settings of at least two runs.

    A run is close to the best where their 95 % intervals overlap.
    """
    groups: dict[str, dict[str, Any]] = {}
    for run in runs:
        for key, entry, place in _comparable(run):
            group = groups.setdefault(key, {**entry, "rows": {}})
            group["rows"].setdefault(run["name"], place)  # the newest test counts
    found = []
    for group in groups.values():
        rows = sorted(
            group["rows"].values(),
            key=lambda row: row["mean"],
            reverse=group["higher_is_better"],
        )
        if len(rows) > 1:
            best = rows[0]
            for row in rows:
                apart = abs(row["mean"] - best["mean"])
                row["close"] = row is not best and apart <= sum(
                    r["interval"] or 0.0 for r in (row, best)
                )
            found.append({**group, "rows": rows})
    return sorted(found, key=lambda group: -len(group["rows"]))[:30]


def _comparable(
    run: dict[str, Any],
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The rows of the main tables of a run's tests: what they can be compared by, that
    for the reader, and the run's place.
    """
    for test in run["tests"]:
        same = test["tasks"] == run["tasks"]
        inherited = run["options"]["tasks"] if same else {}
        for row in test["tables"][0]["rows"] if test["tables"] else []:
            value = _main(row["values"])
            if value is None or value["mean"] is None:
                continue
            entry = {
                "tasks": test["tasks"],
                "split": test["split"],
                "labels": row["labels"],
                "measure": value["name"],
                "n": test["n"],
                "seed": test["seed"],
                "higher_is_better": _higher(value["name"]),
            }
            left_out = {*REPLACED, *row["labels"]}
            kept = {n: v for n, v in inherited.items() if n not in left_out}
            title = test["tables"][0]["title"]
            key = json.dumps([entry, test["settings"], kept, title], sort_keys=True)
            place = {
                "run": run["name"],
                "learner": run["learner"],
                **{name: value[name] for name in ("mean", "interval", "unit", "text")},
                "seen_classes": test["seen_classes"],
                "close": False,
            }
            yield key, entry, place


def _main(values: list[dict[str, Any]]) -> dict[str, Any] | None:
    named = [value for value in values if value["name"] in scores()]
    return next(iter([*named, *values]), None)


def _higher(measure: str) -> bool:
    reads = scores().get(measure)
    return reads is None or reads.higher_is_better
