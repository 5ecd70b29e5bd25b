"""A run folder: everything that a training leaves behind, and enough to go on with it.

settings.json       learner, fields, tasks, preprocessing, split, versions
log.jsonl           one line a report: step, seconds, loss, metrics
weights.safetensors the weights to use
checkpoint.pt
weights, optimiser, generator and progress of the last save, for resuming

Every file is written beside its place and moved there in one go, so that a crash leaves
the old one or the new one.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners import LEARNERS
from innerloop.readers.table import Columns
from innerloop.rl import PLAYED, POLICIES
from innerloop.tasks import TASKS, Episodes, Preprocess, Tokenizer
from innerloop.tasks.pools import Pools

ALL_TASKS: dict[str, Callable[..., TaskDistribution]] = {**TASKS, **PLAYED}
FORMAT = 3
FILES = ("settings.json", "log.jsonl", "weights.safetensors", "checkpoint.pt")


class RunError(ValueError):
    """A run folder that cannot be used, and why."""


@dataclass
class Settings:
    """What a run was told: JSON in, JSON out.

    learner: its name in LEARNERS. fields: the learner's fields that were set, networks
    by name. spec: the tasks it was built for. tasks, task_options: name in ALL_TASKS
    and keywords. recipe: how it was trained. split: the fingerprint of its training
    classes. source: the run whose networks it began with. policy: how outputs are read,
    where tasks are played: name in POLICIES and fields;
    outer: options of the meta-gradient.
    """

    learner: str
    fields: dict[str, Any]
    spec: dict[str, Any]
    tasks: str
    task_options: dict[str, Any]
    recipe: dict[str, Any]
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    precision: str = "float32"
    device: str = "cpu"
    preprocess: dict[str, Any] | None = None
    reads: dict[str, Any] | None = None
    split: str | None = None
    source: str | None = None
    policy: dict[str, Any] | None = None
    outer: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def build(self) -> Learner:
        """A fresh learner as these settings say."""
        told = dict(self.policy or {})
        read = {"likelihood": POLICIES[told.pop("name")](**told)} if told else {}
        return LEARNERS[self.learner].build(
            TaskSpec(**self.spec), **self.fields, **read
        )

    def distribution(self, part: str, **options: Any) -> TaskDistribution:
        """A part of the tasks it was trained on; `options` replace what the run was
        trained with.
        """
        return build_tasks(
            self.tasks,
            part,
            {**self.task_options, "reader": reader(self.reads), **options},
        )


def seen_classes(settings: Settings, tasks: TaskDistribution) -> int:
    """How many classes of `tasks` the run was trained on, turned or mirrored or not; 0
    where tasks are drawn from no classes.
    """
    try:
        train = settings.distribution("train")
    except ValueError:  # the data is no longer there
        return 0
    banks = [
        t.bank.names if isinstance(t, Episodes | Pools) else () for t in (train, tasks)
    ]
    names = [
        {name.split("/rot")[0].removesuffix("/mirrored") for name in bank}
        for bank in banks
    ]
    return len(names[0] & names[1])


def build_tasks(name: str, part: str, options: dict[str, Any]) -> TaskDistribution:
    """A part of a named task distribution; options that are None are left to its
    defaults.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(given.get("preprocess"), dict):
        given["preprocess"] = Preprocess(**given["preprocess"])
    return ALL_TASKS[name](part, **given)


def reader(settings: dict[str, Any] | None) -> Preprocess | Tokenizer | Columns | None:
    """What reads images, texts or the rows of a table as a learner was trained on them,
    from its settings.
    """
    if settings is None:
        return None
    return next(
        kind
        for told, kind in (
            ("merges", Tokenizer),
            ("words", Columns),
            ("size", Preprocess),
        )
        if told in settings
    )(**settings)


