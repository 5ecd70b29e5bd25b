"""Sweeps on Ray Tune."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.ray_cluster import LOCAL, connected, imported
from innerloop.events import Validated
from innerloop.experiment import Experiment
from innerloop.measurements import Measurement
from innerloop.runs import Run, RunError, write_atomically
from innerloop.sweep.plan import FILE, SweepPlan
from innerloop.sweep.space import Axis, absolute, applied
from innerloop.training import VALIDATIONS

# validations before the first halving; it leaves a third; those of a usual training
GRACE, REDUCTION, LONGEST = 2, 3, VALIDATIONS + 2
LOOK_EVERY = 1.0  # seconds between looks at the run folders
NOTES, RUNS, STATE = "trials", "runs", "ray"  # in the folder of a sweep


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Args:
        values: of the options that are varied, by place.
        run: its run folder.
        score: its last validation score, or None where there is none.
        steps: meta-steps that it made.
        state: "running", "done", "stopped early" or "failed".
        text: why it failed.
        better: 1 where a higher score is better, else -1.
    """

    values: dict[str, Any]
    run: Path
    score: Measurement | None
    steps: int
    state: str
    text: str = ""
    better: int = 1

    @property
    def labels(self) -> dict[str, Any]:
        """Its values by the last part of their place, or all of it where that is not
        enough to tell them apart; numbers with three digits.
        """
        short = {place: place.rpartition(".")[2] for place in self.values}
        known = list(short.values())
        return {
            short[place] if known.count(short[place]) == 1 else place: (
                float(f"{v:.3g}") if isinstance(v, float) else v
            )
            for place, v in self.values.items()
        }

    @property
    def rank(self) -> float:
        """For sorting, the best first, and what failed last."""
        if self.score is None or not math.isfinite(self.score.mean):
            return math.inf
        return math.inf if self.state == "failed" else -self.better * self.score.mean


def sweep(
    plan: SweepPlan,
    folder: Path,
    *,
    address: str = LOCAL,
    jobs: int | None = None,
    resume: bool = False,
    watch: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Train what `plan` describes, on this machine or on a Ray cluster; returns all
    trials, the best one first.

    Args:
        folder: gets the plan, a run folder for every trial in `runs`, and Ray's own
            files in `ray`. On a cluster, all machines must see it.
        address: of a cluster, or "local" to start Ray here and shut it down again.
        jobs: trainings at once on this machine (default: one for each core).
        resume: continue the sweep in `folder`.
        watch: called whenever a trial is validated or ends.

    Raises:
        MissingPackageError: Ray is not installed.
        InnerloopError: the scores of the trials could not be compared.
        RunError: the folder holds a sweep already, or none to continue.
        KeyboardInterrupt: after Ctrl-C, when the sweep is saved.
    """
    tune = imported("ray.tune")
    folder = folder.resolve()
    there = (folder / FILE).is_file()
    if resume and SweepPlan.load(folder) != plan:
        raise RunError(f"{folder / FILE} describes another sweep: use the same options")
    if there and not resume:
        raise RunError(f"{folder} holds a sweep already: resume it with --resume")
    if resume:
        trials(folder)  # says what is damaged before anything is trained
    if not there:
        plan.check()
        folder.mkdir(parents=True, exist_ok=True)
    with connected(address, jobs):
        if not there:
            plan.save(folder)
        tuner = _tuner(tune, plan, folder)
        with _watched(folder, watch):
            results = tuner.fit()
    if results.num_terminated + results.num_errors < plan.count:  # Ray ends at Ctrl-C
        raise KeyboardInterrupt
    lost = [Path(result.path).name for result in results if result.error is not None]
    found = [_ended(trial, lost) for trial in trials(folder)]
    return sorted(found, key=lambda trial: trial.rank)


def _ended(trial: Trial, lost: list[str]) -> Trial:
    """A trial at the end of the sweep.

    Args:
        lost: the names of Ray's folders of trials that failed; they hold the trial's.
    """
    if trial.state != "running":
        return trial
    if any(trial.run.name in name for name in lost):
        text = "its process has ended: killed, or out of memory"
        return replace(trial, state="failed", text=text)
    return replace(trial, state="stopped early")


@contextlib.contextmanager
def _watched(folder: Path, watch: Callable[[Trial], None]) -> Iterator[None]:
    """Meanwhile, `watch` is called with every trial that has changed."""
    over, before = threading.Event(), {}

    def look() -> None:
        for trial in trials(folder):
            at = trial.steps, trial.state
            if before.get(trial.run) != at:
                before[trial.run] = at
                watch(trial)

    def loop() -> None:
        while not over.wait(LOOK_EVERY):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def trials(folder: Path) -> list[Trial]:
    """The trials of a sweep that are there, the best one first. Raises RunError for one
    that cannot be read.
    """
    notes = sorted((folder / NOTES).glob("*.json"))
    return sorted((_read(note) for note in notes), key=lambda trial: trial.rank)


def _read(note: Path) -> Trial:
    run = Run(note.parent.parent / RUNS / note.stem)
    scores = _validations(run)
    score, steps = None, 0
    if scores:
        last = scores[-1]
        numbers = last["validation_interval"], last["validation_tasks"]
        score = Measurement("validation score", last["validation"], *numbers)
        steps = last["step"]
    try:
        there = json.loads(note.read_text())
        return Trial(run=run.folder, score=score, steps=steps, **there)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{note} cannot be read: {error}") from error


def _validations(run: Run) -> list[dict[str, Any]]:
    """The lines of a log with a validation score, NaN where it was not finite."""
    lines = [line for line in run.read_log() if "validation" in line]
    return [
        {**line, "validation": math.nan} if line["validation"] is None else line
        for line in lines
    ]


def _tuner(tune: Any, plan: SweepPlan, folder: Path) -> Any:
    """Ray's tuner of a plan, new or from what the folder holds of it."""

    experiment = plan.experiment
    learner = experiment.resolve()[1].learner
    better = 1 if learner.likelihood.higher_is_better else -1
    needs = {"cpu": 1, "gpu": 1 if experiment.where.startswith("cuda") else 0}
    train = tune.with_resources(
        tune.with_parameters(
            _train,
            experiment=experiment.expanded().as_dict(),
            folder=str(folder),
            better=better,
        ),
        needs,
    )
    run_config = tune.RunConfig(name=STATE, storage_path=str(folder), verbose=0)
    state = folder / STATE
    if tune.Tuner.can_restore(str(state)):
        try:
            return tune.Tuner.restore(str(state), train, restart_errored=True)
        except Exception as error:  # of damaged files: of any type
            raise RunError(
                f"{state} is damaged, so that the sweep cannot continue: start another "
                "one, in another folder"
            ) from error
    axes = [absolute(axis, experiment) for axis in plan.axes]
    grid = plan.search == "grid"
    space = {axis.option: _domain(tune, axis, grid=grid) for axis in axes}
    return tune.Tuner(
        train,
        param_space=space,
        run_config=run_config,
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=1 if grid else plan.count,
            search_alg=_search(plan),
            scheduler=_scheduler(plan),
        ),
    )


