"""`innerloop test`."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from innerloop.cli.fields import check_device
from innerloop.cli.further import show_asking, show_continual
from innerloop.cli.plot import draw, drawable
from innerloop.cli.programs import show_programs
from innerloop.cli.train import fixed_ways
from innerloop.core.descent import Descent
from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Gaussian
from innerloop.core.meta_test import Estimate, chunks, meta_test
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.evaluation.clustering import adjusted_rand_index, cluster
from innerloop.evaluation.head_start import head_start
from innerloop.learners.active.active_learner import ActiveLearner
from innerloop.learners.generative.example_generator import ExampleGenerator
from innerloop.learners.synthesis.synthesizer import Synthesizer
from innerloop.learners.transfer.scratch import Scratch
from innerloop.readers.image import Preprocess
from innerloop.rl import Environment, play_test
from innerloop.rl.evaluation import oracle_test, unseen
from innerloop.runs import (
    ALL_TASKS,
    Run,
    RunError,
    Settings,
    build_tasks,
    reader,
    seen_classes,
    write_atomically,
)
from innerloop.tasks import Episodes
from innerloop.tasks.algorithmic import Sequences
from innerloop.tasks.folder import read_classes
from innerloop.tasks.gp_curves import Curves

UPDATES = 3  # of learners that descend and act


def run(options: argparse.Namespace) -> None:
    console = Console()
    folder = Run(options.run)
    settings, learner = (
        folder.settings(),
        folder.learner().to(check_device(options.device)),
    )
    if options.steps:
        if not isinstance(learner, Descent):
            raise InnerloopError(
                f"{type(learner).__name__} takes no gradient steps, so --steps means nothing to it"
            )
        learner.inner_steps = options.steps
    if options.continual:
        show_continual(options, settings, learner, console)
        return
    if isinstance(learner, Synthesizer):
        show_programs(options, settings, learner, console)
        return
    rows = []
    found = all_tasks(options, settings, console)
    for name in filter(None, (options.json, options.plot)):
        if not Path(name).absolute().parent.is_dir():
            raise InnerloopFileError(
                f"there is no folder {Path(name).parent} to write {Path(name).name} into"
            )
    if options.plot:
        drawable(options.plot, [tasks for *_, tasks in found])
    if options.imagined:
        helper = imagining(options.imagined, settings)
        found = [
            (ways, shots, Enlarged(tasks, helper, options.count, options.seed))
            for ways, shots, tasks in found
        ]
    for ways, shots, tasks in found:
        with console.status(f"{ways or ''} {shots} on {options.tasks} tasks"):
            rows.append(one_setting(learner, tasks, options, ways, shots))
        raced = (
            options.race
            and not rows[1:]
            and not isinstance(learner, Scratch)
            and not isinstance(tasks, Environment)
        )
        if isinstance(learner, ActiveLearner):
            show_asking(learner, tasks, options, console, rows[-1])
        elif raced and tasks.spec.kind in Scratch.kinds:
            rows[0]["race"] = race(learner, tasks, options.race, options.seed)
    show(console, settings, options, rows)
    tested = found[0][2].tasks if isinstance(found[0][2], Enlarged) else found[0][2]
    seen = (
        seen_classes(settings, tested)
        if (options.on or settings.tasks) == settings.tasks
        else 0
    )
    if seen:
        console.print(
            f"{seen} of these classes were trained on: the figures are no test of learning new ones",
            soft_wrap=True,
        )
    if options.json:
        report = {
            "run": str(options.run),
            "learner": settings.learner,
            "tasks": options.on or settings.tasks,
            "part": options.part,
            "seen_classes": seen,
            "results": rows,
        }
        write_atomically(
            Path(options.json), json.dumps(report, indent=2).encode() + b"\n"
        )
    if options.plot:
        console.print(
            f"drawn: {draw(learner, [tasks for *_, tasks in found], Path(options.plot), options.seed)}",
            soft_wrap=True,
        )


def settings_to_test(
    options: argparse.Namespace, settings: Settings
) -> list[tuple[int | None, int | None]]:
    """The (ways, shots) to test: those asked for, else the learner's own, else the four
    that papers report.
    """
    trained = settings.task_options
    if settings.spec["kind"] != "classes" or "ways" not in trained:
        if options.ways:
            raise InnerloopError(f"{settings.tasks} has no ways")
        if settings.tasks == "gp-curves" and not options.shots and not options.on:
            return [(None, 5), (None, 10), (None, 20)]
        return [(None, options.shots or trained.get("shots"))]
    if fixed_ways(settings):
        if options.ways and options.ways != settings.spec["y_dim"]:
            raise InnerloopError(
                f"this {settings.learner} was trained for {settings.spec['y_dim']} ways and cannot answer for {options.ways}: "
                f"train it with --ways {options.ways}"
                + (
                    ", or with --head prototype for any number"
                    if settings.learner == "maml"
                    else ""
                )
            )
        return [(settings.spec["y_dim"], options.shots or trained["shots"])]
    if options.ways or options.shots:
        return [(options.ways or 5, options.shots or 1)]
    return [(5, 1), (5, 5), (20, 1), (20, 5)]


class Enlarged(TaskDistribution):
    """Tasks whose support sets hold `count` more examples of every class, imagined by a
    learner from those that are there.
    """

    def __init__(
        self,
        tasks: TaskDistribution,
        imagining: ExampleGenerator,
        count: int,
        seed: int,
    ):
        self.tasks, self.imagining, self.count, self.spec = (
            tasks,
            imagining,
            count,
            tasks.spec,
        )
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = self.tasks.sample(n, generator)
        labels = torch.eye(self.spec.y_dim).repeat_interleave(self.count, 0)
        made = [
            self.imagining.imagine(task.support, self.count, self.generator)
            .flatten(0, 1)
            .cpu()
            for task in tasks.unbind()
        ]
        x, y = (
            torch.cat([tasks.support.x, torch.stack(made)], 1),
            torch.cat([tasks.support.y, labels.expand(n, -1, -1)], 1),
        )
        # for learners that stream
        order = torch.randperm(x.shape[1], generator=self.generator)
        return Task(Examples(x[:, order], y[:, order]), tasks.query)


def imagining(run: str, settings: Settings) -> ExampleGenerator:
    """The learner of another run, to imagine examples. Raises RunError where it
    imagines nothing, or for other inputs.
    """
    learner, theirs = Run(run).learner(), Run(run).settings()
    if not isinstance(learner, ExampleGenerator):
        raise RunError(f"{run} is a run of {theirs.learner}, which imagines nothing")
    if theirs.spec["x_shape"] != settings.spec["x_shape"]:
        raise RunError(
            f"{run} imagines inputs {tuple(theirs.spec['x_shape'])}, and these tasks have {tuple(settings.spec['x_shape'])}"
        )
    return learner


def all_tasks(
    options: argparse.Namespace, settings: Settings, console: Console
) -> list[tuple[int | None, int | None, TaskDistribution]]:
    """The tasks of every setting; of the usual four, those for which there are classes
    enough.
    """
    wanted, found = settings_to_test(options, settings), []
    for ways, shots in wanted:
        try:
            found.append((ways, shots, test_tasks(options, settings, ways, shots)))
        except ValueError as error:
            if len(wanted) == 1 or ways is None:
                raise
            console.print(
                f"{ways}-way {shots}-shot is left out: {error}", highlight=False
            )
    if not found:
        raise InnerloopError(
            "the test part has too few classes or images for the usual settings: name smaller ones with --ways, --shots and --queries"
        )
    return found


def test_tasks(
    options: argparse.Namespace, settings: Settings, ways: int | None, shots: int | None
) -> TaskDistribution:
    """The tasks of one setting."""
    name = options.on or settings.tasks
    if name not in ALL_TASKS:
        raise InnerloopError(
            f"there are no tasks {name!r}: choose one of {', '.join(ALL_TASKS)}"
        )
    accepted = inspect.signature(ALL_TASKS[name]).parameters
    asked: dict[str, Any] = {
        key: value
        for key, value in settings.task_options.items()
        if key in accepted and key not in ("groups", "holdout")
    }
    told = {
        "ways": ways,
        "shots": shots if "shots" in accepted else None,
        "length": options.length,
        "repeats": options.repeats,
        "kernel": options.kernel,
        "of": options.of,
        "protocol": options.protocol,
        "groups": 1 if options.within_alphabet else None,
    }
    asked |= {key: value for key, value in told.items() if value is not None}
    for key in ("protocol", "groups", "length", "repeats", "kernel", "of"):
        if key in asked and key not in accepted:
            raise InnerloopError(
                f"{name} has no {'alphabets' if key == 'alphabets' else key}"
            )
    if options.root and name != "folder":
        raise InnerloopError("--root is for tasks of a folder: add --on folder")
    if (
        name in ("folder", "arrays", "text")
        and name != settings.tasks
        and not options.root
    ):
        raise InnerloopError(
            f"{name} needs --root, a folder of class folders"
            if name == "folder"
            else f"only a run on {name} can be tested on {name}"
        )
    if options.root:
        bank = read_classes(
            options.root,
            Preprocess(**settings.preprocess) if settings.preprocess else Preprocess(),
        )
        return _with_queries(
            lambda queries: Episodes(bank, ways or 5, shots or 1, queries),
            options.queries,
        )
    if shots is not None and "shots" not in accepted:
        raise InnerloopError(f"{name} has no shots")
    asked = {
        key: value
        for key, value in {**asked, "reader": reader(settings.reads)}.items()
        if key in accepted
    }
    if "queries" in accepted and "ways" not in accepted:
        tasks = build_tasks(
            name,
            options.part,
            asked | {"queries": options.queries or asked.get("queries")},
        )
    elif "queries" in accepted:
        tasks = _with_queries(
            lambda queries: build_tasks(
                name, options.part, asked | {"queries": queries}
            ),
            options.queries,
        )
    else:
        tasks = build_tasks(name, options.part, asked)
    told, given = (
        dataclasses.asdict(tasks.spec),
        {"ordered": False, "vocabulary": 0, **settings.spec},
    )
    fixed = (
        "kind",
        "x_shape",
        "ordered",
        "vocabulary",
        *(["y_dim"] if tasks.spec.kind != "classes" else []),
    )
    if any(
        told[key] != (tuple(given[key]) if key == "x_shape" else given[key])
        for key in fixed
    ):
        want, got = (
            f"{spec['kind']} ({spec['y_dim']}) of inputs {tuple(spec['x_shape'])}"
            for spec in (given, told)
        )
        raise InnerloopError(
            f"this {settings.learner} was trained for {want}, but {name} has {got}"
        )
    return tasks


def _with_queries(
    tasks: Callable[[int], TaskDistribution], queries: int | None
) -> TaskDistribution:
    """Tasks with so many queries a class; where nothing is said with 5, or with as many
    as the data allows.
    """
    for fewer in range(queries or 5, 1, -1):
        try:
            return tasks(fewer)
        except ValueError:
            if queries:
                raise
    return tasks(1)


def one_setting(
    learner: Learner,
    tasks: TaskDistribution,
    options: argparse.Namespace,
    ways: int | None,
    shots: int | None,
) -> dict[str, Any]:
    """Test at one setting; plain data."""
    if isinstance(tasks, Environment):
        played = play_test(
            learner,
            tasks,
            n=options.tasks,
            generator=unseen(options.part, options.seed),
            updates=options.steps or UPDATES,
        )
        beside = (
            oracle_test(tasks, n=options.tasks, part=options.part, seed=options.seed)
            if isinstance(learner, Streaming)
            else {}
        )
        return {
            "ways": None,
            "shots": None,
            **played.as_dict(),
            "oracles": {name: estimate._asdict() for name, estimate in beside.items()},
        }
    generator = torch.Generator().manual_seed(options.seed)
    result = meta_test(
        learner,
        tasks,
        n=options.tasks,
        precision=options.precision,
        generator=generator,
        curve_steps=options.steps,
    )
    queries = (
        getattr(tasks, "queries", options.queries)
        if not isinstance(tasks, Enlarged)
        else options.queries
    )
    row: dict[str, Any] = {
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "within_alphabet": options.within_alphabet,
        **result.as_dict(),
    }
    # else the loss is a squared error
    dense = (
        isinstance(learner.likelihood, Gaussian) and learner.likelihood.learned_scale
    )
    if isinstance(tasks, Curves) and dense:
        again = torch.Generator().manual_seed(options.seed)
        drawn = chunks(learner, tasks, options.tasks, 25, again)
        row["oracle"] = Estimate.of(
            torch.cat([tasks.oracle(batch).cpu() for batch in drawn])
        )._asdict()
    if isinstance(tasks, Sequences) and tasks.exact:
        steps = len(tasks.sample(1, generator).query.x[0])
        row |= {
            "answer_steps": steps,
            "bits_per_sequence": result.metrics["loss"].mean * steps / math.log(2),
        }
    if options.cluster:
        generator = torch.Generator().manual_seed(options.seed)
        found = []
        for _ in range(min(options.tasks, 100)):
            task = tasks.sample(1, generator).unbind()[0].to(options.device)
            labels = cluster(
                learner, task.query.x, tasks.spec.y_dim, generator=generator
            )  # pyright: ignore[reportArgumentType]
            found.append(
                adjusted_rand_index(labels.cpu(), task.query.y.argmax(-1).cpu())
            )
        row["clustering"] = {
            "adjusted_rand_index": Estimate.of(torch.tensor(found))._asdict(),
            "tasks": len(found),
        }
    return row


def race(
    learner: Learner, tasks: TaskDistribution, n: int, seed: int
) -> dict[str, Any]:
    """The learner against training the default network, a Conv4 on images, from
    scratch.
    """
    torch.manual_seed(seed)
    device = next(learner.parameters()).device
    scratch = Scratch.build(tasks.spec).to(device)
    result = head_start(
        learner, scratch, tasks, n=n, generator=torch.Generator().manual_seed(seed)
    )
    return {**dataclasses.asdict(result), "speedup": result.speedup}


def show(
    console: Console,
    settings: Settings,
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
) -> None:
    score = rows[0]["score"]
    percent = score == "accuracy"
    how = "transductive" if rows[0]["transductive"] else "inductive"
    protocol = options.protocol or (
        settings.task_options.get("protocol") if not options.on else None
    )
    where = " ".join(filter(None, (options.on or settings.tasks, protocol)))
    where += (
        f", support sets with {options.count} imagined examples a class"
        if options.imagined
        else ""
    )
    title = f"{settings.learner} on {where} ({options.part} part, {how}, {rows[0]['tasks']} tasks, 95 % intervals)"
    table = Table(title=title, title_justify="left")
    ranked = "roc_auc" in rows[0]["metrics"]
    for column in (
        "ways",
        "shots",
        score,
        *(["ROC-AUC"] if ranked else []),
        *(["adjusted Rand"] if options.cluster else []),
        "seconds",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [
            str(row["ways"] or "-"),
            str(row["shots"] or "-"),
            _figure(row["metrics"][score], percent),
        ]
        if ranked:
            cells.append(_figure(row["metrics"]["roc_auc"], False))
        if options.cluster:
            cells.append(_figure(row["clustering"]["adjusted_rand_index"], False))
        table.add_row(*cells, f"{row['seconds']:.1f}")
    console.print(table)
    if rows[0]["curve"]:
        console.print(
            f"{score} after 0, 1, ... steps: "
            + "  ".join(_figure(e, percent) for e in rows[0]["curve"]),
            highlight=False,
        )
    if "oracles" in rows[0]:
        for name, estimate in rows[0]["oracles"].items():
            console.print(f"{name}: {_figure(estimate, False)}", highlight=False)
        if rows[0]["instances"]:
            console.print(
                "by episode of a trial: "
                + "  ".join(_figure(e, False) for e in rows[0]["instances"]),
                highlight=False,
            )
    elif len(rows[0]["instances"]) > 1:
        console.print(
            "accuracy by instance of a class, 1st, 2nd, ...: "
            + "  ".join(_figure(e, True) for e in rows[0]["instances"]),
            highlight=False,
        )
    for row in rows:
        if "oracle" in row:
            found, best = row["metrics"]["loss"], row["oracle"]
            gap = f"{found['mean'] - best['mean']:.3f} nats above the exact posterior's {_figure(best, False)}"
            console.print(
                f"{row['shots']} points: negative log-likelihood {_figure(found, False)} a point, {gap}",
                highlight=False,
            )
    if "bits_per_sequence" in rows[0]:
        wrong = 100 * (1 - rows[0]["metrics"]["accuracy"]["mean"])
        bits = f"{rows[0]['bits_per_sequence']:.4f} bits a sequence, {wrong:.3f} % of the bits wrong"
        console.print(
            f"{rows[0]['answer_steps']} steps to answer: {bits}", highlight=False
        )
    if found := rows[0].get("race"):
        best = f"{100 * found['target']:.1f} %" if percent else f"{found['target']:.3f}"
        reached = (
            f"reaches it after {found['learner_steps']} steps, {1000 * found['learner_seconds']:.0f} ms: {found['speedup']:.1f} times as fast"
            if found["learner_seconds"] is not None
            else "does not reach it"
        )
        console.print(
            f"from scratch: best {score} {best} after {found['scratch_steps']} steps, {1000 * found['scratch_seconds']:.0f} ms a task; "
            f"this run {reached} ({found['tasks']} tasks)",
            highlight=False,
        )


def _figure(estimate: dict[str, float], percent: bool) -> str:
    mean, half = estimate["mean"], estimate["interval"]
    return (
        f"{100 * mean:.2f} ± {100 * half:.2f} %"
        if percent
        else f"{mean:.4f} ± {half:.4f}"
    )