def versions() -> dict[str, str]:
    from innerloop import __version__

    return {
        "innerloop": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


class Run:
    """A run folder, opened or new."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        return (self.folder / "settings.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether a training has saved its state here."""
        return (self.folder / "checkpoint.pt").is_file()

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.folder / name, content)

    def create(self, settings: Settings) -> None:
        """Begin: the folder, the settings, an empty log. Raises RunError where that
        would replace files that are no run's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in FILES if (self.folder / name).exists()]
        if there and not self.exists:
            raise RunError(
                f"{self.folder} is no run folder, but holds a {there[0]} that a run would replace: choose another folder"
            )
        for stale in ("weights.safetensors", "checkpoint.pt"):
            (self.folder / stale).unlink(missing_ok=True)
        self.write_settings(settings)
        self._write("log.jsonl", b"")

    def write_settings(self, settings: Settings) -> None:
        self._write(
            "settings.json", json.dumps(asdict(settings), indent=2).encode() + b"\n"
        )

    def settings(self) -> Settings:
        """The settings. Raises RunError where the folder is missing, foreign or of
        another format.
        """
        if not self.folder.is_dir():
            raise RunError(f"there is no run folder {self.folder}")
        if not self.exists:
            raise RunError(f"{self.folder} is no run folder: it has no settings.json")
        try:
            stored = json.loads((self.folder / "settings.json").read_text())
            if not isinstance(stored, dict) or "learner" not in stored:
                raise InnerloopError("no learner is named in it")
            if stored.get("format") != FORMAT:
                raise InnerloopError(
                    f"it has format {stored.get('format')}, this innerloop reads {FORMAT}"
                )
            settings = Settings(
                **{f.name: stored[f.name] for f in fields(Settings) if f.name in stored}
            )
            if settings.learner not in LEARNERS or settings.tasks not in ALL_TASKS:
                raise InnerloopError(
                    f"this innerloop has no {settings.learner} on {settings.tasks}"
                )
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{self.folder}/settings.json cannot be used: {error}"
            ) from error
        return settings

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to the log."""
        with (self.folder / "log.jsonl").open("a") as opened:
            opened.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The log's lines; a half-written last one is left out."""
        lines = []
        for line in (self.folder / "log.jsonl").read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def truncate_log(self, step: int) -> None:
        """Drop the lines after a step: what a resumed training will write again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        self._write(
            "log.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode()
        )

    def save_weights(self, learner: Learner) -> None:
        self._write(
            "weights.safetensors",
            save(
                {
                    name: t.detach().cpu().contiguous()
                    for name, t in learner.state_dict().items()
                }
            ),
        )

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".checkpoint.{os.getpid()}.part"
        torch.save(state, partial)
        _settle(partial, self.folder / "checkpoint.pt")

    def load_checkpoint(self) -> dict[str, Any]:
        """The last save. Raises RunError where there is none or it is damaged."""
        return _load(
            self.folder,
            "checkpoint.pt",
            lambda file: torch.load(file, weights_only=True, map_location="cpu"),
        )

    def learner(self) -> Learner:
        """The trained learner, ready to use; its `read_as` is the `Preprocess`,
        `Tokenizer` or `Columns` of the run, or None.

        Raises RunError where the folder is missing, unfinished, damaged or foreign.
        """
        settings = self.settings()
        learner = settings.build()
        learner.read_as = reader(settings.preprocess or settings.reads)  # pyright: ignore[reportArgumentType]
        weights = _load(
            self.folder, "weights.safetensors", lambda file: load_file(file)
        )
        try:
            learner.load_state_dict(weights)
        except RuntimeError as error:
            what = str(error).splitlines()[-1].strip()
            raise RunError(
                f"{self.folder}/weights.safetensors does not fit the learner in settings.json: {what}"
            ) from error
        return learner.eval()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of
    it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    _settle(partial, path)


def _settle(partial: Path, path: Path) -> None:
    with partial.open("r+b") as opened:
        os.fsync(opened.fileno())
    partial.replace(path)


def _load(folder: Path, name: str, how: Callable[[Path], Any]) -> Any:
    if not (folder / name).is_file():
        raise RunError(f"{folder} has no {name}: its training has not saved yet")
    try:
        return how(folder / name)
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
    ) as error:
        raise RunError(
            f"{folder}/{name} is damaged ({type(error).__name__}): train again, or resume from a whole copy"
        ) from error
    except Exception as error:
        # torch.load raises pickle's own errors for foreign files
        raise RunError(
            f"{folder}/{name} is damaged or foreign ({type(error).__name__}): train again"
        ) from error


def inherit(learner: Learner, run: Path | str) -> list[str]:
    """Begin with the networks of another run: every tensor of the same name and shape
    is copied, whether its network is in a `net` or stands alone.

    Gives the names of what was copied. Raises RunError where nothing fits.
    """
    given = {
        name.removeprefix("net."): value
        for name, value in load(run).state_dict().items()
    }
    own = learner.state_dict()
    fits = [
        name
        for name, value in own.items()
        if (found := given.get(name.removeprefix("net."))) is not None
        and found.shape == value.shape
    ]
    # numbers of the learner itself, such as a scale, are no networks
    fits = [name for name in fits if "." in name]
    if not fits:
        raise RunError(
            f"nothing in {run} fits {type(learner).__name__}: it has {', '.join(sorted({name.split('.')[0] for name in given}))}"
        )
    learner.load_state_dict(
        {**own, **{name: given[name.removeprefix("net.")] for name in fits}}
    )
    return fits


def load(run: Path | str) -> Learner:
    """The trained learner of a run folder, in evaluation mode. Raises RunError where
    the folder cannot be used.
    """
    return Run(run).learner()
