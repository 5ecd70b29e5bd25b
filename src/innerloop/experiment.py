"""An experiment is a value: what is trained, on what, how and for how long.

Flags, web forms, studies and workers all build the same `Experiment`; it is JSON in and
JSON out, and training it is a stream of events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch

from innerloop.assembly import (
    SIZES,
    Choice,
    absolute_paths,
    build_tasks,
    check_device,
    check_reader_options,
    check_required,
    choice_of,
    choose_meta_gradient,
    copy_networks,
    data_digest,
    encoded_choice,
    fast_bf16,
    make_reader,
    preferred_sizes,
    probed,
    reader_choice,
    reader_fits,
    smallest,
    training_config,
)
from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution, TaskSpec
from innerloop.encoders import is_folder, parts_of, resolved
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Positive, Seed, check_options, checked
from innerloop.engine.precision import Precision
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.engine.user_file import absolute, is_in_file
from innerloop.evaluation.few_shot import evaluate
from innerloop.events import Event
from innerloop.measurements import Report, TestPlan, merged
from innerloop.metagrad import MetaGradient
from innerloop.registry import find
from innerloop.runs import Run, RunError, file_name
from innerloop.signature import signature


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
        device: where to compute (default: the CPU, or where the run that is resumed
            did).
        init_from: a run folder whose networks to start from.
    """

    learner: Choice
    tasks: Choice
    meta_gradient: Choice | None = None
    likelihood: Choice | None = None
    training: dict[str, Any] = field(default_factory=dict)
    steps: Count | None = None
    minutes: Positive | None = None
    seed: Seed = 0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    device: str | None = None
    init_from: str | None = None
    reader: Choice | None = None
    spec: TaskSpec | None = None
    data: str | None = None  # a digest of the training classes

    def __post_init__(self) -> None:
        for name in ("learner", "tasks", "meta_gradient", "likelihood", "reader"):
            value = vars(self)[name]
            if value is not None:
                object.__setattr__(self, name, Choice.of(value))
        if self.steps is not None and self.minutes is not None:
            raise InnerloopError("give steps or minutes, not both")
        check_options(self)
        checked(MetaTrainConfig, self.training, "training")

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
            spec = TaskSpec(**data["spec"]) if data.get("spec") else None
            return cls(**{**data, "spec": spec})
        except InnerloopError:
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InnerloopError(f"this is no experiment: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.from_dict(json.loads(text))

    @classmethod
    def load(cls, run: Run | Path | str) -> Self:
        """The experiment of a run folder. Raises RunError where it cannot be used."""
        folder = Run.of(run)
        try:
            experiment = cls.from_dict(folder.experiment())
            for kind in ("learner", "tasks", "meta-gradient", "likelihood", "reader"):
                choice: Choice | None = vars(experiment)[kind.replace("-", "_")]
                if choice is not None:
                    entry = find(kind, choice.name)
                    if kind != "reader":  # whose settings are checked as it is made
                        entry.check(choice.options)
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

    @property
    def where(self) -> str:
        """Where to compute."""
        return self.device or "cpu"

    def expanded(self) -> Experiment:
        """This experiment with the names of the registry, the options of presets and
        absolute paths; nothing else is filled in.

        Raises InnerloopError for a name or an option that does not exist.
        """
        entry, source = (
            find("learner", self.learner.name),
            find("tasks", self.tasks.name),
        )
        learner, how = self.learner, self.meta_gradient
        if (preset := entry.preset) is not None:
            learner = Choice(preset.learner, {**preset.fields, **learner.options})
            if how is None and preset.meta_gradient is not None:
                how = Choice(preset.meta_gradient)
        else:
            learner = Choice(entry.name, learner.options)
        own = {n: absolute(v) for n, v in learner.options.items() if is_in_file(v)}
        own |= {
            n: resolved(v)
            for n, v in learner.options.items()
            if n in entry.factory.named_networks and any(map(is_folder, parts_of(v)))
        }
        learner = replace(learner, options={**learner.options, **own})
        options = absolute_paths(source, source.check(self.tasks.options))
        return replace(
            self,
            learner=learner,
            tasks=Choice(source.name, options),
            meta_gradient=how
            and Choice(find("meta-gradient", how.name).name, how.options),
            init_from=str(Path(self.init_from).resolve()) if self.init_from else None,
        )

    def resolve(self) -> tuple[Experiment, Setup]:
        """This experiment with every default filled in, and what it is built of.

        Raises InnerloopError for anything that does not exist or does not fit; nothing
        is written.
        """
        chosen = self.expanded()
        entry, source = (
            find("learner", chosen.learner.name),
            find("tasks", chosen.tasks.name),
        )
        cls: type[Learner] = entry.factory
        inherited = Experiment.load(self.init_from).reader if self.init_from else None
        reader = self.reader or inherited
        if (named := encoded_choice(cls, chosen)) is not None:
            if inherited is not None and inherited != named:
                raise InnerloopError(
                    f"the run {self.init_from} reads its inputs in another way than "
                    f"the encoder {named.options['encoder']}"
                )
            reader = named
        task_options, wanted = dict(chosen.tasks.options), chosen.meta_gradient
        check_required(source, task_options)
        if inherited is not None:
            check_reader_options(inherited, task_options, f"the run {self.init_from}")
        probe = build_tasks(source, "train", smallest(source, task_options), reader)
        how, rule = choose_meta_gradient(cls, probe, wanted)
        config = training_config(cls, how, rule, self.training)
        preferred = {
            name: value
            for name, value in preferred_sizes(source, config).items()
            if name not in task_options
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
        train = build_tasks(source, "train", task_options, reader)
        notes += [train.note] if train.note else []
        tasks = train.for_supervised(config.batch) if config.supervised else train
        likelihood = (
            find("likelihood", self.likelihood.name).factory(**self.likelihood.options)
            if self.likelihood
            else rule.likelihood(tasks)
        )
        options = {
            **{n: v for n, v in rule.learner_defaults.items() if n in cls.options()},
            **entry.check(chosen.learner.options),
        }
        training = {
            **asdict(config),
            **{n: task_options[n] for n in SIZES if n in task_options},
        }
        kept = reader_choice(train.reader) or self.reader
        if kept is None and inherited is not None:
            kept = (
                inherited if reader_fits(make_reader(inherited), tasks.spec) else None
            )
        resolved = replace(
            self,
            learner=Choice(entry.name, options),
            tasks=Choice(source.name, task_options),
            meta_gradient=Choice(
                config.meta_gradient, wanted.options if wanted is not None else {}
            ),
            likelihood=choice_of("likelihood", likelihood),
            training=training,
            minutes=self.minutes or (None if self.steps else 10.0),
            device=self.where,
            reader=kept,
            spec=tasks.spec,
            data=data_digest(train),
            init_from=chosen.init_from,
        )
        return resolved, Setup(resolved, rule, train, tasks, tuple(notes))

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
        learner.reader = reader = make_reader(self.reader)
        if reader is not None and not reader_fits(reader, self.spec):
            raise RunError(
                f"the reader does not fit the networks: it reads {reader.what}s of "
                f"shape {reader.x_shape} with {reader.vocabulary} tokens, but they "
                f"need {self.spec} with {self.spec.vocabulary} tokens"
            )
        return learner

    def tasks_of(self, split: str, **options: Any) -> TaskDistribution:
        """A split of the tasks, with `options` replaced."""
        source = find("tasks", self.tasks.name)
        return build_tasks(
            source, split, {**self.tasks.options, **options}, self.reader
        )

    # ------------------------------------------------------------------ training

    def train(
        self, out: Run | Path | str, *, resume: bool = False, ray: bool = False
    ) -> Learner:
        """Train into a run folder to the end; returns the trained learner.

        To watch, save or stop on the way, iterate over `train_events` instead.
        """
        for _ in self.train_events(out, resume=resume, ray=ray):
            pass
        return load(Run.of(out).folder)

    def train_events(
        self, out: Run | Path | str, *, resume: bool = False, ray: bool = False
    ) -> Iterator[Event]:
        """Train into a run folder; yields what happens. Closing the iterator saves a
        checkpoint and stops.

        With `resume`, the run that is there continues; only steps or minutes, and the
        device, may differ from it. With `ray`, the members of a population are
        evaluated by tasks on Ray, see `innerloop.metagrad.on_ray`.

        Raises InnerloopError before anything is written where something does not fit,
        and RunError where the folder cannot be used.
        """
        from innerloop.training import train_events

        return train_events(self, Run.of(out), resume, ray)

    def settled_precision(self, learner: Learner) -> Precision:
        """The arithmetic to use on this machine."""
        if self.precision != "auto":
            return self.precision
        assert self.spec is not None
        safe = self.spec.is_image and learner.low_precision
        return "bf16" if safe and fast_bf16(self.where) else "float32"

    # ------------------------------------------------------------------ testing

    def test(
        self,
        learner: Learner,
        plan: TestPlan | None = None,
        *,
        tasks: Choice | str | None = None,
        split: str = "test",
        evaluation: Choice | str | None = None,
        processes: Count | None = None,
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
            processes: how many processes share the tasks, each with one thread; the
                measurements are the same for any number, to the last bit. What the
                clock measures, one process measures alone. None for one process with
                all threads.
            options: options of the task source that differ from training, such as ways
                and shots; where none are given, the settings that papers report.
        """
        plan = plan or TestPlan()
        if processes is not None:
            from innerloop.sharded import shared_test

            checked(Experiment.test, {"processes": processes}, "a test")
            chosen = {"tasks": tasks, "evaluation": evaluation}
            arguments = {
                **{k: v and asdict(Choice.of(v)) for k, v in chosen.items()},
                "split": split,
            }
            described = {**arguments, "plan": asdict(plan), "options": options}
            with shared_test(self, learner, described, processes):
                return self.test(learner, plan, **arguments, **options)
        reports = []
        source = find("tasks", Choice.of(tasks or self.tasks).name)
        for labels, distribution, used in self.test_tasks(
            learner, tasks=tasks, split=split, **options
        ):
            labeled = replace(plan, labels={**labels, **plan.labels})
            if evaluation is None:
                special = distribution.evaluate(learner, labeled)
                report = special or evaluate(learner, distribution, labeled)
            else:
                chosen = Choice.of(evaluation)
                measure = find("evaluation", chosen.name).factory(**chosen.options)
                if (reason := measure.supports(learner, distribution)) is not None:
                    raise InnerloopError(f"{chosen.name} cannot be measured: {reason}")
                measure.prepare(load)
                report = measure(learner, distribution, labeled)
            sign = partial(signature, source, split, used, distribution, plan)
            reports.append(report.signed(sign))
            if evaluation is not None:
                break
        return merged(reports)

    def test_tasks(
        self,
        learner: Learner,
        *,
        tasks: Choice | str | None = None,
        split: str = "test",
        **options: Any,
    ) -> list[TestSetting]:
        """The settings of a test.

        Raises InnerloopError where the data are too small for every setting.
        """
        if self.spec is None:
            resolved = self.resolve()[0]
            return resolved.test_tasks(learner, tasks=tasks, split=split, **options)
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
        base = absolute_paths(source, {**kept, **given})
        check_required(source, base)
        fixed = self.spec.y_dim if learner.fixed_ways else None
        smaller = {**probed(source, base), **{n: base[n] for n in given}}
        probe = build_tasks(source, split, smaller, self.reader)
        spec = self.spec
        if learner.any_columns:
            spec = replace(spec, x_shape=probe.spec.x_shape)
        if not spec.same_inputs(probe.spec):
            raise InnerloopError(
                f"this {self.learner.name} was trained for {self.spec}, but "
                f"{source.name} has {probe.spec}"
            )
        ways = given.get("ways", fixed)
        if fixed is not None and probe.spec.kind == "classes" and ways != fixed:
            raise InnerloopError(
                f"this {self.learner.name} was trained for {fixed} ways and cannot "
                f"predict {ways}: train it with --ways {ways}"
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
                    small = build_tasks(
                        source, split, {**wanted, "queries": 1}, self.reader
                    )
                    wanted |= {
                        n: v
                        for n, v in small.feasible(
                            {n: wanted[n] for n in SIZES if n in wanted}
                        ).items()
                        if n == "queries"
                    }
                built = build_tasks(source, split, wanted, self.reader)
                found.append(TestSetting(setting, built, wanted))
            except InnerloopError as error:
                problems.append(f"{setting}: {error}")
                if len(usual) == 1:
                    raise
        if not found:
            raise InnerloopError(
                "the data are too small for the default settings; choose smaller ones "
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
        parts += [f"{n}={v}" for n, v in shown.items()]
        parts += [f"n={plan.n}", f"seed={plan.seed}"]
        return {
            "name": file_name("-".join(part for part in parts if part)),
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


class TestSetting(NamedTuple):
    """One setting of a test.

    Args:
        labels: of its table row, such as ways and shots.
        tasks: what to test on.
        options: of the task source, with which they were built.
    """

    __test__ = False  # not a test case, despite its name

    labels: dict[str, Any]
    tasks: TaskDistribution
    options: dict[str, Any]


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
        learner = experiment.build_learner().to(check_device(experiment.where))
        self.meta_gradient.check(learner, self.tasks)
        if experiment.init_from is not None:
            run = experiment.init_from
            copied = copy_networks(learner, load(run), run)
            rate = experiment.config.pretrained_lr
            if rate is not None:
                for name, network in learner.named_modules():
                    if name.removeprefix("net.") in copied:
                        network.pretrained = True  # pyright: ignore[reportArgumentType]
                        network.requires_grad_(rate > 0)
        return learner

    @property
    def validation(self) -> TaskDistribution | None:
        """Tasks to validate on, at most 20-way, or None where the data are too few."""
        return self._validation[0]

    @property
    def no_validation(self) -> str:
        """Why there are no tasks to validate on, or an empty string."""
        return self._validation[1]

    @cached_property
    def _validation(self) -> tuple[TaskDistribution | None, str]:
        options = self.experiment.tasks.options
        source = find("tasks", self.experiment.tasks.name)
        fixed = self.learner.fixed_ways
        try:
            probe = build_tasks(
                source, "val", probed(source, options), self.experiment.reader
            )
            wanted = {n: options[n] for n in SIZES if n in options}
            if "ways" in wanted:
                # supervised training has more ways than the tasks
                ways = self.tasks.spec.y_dim if fixed else min(wanted["ways"], 20)
                wanted |= {"ways": ways, "queries": 5}
            sizes = probe.feasible(wanted)
            if fixed and sizes.get("ways") != wanted.get("ways"):
                return None, (
                    f"the validation split has {sizes['ways']} usable classes, and "
                    f"the learner has {wanted['ways']} ways"
                )
            return self.experiment.tasks_of("val", **sizes), ""
        except InnerloopError as error:
            return None, str(error)


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
            f"{folder.folder}/weights.safetensors does not fit experiment.json: "
            f"{reason}"
        ) from error
    return learner.eval()