def _domain(tune: Any, axis: Axis, *, grid: bool) -> Any:
    if axis.scale == "list":
        values = list(axis.values)
        return tune.grid_search(values) if grid else tune.choice(values)
    low, high = axis.values
    if isinstance(low, int):
        return (tune.lograndint if axis.scale == "log" else tune.randint)(low, high + 1)
    return (tune.loguniform if axis.scale == "log" else tune.uniform)(low, high)


def _search(plan: SweepPlan) -> Any:
    if plan.search == "tpe":
        try:
            from optuna.samplers import TPESampler
            from ray.tune.search.optuna import OptunaSearch
        except ImportError as error:
            raise MissingPackageError(
                "search tpe needs Optuna: pip install 'innerloop[ray]'"
            ) from error
        return OptunaSearch(
            metric="score", mode="max", sampler=TPESampler(seed=plan.seed)
        )
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=plan.seed)


def _scheduler(plan: SweepPlan) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if not plan.stopping:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="validations",
        max_t=LONGEST,
        grace_period=GRACE,
        reduction_factor=REDUCTION,
        stop_last_trials=False,  # a training may have more validations than usual
    )


def _train(
    config: dict[str, Any], *, experiment: dict[str, Any], folder: str, better: int
) -> None:
    """One trial, in a process of Ray's; a run that is there continues."""
    from ray import tune

    name = tune.get_context().get_trial_id()
    note = Path(folder, NOTES, f"{name}.json")
    note.parent.mkdir(exist_ok=True)
    run = Run(Path(folder, RUNS, name))
    run.folder.parent.mkdir(exist_ok=True)

    def put(state: str, text: str = "") -> None:
        found = {"values": config, "state": state, "text": text, "better": better}
        write_atomically(note, json.dumps(found).encode())

    def report() -> None:
        scores = _validations(run)
        score = better * scores[-1]["validation"] if scores else -math.inf
        score = score if math.isfinite(score) else -math.inf
        tune.report({"score": score, "validations": len(scores)})

    put("running")
    wanted = applied(Experiment.from_dict(experiment), config)
    try:
        for event in wanted.train_events(run, resume=run.exists):
            if isinstance(event, Validated):
                report()
    except InnerloopError as error:  # such as settings that diverge
        put("failed", str(error))
        tune.report({"score": -math.inf, "validations": LONGEST})
        return
    except Exception as error:  # such as too little memory: tried again with --resume
        reason = (str(error).strip().splitlines() or [""])[0]
        put("failed", f"{type(error).__name__}: {reason:.200}")
        raise
    put("done")
    report()
