"""An experiment is a value: what is trained, on what, how and for how long.

Flags, web forms, studies and workers all build the same `Experiment`; it is JSON in and
JSON out, and training it is a stream of events.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.report import Estimate, Report, TestPlan, merged
from innerloop.core.task import TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Option, checked
from innerloop.engine.precision import Precision
from innerloop.metagrad import MetaGradient
from innerloop.readers.base import Reader
from innerloop.registry import Entry, entries, find
from innerloop.runs import Run, RunError

SIZES = ("ways", "shots", "queries", "groups")
SMALLEST = {"ways": 2, "shots": 1, "queries": 1, "groups": 0}


@dataclass(frozen=True)
class Choice:
    """Something chosen by name, with the options that differ from its defaults."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Choice | str | Mapping[str, Any]) -> Choice:
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping):
            return cls(value["name"], dict(value.get("options", {})))
        return value


# What a training does, as it happens.


@dataclass(frozen=True)
class Started:
    """Training starts, or is resumed at a step later than 0."""

    description: str
    notes: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Stepped:
    """One meta-step is done. `expected_steps` is an estimate where time is the limit."""

    step: int
    progress: float
    seconds: float
    metrics: dict[str, float]
    tasks: int
    expected_steps: int | None = None


@dataclass(frozen=True)
class Validated:
    """The learner was validated: `line` is what the log holds, `best` whether its
    weights were saved.
    """

    line: dict[str, Any]
    kept: bool
    description: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True)
class Finished:
    """Training is over; `notes` say what a person should know of how it went."""

    step: int
    seconds: float
    notes: tuple[str, ...]


Event = Started | Stepped | Validated | Saved | Finished


