"""`innerloop train`."""

from __future__ import annotations

import argparse
import inspect
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.cli.fields import check_device, find_learner, given_fields
from innerloop.cli.outer import OPTIONS, outer, outer_options, stepping
from innerloop.core.descent import Descent
from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.meta_test import Estimate, meta_test
from innerloop.core.metagrad import META_GRADIENTS
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.rl2 import RL2
from innerloop.metagrad import STRATEGIES, Strategy
from innerloop.metagrad.meta_train import (
    build_optimizer,
    calibrate,
    meta_train,
    warmup_cosine,
)
from innerloop.rl import (
    A2C,
    ACTING,
    PLAYED,
    Environment,
    MetaPolicyGradient,
    PolicyGradient,
    play_test,
)
from innerloop.rl.evaluation import unseen as seeded
from innerloop.rl.policy import Policy
from innerloop.runs import (
    ALL_TASKS,
    Run,
    RunError,
    Settings,
    build_tasks,
    inherit,
    reader,
    seen_classes,
    versions,
)
from innerloop.tasks import Episodes, Preprocess
from innerloop.tasks.arrays import GroupedRows
from innerloop.tasks.omniglot import PREPROCESS
from innerloop.tasks.pools import Pools
from innerloop.tasks.text import Cloze

TASK_OPTIONS = (
    "ways",
    "shots",
    "queries",
    "length",
    "repeats",
    "kernel",
    "of",
    "groups",
    "protocol",
    "holdout",
    "root",
    "file",
    "arms",
    "pulls",
    "rewards",
    "episodes",
    "horizon",
    "asked",
)
REPORTS = 10  # validations in a training
VALIDATION_TASKS, VALIDATION_TRIALS = 50, 500
SAVE_EVERY = 60.0  # seconds between checkpoints


def run(options: argparse.Namespace) -> None:
    console = Console()
    folder = Run(options.out)
    if options.resume:
        settings = folder.settings()
        asked = find_learner(options.learner)
        if (
            asked is not find_learner(settings.learner)
            or options.tasks != settings.tasks
        ):
            raise RunError(
                f"{options.out} is a run of {settings.learner} on {settings.tasks}, not of {options.learner} on {options.tasks}"
            )
        refuse_other_flags(options, settings)
        state = folder.load_checkpoint() if folder.begun else None
        if options.steps or options.minutes:
            settings = replace(settings, steps=options.steps, minutes=options.minutes)
        settings = replace(
            settings, device=str(check_device(options.device or settings.device))
        )
        folder.write_settings(settings)
        console.print(f"resuming {options.out} at step {state['step'] if state else 0}")
    else:
        if folder.exists:
            raise RunError(
                f"{options.out} holds a run already: add --resume to go on with it, or choose another --out"
            )
        settings = settings_from(options)
        state = None
    train(folder, settings, state, console)


def refuse_other_flags(options: argparse.Namespace, settings: Settings) -> None:
    """Raises RunError for a flag that says other than what the run was begun with: only
    its length and device may change.
    """
    begun = {
        **settings.defaults,
        **settings.task_options,
        "seed": settings.seed,
        "precision": settings.precision,
        "source": settings.source,
    }
    begun |= settings.outer
    begun |= {f"field_{name}": value for name, value in settings.fields.items()}
    if "preprocess" in settings.task_options:
        read_as = settings.task_options["preprocess"]
        begun |= {
            "size": read_as["size"][0],
            "channels": read_as["channels"],
            "normalize_strokes": read_as["normalize_strokes"],
        }
    begun |= {"estimator": (settings.policy or {}).get("estimator")}
    unsaid: dict[str, Any] = {"seed": 0, "precision": "auto"}
    for name, value in vars(options).items():
        about = (
            name in begun
            or name.startswith("field_")
            or name
            in (
                *TASK_OPTIONS,
                *OPTIONS,
                "size",
                "channels",
                "normalize_strokes",
                "source",
            )
        )
        if name in ("root", "file", "source") and value is not None:
            value = str(Path(value).resolve())
        if about and value not in (None, unsaid.get(name), begun.get(name)):
            raise RunError(
                f"--{name.removeprefix('field_').replace('_', '-')} {value} cannot change on --resume: the run has {begun.get(name)}"
            )