@dataclass(frozen=True)
class Experiment:
    """What is trained, on what, how and for how long. JSON in, JSON out.

    A name stands for defaults; `resolve` fills them in, once, from the learner, the
    tasks and the meta-gradient. A resolved experiment knows its `spec`, so that the
    learner can be built without the data.

    Args:
        learner: a learner of `innerloop list`, and its fields.
        tasks: a task source, and its options.
        meta_gradient: how the meta-parameters move, and its options (default: what
            suits the learner and the tasks).
        likelihood: how outputs are read (default: what suits them).
        training: fields of `MetaTrainConfig` that differ from the learner's defaults.
        steps: meta-steps to train for; or
        minutes: minutes to train for (default: 10).
        seed: seed of everything random.
        precision: "float32", "bf16", or "auto" for bf16 where it is fast and safe.
        device: where to compute.
        init_from: a run folder whose networks to start from.
    """

    learner: Choice
    tasks: Choice
    meta_gradient: Choice | None = None
    likelihood: Choice | None = None
    training: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    precision: str = "auto"
    device: str = "cpu"
    init_from: str | None = None
    reader: Choice | None = None
    spec: TaskSpec | None = None
    data: str | None = None  # a digest of the training classes

    def __post_init__(self) -> None:
        for name in ("learner", "tasks", "meta_gradient", "likelihood", "reader"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Choice.of(value))
        if isinstance(self.spec, Mapping):
            object.__setattr__(self, "spec", TaskSpec(**self.spec))
        if self.steps is not None and self.minutes is not None:
            raise InnerloopError("give steps or minutes, not both")
        checked(MetaTrainConfig, self.training, "training")
        for name, low in (("steps", 1), ("minutes", 0.0)):
            value = getattr(self, name)
            if value is not None and not (low <= value < math.inf and value > 0):
                raise InnerloopError(f"{name} must be positive; got {value}")

    # ------------------------------------------------------------------ JSON

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises InnerloopError for data that is no experiment."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InnerloopError(f"an experiment has no entry {unknown[0]!r}")
        try:
            return cls(**data)
        except (TypeError, KeyError, AttributeError) as error:
            raise InnerloopError(f"this is no experiment: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.from_dict(json.loads(text))

    @classmethod
    def load(cls, run: Run | Path | str) -> Self:
        """The experiment of a run folder. Raises RunError where it cannot be used."""
        folder = run if isinstance(run, Run) else Run(run)
        try:
            experiment = cls.from_dict(folder.experiment())
            find("learner", experiment.learner.name)
            find("tasks", experiment.tasks.name)
        except RunError:
            raise
        except InnerloopError as error:
            raise RunError(f"{folder.folder}/experiment.json: {error}") from error
        return experiment

    # ------------------------------------------------------------------ building

    @cached_property
    def config(self) -> MetaTrainConfig:
        """How the outer loop runs; of a resolved experiment."""
        return MetaTrainConfig(**self.training)

    def resolve(self) -> tuple[Experiment, Setup]:
        """This experiment with every default filled in, and what it is built of.

        Raises InnerloopError for anything that does not exist or does not fit; nothing
        is written.
        """
        entry, source = (
            find("learner", self.learner.name),
            find("tasks", self.tasks.name),
        )
        preset = entry.preset
        chosen = {**(preset.fields if preset else {}), **self.learner.options}
        cls: type[Learner] = entry.factory
        base = entry.name if preset is None else preset.learner
        inherited = Experiment.load(self.init_from).reader if self.init_from else None
        reader = self.reader or inherited
        task_options = self._paths(source, source.check(self.tasks.options))
        wanted = self.meta_gradient or (
            Choice(preset.meta_gradient) if preset and preset.meta_gradient else None
        )
        probe = _tasks(source, "train", _smallest(source, task_options), reader)
        how, rule = _meta_gradient(cls, probe, wanted)
        config = _config(cls, how, rule, self.training)
        preferred = {
            name: value
            for name in SIZES
            if "ways" in source.options
            and name in source.options
            and name not in task_options
            and (value := getattr(config, name)) is not None
        }
        if "groups" in preferred and "ways" in task_options and preferred["groups"]:
            most = max(1, task_options["ways"] // 5)
            preferred["groups"] = min(preferred["groups"], most)
        sizes = {**preferred, **{n: v for n, v in task_options.items() if n in SIZES}}
        feasible = probe.feasible(sizes) if preferred else {}
        task_options |= {n: v for n, v in feasible.items() if n not in task_options}
        shrunk = [
            f"{value} {name} instead of {preferred[name]}"
            for name, value in feasible.items()
            if name in preferred and value < preferred[name]
        ]
        notes = [f"the data allow {' and '.join(shrunk)}"] if shrunk else []
        train = _tasks(source, "train", task_options, reader)
        tasks = train.for_supervised(config.batch) if config.supervised else train
        likelihood = (
            find("likelihood", self.likelihood.name).factory(**self.likelihood.options)
            if self.likelihood
            else rule.likelihood(tasks)
        )
        options = {
            **{n: v for n, v in rule.learner_defaults.items() if n in cls.options()},
            **entry.check(chosen),
        }
        training = {
            **asdict(config),
            **{n: task_options[n] for n in SIZES if n in task_options},
        }
        resolved = replace(
            self,
            learner=Choice(base, options),
            tasks=Choice(source.name, task_options),
            meta_gradient=Choice(
                config.meta_gradient, wanted.options if wanted is not None else {}
            ),
            likelihood=_choice_of("likelihood", likelihood),
            training=training,
            minutes=self.minutes or (None if self.steps else 10.0),
            reader=_reader_choice(train.reader) or reader,
            spec=tasks.spec,
            data=_data_digest(train),
            init_from=str(Path(self.init_from).resolve()) if self.init_from else None,
        )
        return resolved, Setup(resolved, rule, train, tasks, tuple(notes))

    @staticmethod
    def _paths(source: Entry, options: dict[str, Any]) -> dict[str, Any]:
        """The options with absolute paths; required ones are there."""
        for name, option in source.options.items():
            if option.default is MISSING and name not in options:
                text = f", {option.help}" if option.help else ""
                raise InnerloopError(f"{source.name} needs {option.flag}{text}")
        return {
            name: str(Path(value).resolve())
            if isinstance(value, Path)
            or (name in ("root", "file") and isinstance(value, str))
            else value
            for name, value in options.items()
        }

    def build_learner(self) -> Learner:
        """A new learner, as a resolved experiment describes it; needs no data."""
        if self.spec is None:
            return self.resolve()[0].build_learner()
        extra = {}
        if self.likelihood is not None:
            choice = self.likelihood
            extra["likelihood"] = find("likelihood", choice.name).factory(
                **choice.options
            )
        learner = find("learner", self.learner.name).factory.build(
            self.spec, **self.learner.options, **extra
        )
        learner.reader = make_reader(self.reader)
        return learner

    def tasks_of(self, split: str, **options: Any) -> TaskDistribution:
        """A split of the tasks, with `options` replaced."""
        source = find("tasks", self.tasks.name)
        return _tasks(source, split, {**self.tasks.options, **options}, self.reader)

    # ------------------------------------------------------------------ training

    def train(self, out: Run | Path | str, *, resume: bool = False) -> Learner:
        """Train into a run folder to the end; returns the trained learner.

        To watch, save or stop on the way, iterate over `train_events` instead.
        """
        for _ in self.train_events(out, resume=resume):
            pass
        return load(out.folder if isinstance(out, Run) else out)

    def train_events(
        self, out: Run | Path | str, *, resume: bool = False
    ) -> Iterator[Event]:
        """Train into a run folder; yields what happens. Closing the iterator saves a
        checkpoint and stops.

        With `resume`, the run that is there continues; only steps or minutes, and the
        device, may differ from it.

        Raises InnerloopError before anything is written where something does not fit,
        and RunError where the folder cannot be used.
        """
        from innerloop.training import train_events

        return train_events(self, out if isinstance(out, Run) else Run(out), resume)

    def settled_precision(self, learner: Learner) -> Precision:
        """The arithmetic to use on this machine."""
        if self.precision != "auto":
            return self.precision  # pyright: ignore[reportReturnType]
        assert self.spec is not None
        safe = self.spec.is_image and learner.low_precision
        return "bf16" if safe and _fast_bf16(self.device) else "float32"

    # ------------------------------------------------------------------ testing

    def test(
        self,
        learner: Learner,
        plan: TestPlan | None = None,
        *,
        tasks: Choice | str | None = None,
        split: str = "test",
        evaluation: Choice | str | None = None,
        **options: Any,
    ) -> Report:
        """Measure a learner of this experiment.

        Args:
            learner: the trained learner, as `load` returns it.
            plan: number of tasks, seed, steps.
            tasks: another task source to test on (default: the experiment's).
            split: which split of the data.
            evaluation: what to measure (default: what the tasks say, few-shot accuracy
                for most).
            options: options of the task source that differ from training, such as ways
                and shots; where none are given, the settings that papers report.
        """
        plan = plan or TestPlan()
        reports = []
        for labels, distribution in self.test_tasks(
            learner, tasks=tasks, split=split, **options
        ):
            labelled = replace(plan, labels={**labels, **plan.labels})
            if evaluation is None:
                reports.append(distribution.evaluate(learner, labelled))
            else:
                chosen = Choice.of(evaluation)
                measure = find("evaluation", chosen.name).factory(**chosen.options)
                if (reason := measure.supports(learner, distribution)) is not None:
                    raise InnerloopError(f"{chosen.name} cannot be measured: {reason}")
                reports.append(measure(learner, distribution, labelled))
                break
        return merged(reports)

    def test_tasks(
        self,
        learner: Learner,
        *,
        tasks: Choice | str | None = None,
        split: str = "test",
        **options: Any,
    ) -> list[tuple[dict[str, Any], TaskDistribution]]:
        """The task distributions of a test, each with the labels of its table row.

        Raises InnerloopError where the data are too small for every setting.
        """
        assert self.spec is not None
        other = Choice.of(tasks) if tasks is not None else None
        same = other is None or other.name == self.tasks.name
        source = find("tasks", other.name if other else self.tasks.name)
        kept = (
            {
                name: value
                for name, value in self.tasks.options.items()
                if name in source.options and name not in ("groups", "holdout")
            }
            if same
            else {}
        )
        given = source.check({**(other.options if other else {}), **options})
        base = self._paths(source, {**kept, **given})
        fixed = self.spec.y_dim if learner.fixed_ways else None
        probe = _tasks(source, split, _smallest(source, base), self.reader)
        if not self.spec.same_inputs(probe.spec):
            raise InnerloopError(
                f"this {self.learner.name} was trained for {self.spec}, but "
                f"{source.name} has {probe.spec}"
            )
        if fixed is not None and probe.spec.kind == "classes":
            if given.get("ways", fixed) != fixed:
                raise InnerloopError(
                    f"this {self.learner.name} was trained for {fixed} ways and cannot "
                    f"answer for {given['ways']}: train it with --ways {given['ways']}"
                )
        settings = probe.test_settings(fixed)
        usual = [s for s in settings if not set(s) & set(given)] or [
            {**settings[0], **{n: v for n, v in given.items() if n in settings[0]}}
        ]
        found, problems = [], []
        for setting in usual:
            sizes = {"queries": 5} if "queries" in source.options else {}
            wanted = {**base, **sizes, **setting, **given}
            try:
                if "queries" in wanted and "queries" not in given:
                    small = _tasks(source, split, {**wanted, "queries": 1}, self.reader)
                    wanted |= {
                        n: v
                        for n, v in small.feasible(
                            {n: wanted[n] for n in SIZES if n in wanted}
                        ).items()
                        if n == "queries"
                    }
                found.append((setting, _tasks(source, split, wanted, self.reader)))
            except InnerloopError as error:
                problems.append(f"{setting}: {error}")
                if len(usual) == 1:
                    raise
        if not found:
            raise InnerloopError(
                "the data are too small for the usual settings; choose smaller ones "
                f"with --ways, --shots and --queries ({problems[0]})"
            )
        return found

    def record(
        self,
        report: Report,
        measured: TaskDistribution,
        plan: TestPlan,
        evaluation: Choice | None,
        *,
        tasks: str | None = None,
        split: str = "test",
        **options: Any,
    ) -> dict[str, Any]:
        """A report as JSON data, with all that is needed to repeat it, and a name."""
        source = tasks or self.tasks.name
        parts = [
            source.rsplit(":", 1)[-1],
            split,
            evaluation.name if evaluation else "",
        ]
        shown = {**options, **(evaluation.options if evaluation else {})}
        parts += [f"{n}={v}" for n, v in shown.items() if "/" not in str(v)]
        parts += [f"n={plan.n}", f"seed={plan.seed}"]
        return {
            "name": "-".join(part for part in parts if part),
            "learner": self.learner.name,
            "tasks": source,
            "split": split,
            "options": options,
            "evaluation": asdict(evaluation) if evaluation else None,
            "plan": asdict(plan),
            "seen_classes": self.seen_classes(measured),
            **report.as_dict(),
        }

    def seen_classes(self, tasks: TaskDistribution) -> int:
        """How many classes of `tasks` this experiment trains on, by content."""
        keys = tasks.class_keys()
        if not keys:
            return 0
        try:
            return len(keys & self.tasks_of("train").class_keys())
        except (InnerloopError, OSError):  # the training data are not on this machine
            return 0


@dataclass(frozen=True)
class Setup:
    """What a resolved experiment is built of; each part is built once."""

    experiment: Experiment
    meta_gradient: MetaGradient
    source: TaskDistribution
    tasks: TaskDistribution
    notes: tuple[str, ...] = ()

    @cached_property
    def learner(self) -> Learner:
        """The learner, newly initialized from the experiment's seed."""
        experiment = self.experiment
        torch.manual_seed(experiment.seed)
        learner = experiment.build_learner().to(check_device(experiment.device))
        self.meta_gradient.check(learner, self.tasks)
        if experiment.init_from is not None:
            load_networks(learner, experiment.init_from)
        return learner

    @cached_property
    def validation(self) -> TaskDistribution | None:
        """Tasks to validate on, at most 20-way, or None where the data are too few."""
        options = self.experiment.tasks.options
        source = find("tasks", self.experiment.tasks.name)
        fixed = self.learner.fixed_ways
        try:
            probe = _tasks(
                source, "val", _smallest(source, options), self.experiment.reader
            )
            wanted = {n: options[n] for n in SIZES if n in options}
            if "ways" in wanted:
                ways = wanted["ways"] if fixed else min(wanted["ways"], 20)
                wanted |= {"ways": ways, "queries": 5}
            sizes = probe.feasible(wanted)
            if fixed and sizes.get("ways") != wanted.get("ways"):
                return None
            return self.experiment.tasks_of("val", **sizes)
        except InnerloopError:
            return None


# ---------------------------------------------------------------------- helpers


def _tasks(
    source: Entry, split: str, options: Mapping[str, Any], reader: Choice | None
) -> TaskDistribution:
    takes_reader = "reader" in _parameters(source)
    extra = {"reader": make_reader(reader)} if takes_reader and reader else {}
    return source.factory(split, **options, **extra)


def _parameters(source: Entry) -> dict[str, Option]:
    from innerloop.engine.options import options

    return options(source.factory)


def _smallest(source: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the smallest sizes where none are set."""
    sizes = {n: v for n, v in SMALLEST.items() if n in source.options}
    return {**sizes, **options}


def _meta_gradient(
    learner: type[Learner], tasks: TaskDistribution, wanted: Choice | None
) -> tuple[str, MetaGradient]:
    """Name and instance of the meta-gradient that is wanted, or of the one that suits
    the learner and the tasks.
    """
    known = entries("meta-gradient")
    suiting = [
        n for n, e in known.items() if e.factory.supports(learner, tasks) is None
    ]
    if wanted is not None:
        entry = find("meta-gradient", wanted.name)
        reason = entry.factory.supports(learner, tasks)
        if reason is not None:
            raise InnerloopTypeError(
                f"{entry.name} cannot train {learner.__name__} on these tasks: {reason}; "
                f"choose one of {', '.join(suiting)}"
            )
        return entry.name, entry.factory(**entry.check(wanted.options))
    usual = learner.defaults.meta_gradient
    if usual not in suiting and not suiting:
        reason = known[usual].factory.supports(learner, tasks)
        raise InnerloopTypeError(
            f"no meta-gradient can train {learner.__name__} on these tasks: {reason}"
        )
    name = usual if usual in suiting else suiting[0]
    return name, known[name].factory()


def _config(
    learner: type[Learner], name: str, rule: MetaGradient, changed: Mapping[str, Any]
) -> MetaTrainConfig:
    own = learner.defaults.meta_gradient == name or rule.defaults is None
    usual = learner.defaults if own else rule.defaults
    assert usual is not None
    if not rule.uses_optimizer:
        ours = ("optimizer", "lr", "weight_decay", "warmup", "decay", "clip")
        wrong = next((key for key in ours if key in changed), None)
        if wrong is not None:
            raise InnerloopError(
                f"{name} moves the parameters without an optimizer, so "
                f"--{wrong.replace('_', '-')} does not apply"
            )
    return replace(usual, **{**changed, "meta_gradient": name})


def _choice_of(kind: Any, value: Any) -> Choice | None:
    """The entry and options that a dataclass instance was made of."""
    if value is None:
        return None
    for name, entry in entries(kind).items():
        if entry.factory is type(value):
            return Choice(name, asdict(value))
    raise InnerloopError(f"{type(value).__name__} is not in the registry of {kind}s")


def _reader_choice(reader: Reader | None) -> Choice | None:
    return None if reader is None else Choice(reader.kind, reader.settings())


def make_reader(choice: Choice | None) -> Reader | None:
    """A reader from its settings. Raises RunError for settings that are none."""
    if choice is None:
        return None
    try:
        return find("reader", choice.name).factory.from_settings(choice.options)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RunError(f"the reader's settings cannot be used: {error}") from error


def _data_digest(tasks: TaskDistribution) -> str | None:
    keys = sorted(tasks.class_keys())
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16] if keys else None


def check_device(name: str) -> torch.device:
    """The device of that name. Raises InnerloopError where this machine has none."""
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise InnerloopError("the device meta holds no data: choose cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InnerloopError(f"there is no device {name!r} here: {reason}") from error
    return device


def _fast_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return (
        device == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def to_device(tree: Any, device: str) -> Any:
    """A pytree with its tensors on a device."""
    return tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, tree)


def load_networks(learner: Learner, run: Path | str) -> list[str]:
    """Copy the networks of another run; returns the names of those that were copied.

    A network is copied whole. One that can be chosen by name, such as an encoder, must
    fit; others, such as an output layer for another number of ways, stay new where they
    do not. Networks inside a field `net` match those that stand alone.

    Raises RunError where a network does not fit, or none is shared.
    """
    stored = _by_network(load(run).state_dict())
    own = _by_network(learner.state_dict())
    copied: dict[str, Tensor] = {}
    names = []
    for network in sorted(own.keys() & stored.keys()):
        ours, theirs = own[network], stored[network]
        wrong = [
            n for n in sorted({*ours, *theirs}) if _shape(ours, n) != _shape(theirs, n)
        ]
        if not wrong:
            copied |= theirs
            names.append(network)
        elif network in learner.named_networks:
            raise RunError(
                f"the network {network} of {run} does not fit: {wrong[0]} has shape "
                f"{_shape(theirs, wrong[0])} there and {_shape(ours, wrong[0])} here"
            )
    if not names:
        raise RunError(
            f"{run} shares no network with {type(learner).__name__}: it has "
            f"{', '.join(sorted(stored)) or 'none'}"
        )
    state = learner.state_dict()
    fitting = {n: copied[s] for n in state if (s := n.removeprefix("net.")) in copied}
    learner.load_state_dict({**state, **fitting})
    return names


def _by_network(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the network that holds them; a learner's own parameters are none."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        short = name.removeprefix("net.")
        if "." in short:
            found.setdefault(short.split(".")[0], {})[short] = tensor
    return found


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def load(run: Path | str) -> Learner:
    """The trained learner of a run folder, in evaluation mode; its `reader` is the
    run's.

    Raises RunError where the folder is missing, unfinished, damaged or foreign.
    """
    folder = Run(run)
    learner = Experiment.load(folder).build_learner()
    weights = folder.load_weights()
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(
            f"{folder.folder}/weights.safetensors does not fit experiment.json: {reason}"
        ) from error
    return learner.eval()


def estimate_of(report: Report) -> Estimate:
    """The score of a report: the first measurement of its first row."""
    first = report.tables[0].rows[0].values[0]
    return Estimate(first.mean, first.interval)