def settings_from(options: argparse.Namespace) -> Settings:
    """What the command line asks for, completed by the learner's recipe."""
    learner = find_learner(options.learner)
    if options.tasks not in ALL_TASKS:
        raise InnerloopError(
            f"there are no tasks {options.tasks!r}: choose one of {', '.join(ALL_TASKS)}"
        )
    given = {
        f.name: getattr(options, f.name)
        for f in fields(MetaTrainConfig)
        if getattr(options, f.name, None) is not None
    }
    played = options.tasks in PLAYED
    by_playing = (
        MetaPolicyGradient.defaults if issubclass(learner, Descent) else RL2.defaults
    )
    defaults = (
        by_playing
        if played and learner.defaults.meta_gradient not in (*ACTING, *STRATEGIES)
        else learner.defaults
    )
    defaults = stepping(replace(recipe, **given))
    fitting = {**(ACTING if played else META_GRADIENTS), **STRATEGIES}
    if recipe.meta_gradient not in fitting:
        is_played = f"tasks that are played ({', '.join(PLAYED)})"
        what = (
            f"{options.tasks} is one of the {is_played}"
            if played
            else f"{options.tasks} is none of the {is_played}"
        )
        how = "cannot play" if played else "learns by playing"
        raise InnerloopError(
            f"{recipe.meta_gradient} {how}, and {what}: give a --meta-gradient of {', '.join(fitting)}"
        )
    told = outer_options(options, recipe.meta_gradient)
    accepted = inspect.signature(ALL_TASKS[options.tasks]).parameters
    explicit = {name: getattr(options, name) for name in TASK_OPTIONS}
    explicit = {name: value for name, value in explicit.items() if value is not None}
    for name in explicit:
        if name not in accepted:
            raise InnerloopError(f"{options.tasks} has no option --{name}")
    if options.tasks == "folder" and "root" not in explicit:
        raise InnerloopError("folder needs --root, a folder of class folders")
    if options.tasks in ("arrays", "text") and "file" not in explicit:
        raise InnerloopError(
            f"{options.tasks} needs --file, {'an .npz or .csv file' if options.tasks == 'arrays' else 'a .csv file with the columns text and label'}"
        )
    for name in {"root", "file"} & set(explicit):
        explicit[name] = (
            str(Path(explicit[name]).resolve())
            if Path(explicit[name]).exists()
            else explicit[name]
        )
    task_options: dict[str, Any] = dict(explicit)
    preprocess = preprocess_from(options)
    if preprocess and "preprocess" in accepted:
        task_options["preprocess"] = preprocess
    if "ways" not in accepted:
        task_options = {
            name: told.default
            for name, told in accepted.items()
            if told.default is not None and name != "part"
        } | task_options
    else:
        whole = build_tasks(
            options.tasks,
            "train",
            {**task_options, "ways": 2, "shots": 1, "queries": 1},
        )
        defaults = {
            name: getattr(recipe, name)
            for name in ("ways", "shots", "queries", "groups")
            if name in accepted
        }
        if isinstance(whole, Episodes) and not {"ways", "queries"} & set(explicit):
            fitting = whole.largest(recipe.ways, recipe.shots, recipe.queries)
            defaults |= {"ways": fitting.ways, "queries": fitting.queries}
        if "ways" in explicit and "groups" in defaults:
            defaults["groups"] = (
                min(defaults["groups"], max(1, explicit["ways"] // 5))
                if defaults["groups"]
                else 0
            )
        task_options = {**defaults, **task_options}
        # rows grouped into regression tasks
        if not isinstance(whole, Episodes) and not hasattr(whole, "labelled"):
            rows = {"shots": 10, "queries": 10, **explicit}
            task_options = {
                name: value
                for name, value in task_options.items()
                if name not in ("ways", "groups")
            } | rows
    # what its networks know
    inherited = (
        reader(Run(options.source).settings().reads)
        if options.source and "reader" in accepted
        else None
    )
    tasks = training_tasks(options.tasks, {**task_options, "reader": inherited}, recipe)
    bank = getattr(tasks, "bank", None) or getattr(
        getattr(tasks, "episodes", None), "bank", None
    )
    settings = Settings(
        learner=learner.__name__.lower(),
        fields=played_with(learner, recipe) | given_fields(options),
        spec=asdict(tasks.spec),
        tasks=options.tasks,
        task_options=task_options,
        recipe=asdict(recipe),
        outer=told,
        steps=options.steps,
        minutes=options.minutes or (None if options.steps else 10.0),
        seed=options.seed,
        precision=options.precision,
        device=options.device or "cpu",
        preprocess=preprocess,
        reads=read_by.settings()
        if (read_by := getattr(bank or tasks, "reader", None))
        else None,
        split=bank.fingerprint() if bank else None,
        source=str(Path(options.source).resolve()) if options.source else None,
        policy={"name": type(read).__name__, **asdict(read)}
        if (read := policy_of(tasks, recipe, options.estimator))
        else None,
        versions=versions(),
    )
    if settings.precision == "auto":
        settings.precision = (
            "bf16"
            if tasks.spec.is_image
            and not issubclass(learner, Descent)
            and _fast_bf16(settings.device)
            else "float32"
        )
    return settings


def policy_of(
    tasks: TaskDistribution, recipe: MetaTrainConfig, estimator: str | None
) -> Policy | None:
    """How the outputs of who plays are read. Raises ValueError for an estimator where
    none is asked for.
    """
    policy = None
    if isinstance(tasks, Environment):
        policy = (
            ACTING[recipe.meta_gradient].policy(tasks)
            if recipe.meta_gradient in ACTING
            else Policy(tasks.discrete)
        )
    if estimator and not isinstance(policy, PolicyGradient):
        raise InnerloopError(
            "--estimator is of the meta-gradient policy-gradient, on tasks that are played"
        )
    return replace(policy, estimator=estimator) if estimator and policy else policy  # pyright: ignore[reportCallIssue]


def played_with(learner: type[Learner], recipe: MetaTrainConfig) -> dict[str, Any]:
    """The learner's fields as its meta-gradient would have them, where they are not
    set.
    """
    usual = (
        MetaPolicyGradient.learner_fields
        if ACTING.get(recipe.meta_gradient) is MetaPolicyGradient
        else {}
    )
    return {
        entry.name: usual[entry.name]
        for entry in learner.fields()
        if entry.name in usual
    }


def preprocess_from(options: argparse.Namespace) -> dict[str, Any] | None:
    """How images are read, for tasks that are images."""
    asked = {
        name: getattr(options, name)
        for name in ("size", "channels", "normalize_strokes")
        if getattr(options, name) is not None
    }
    if asked and options.tasks not in ("omniglot", "folder", "pools"):
        raise InnerloopError(
            f"{options.tasks} has no option --{next(iter(asked)).replace('_', '-')}"
        )
    if options.tasks not in ("omniglot", "strokes", "folder", "pools"):
        return None
    if "size" in asked:
        asked["size"] = (asked["size"], asked["size"])
    own = options.tasks == "folder" or options.root
    usual = (
        Preprocess(
            channels=1, size=(28, 28), dark_background=bool(options.normalize_strokes)
        )
        if own
        else PREPROCESS
    )
    return replace(usual, **asked).settings()


def _fast_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return (
        device == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def training_tasks(
    name: str, options: dict[str, Any], recipe: MetaTrainConfig
) -> TaskDistribution:
    """The tasks to train on: episodes, or all classes at once where the recipe says
    so.
    """
    tasks = build_tasks(name, "train", options)
    if not recipe.supervised:
        if isinstance(tasks, Cloze):
            raise InnerloopError(
                f"the labels of {name} never change, and this learner learns new ones in every task: take finetune or centrelossnet"
            )
        return tasks
    if not hasattr(tasks, "labelled"):
        raise InnerloopError(
            f"this learner trains on all classes at once, and {name} has no classes"
        )
    return tasks.labelled(recipe.batch)  # pyright: ignore[reportAttributeAccessIssue]


def validation_tasks(settings: Settings) -> tuple[TaskDistribution | None, bool]:
    """The tasks to validate on, at most 20-way, and whether their classes are kept out
    of training; None where there are too few classes.
    """
    try:
        small = {"ways": 2, "queries": 1} if "ways" in settings.task_options else {}
        tasks = settings.distribution("val", **small)
    except ValueError:
        return None, False
    options = settings.task_options
    if isinstance(tasks, Episodes):
        try:
            ways = options["ways"] if fixed_ways(settings) else min(options["ways"], 20)
            tasks = (
                tasks.reshaped(ways, options["shots"], 5)
                if fixed_ways(settings)
                else tasks.largest(ways, options["shots"], 5)
            )
        except ValueError:
            return None, False
    return tasks, not seen_classes(settings, tasks)


def described(settings: Settings, tasks: TaskDistribution) -> str:
    """What will be trained on, and what the data does not allow."""
    episodes = (
        tasks if isinstance(tasks, Episodes) else getattr(tasks, "episodes", None)
    )
    told, recipe = settings.task_options, settings.defaults
    if isinstance(tasks, GroupedRows):
        left_out = (
            f"; {tasks.left_out} with fewer than {tasks.shots + tasks.queries} rows are left out"
            if tasks.left_out
            else ""
        )
        return f"{settings.learner} on {len(tasks.counts)} training tasks of {settings.tasks}{left_out}"
    if isinstance(tasks, Pools):
        of = f"{tasks.size} examples of {tasks.fewest} to {tasks.most} classes"
        return f"{settings.learner} on {len(tasks.bank)} training classes of {told.get('root') or told['of']}: {settings.tasks} of {of}"
    if not isinstance(episodes, Episodes):
        return f"{settings.learner} on {settings.tasks}"
    what = f"{settings.learner} on {len(episodes.bank)} training classes of {settings.tasks}"
    if not recipe["supervised"]:
        what += f": {told['ways']}-way {told['shots']}-shot tasks with {told['queries']} queries a class"
        if told["ways"] < recipe["ways"] or told["queries"] < recipe["queries"]:
            what += f" (there are too few for the usual {recipe['ways']} ways and {recipe['queries']} queries)"
    if episodes.left_out:
        what += f". {episodes.left_out} classes with fewer than {episodes.shots + episodes.queries} examples are left out"
    if fixed_ways(settings):
        try:
            settings.distribution("test", queries=1)
        except ValueError:
            what += f". The test part is too small for {told['ways']} ways: this run can adapt, but not be tested on it"
    return what


def fixed_ways(settings: Settings) -> bool:
    """Whether the learner answers only for the number of ways that it was built for."""
    return not find_learner(settings.learner).any_ways(settings.fields)


def train(
    folder: Run, settings: Settings, state: dict[str, Any] | None, console: Console
) -> Learner:
    """Meta-train into a run folder, from the beginning or from a checkpoint."""
    torch.manual_seed(settings.seed)
    defaults = MetaTrainConfig(**settings.defaults)
    learner = settings.build().to(check_device(settings.device))
    tasks = training_tasks(
        settings.tasks,
        {**settings.task_options, "reader": reader(settings.reads)},
        recipe,
    )
    inherited = (
        inherit(learner, settings.source) if settings.source and state is None else []
    )
    generator, noise = (
        torch.Generator().manual_seed(settings.seed),
        torch.Generator().manual_seed(settings.seed + 1),
    )
    meta_gradient = outer(learner, recipe.meta_gradient, settings.outer, noise, tasks)
    if state is None:
        folder.create(settings)
        console.print(described(settings, tasks), soft_wrap=True, highlight=False)
        if inherited:
            parts = sorted(
                {name.removeprefix("net.").split(".")[0] for name in inherited}
            )
            console.print(
                f"beginning with {', '.join(parts)} of {settings.source}",
                soft_wrap=True,
                highlight=False,
            )
    if not any(p.requires_grad for p in learner.parameters()):
        folder.save_weights(learner)
        console.print(
            f"{settings.learner} has nothing to meta-train: saved in {folder.folder} as it is",
            soft_wrap=True,
        )
        return learner
    held_out, unseen = validation_tasks(settings)
    optimizer = build_optimizer(learner, recipe)
    step, elapsed, best = 0, 0.0, None
    if state is not None:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        noise.set_state(state["noise"])
        # what was played lies where the learner is
        if isinstance(meta_gradient, A2C | MetaPolicyGradient):
            meta_gradient.load_state_dict(
                tree_map(
                    lambda leaf: (
                        leaf.to(settings.device) if isinstance(leaf, Tensor) else leaf
                    ),
                    state["outer"],
                )
            )
        elif isinstance(meta_gradient, Strategy):
            meta_gradient.load_state_dict(state["outer"])
        torch.set_rng_state(state["chance"])  # of learners that draw while they train
        if state["chances"]:
            torch.cuda.set_rng_state_all(state["chances"][: torch.cuda.device_count()])
        step, elapsed, best = (
            state["step"],
            state["seconds"],
            Estimate(*state["best"]) if state["best"] else None,
        )
        folder.truncate_log(step)
    clock, since = time.monotonic() - elapsed, time.monotonic()
    report = _Report(console, settings, learner.likelihood.score)

    def checkpoint() -> None:
        nonlocal since
        folder.save_checkpoint(
            {
                "learner": learner.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "noise": noise.get_state(),
                "chance": torch.get_rng_state(),
                "chances": torch.cuda.get_rng_state_all()
                if torch.cuda.is_available()
                else [],
                "step": step,
                "seconds": time.monotonic() - clock,
                "best": tuple(best) if best else None,
                "outer": meta_gradient.state_dict()
                if isinstance(meta_gradient, A2C | MetaPolicyGradient | Strategy)
                else None,
            }
        )
        since = time.monotonic()

    def validate(metrics: dict[str, float]) -> None:
        nonlocal best
        calibrate(learner, tasks, settings.precision)  # pyright: ignore[reportArgumentType]
        line: dict[str, Any] = {
            "step": step,
            "seconds": round(time.monotonic() - clock, 3),
            **metrics,
        }
        good = True
        if held_out is not None:
            if isinstance(held_out, Environment):
                tested = play_test(
                    learner,
                    held_out,
                    n=VALIDATION_TASKS
                    if isinstance(learner, Descent)
                    else VALIDATION_TRIALS,
                    generator=seeded("val"),
                )
            else:
                tested = meta_test(
                    learner, held_out, n=VALIDATION_TASKS, precision=settings.precision
                )  # pyright: ignore[reportArgumentType]
            result = tested.metrics[tested.score]
            line |= {
                "validation": result.mean,
                "validation_interval": result.interval,
                "validation_unseen": unseen,
            }
            sign = 1 if learner.likelihood.higher_is_better else -1
            good = (
                not unseen
                or best is None
                or sign * (result.mean - best.mean) >= -best.interval
            )
            if unseen and (best is None or sign * (result.mean - best.mean) > 0):
                best = result
        # the latest weights that are not worse than the best beyond its interval
        if good:
            folder.save_weights(learner)
        folder.log(line)
        checkpoint()
        report.validated(line)

    metrics: dict[str, float] = {}
    if state is None:
        checkpoint()
    elif (settings.steps is not None and step >= settings.steps) or (
        settings.minutes is not None and elapsed >= 60 * settings.minutes
    ):
        # stopped at the very end
        if [line["step"] for line in folder.read_log()][-1:] != [step]:
            validate(metrics)
        console.print(f"{folder.folder} is finished: nothing to resume")
        return folder.learner()
    begun = step > 0
    with report.progress, _patience() as asked_to_stop:
        try:
            loop = meta_train(
                learner,
                tasks,
                steps=settings.steps,
                seconds=60 * settings.minutes
                if settings.steps is None and settings.minutes
                else None,
                batch=1 if recipe.supervised else recipe.batch,
                meta_gradient=meta_gradient,
                optimizer=optimizer,
                schedule=warmup_cosine(recipe.warmup, recipe.decay),
                clip=recipe.clip,
                precision=settings.precision,  # pyright: ignore[reportArgumentType]
                generator=generator,
                start=step,
                elapsed=elapsed,
            )
            marks = 0
            for number, values, progress in loop:
                step = number + 1
                if isinstance(meta_gradient, A2C):
                    meta_gradient.on_progress(progress)
                metrics = {name: float(value) for name, value in values.items()}
                report.stepped(
                    step, progress, metrics, 1 if recipe.supervised else recipe.batch
                )
                due = (
                    step % max(1, settings.steps // REPORTS) == 0
                    if settings.steps is not None
                    else int(progress * REPORTS) > marks
                )
                if due or not begun:
                    marks = int(progress * REPORTS)
                    begun = True
                    validate(metrics)
                elif time.monotonic() - since > SAVE_EVERY or asked_to_stop:
                    checkpoint()
                if asked_to_stop:
                    raise KeyboardInterrupt
            if not settings.steps or step % max(1, settings.steps // REPORTS):
                validate(metrics)
        except KeyboardInterrupt:
            console.print(
                "stopped; the run is saved: go on with --resume", soft_wrap=True
            )
            raise
    console.print(
        f"saved in {folder.folder}: test it with  innerloop test {folder.folder}",
        soft_wrap=True,
    )
    return folder.learner()


@contextmanager
def _patience() -> Iterator[list[int]]:
    """Ctrl-C waits for the end of the meta-step, so that what is saved is whole: the
    list fills. A second one does not wait.
    """
    asked: list[int] = []

    def note(signum: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Report:
    """The live line of a training."""

    def __init__(self, console: Console, settings: Settings, score: str):
        self.score, self.console = score, console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.bar: TaskID = self.progress.add_task(
            f"{settings.learner} on {settings.tasks}", total=1.0, text=""
        )
        self.began, self.tasks, self.validation = time.monotonic(), 0, ""

    def stepped(
        self, step: int, progress: float, metrics: dict[str, float], batch: int
    ) -> None:
        self.tasks += batch
        rate = self.tasks / max(time.monotonic() - self.began, 1e-9)
        text = f"step {step}  loss {metrics['loss']:.4f}{self.validation}  {rate:.1f} tasks/s"
        self.progress.update(self.bar, completed=min(progress, 1.0), text=text)

    def validated(self, line: dict[str, Any]) -> None:
        if "validation" in line:
            seen = "" if line["validation_unseen"] else " (seen classes)"
            self.validation = (
                f"  validation {self.score} {line['validation']:.4f}{seen}"
            )
        if not self.console.is_terminal:
            loss = f"  loss {line['loss']:.4f}" if "loss" in line else ""
            self.console.print(
                f"step {line['step']}  {line['seconds']:.0f} s{loss}{self.validation}",
                highlight=False,
            )
