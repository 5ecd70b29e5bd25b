"""Training an experiment into a run folder, as a stream of events."""

from __future__ import annotations

import contextlib
import math
import operator
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from innerloop.assembly import Choice, to_device
from innerloop.core.task import TaskDistribution
from innerloop.engine import torchrun
from innerloop.engine.errors import InnerloopError
from innerloop.engine.precision import Precision
from innerloop.engine.workers import Workers, joined
from innerloop.evaluation.few_shot import score_of
from innerloop.events import (
    Event,
    Finished,
    Saved,
    Started,
    Stepped,
    Validated,
)
from innerloop.experiment import Experiment, Setup
from innerloop.measurements import Estimate, TestPlan
from innerloop.metagrad import (
    MetaGradient,
    calibrate,
    distributed,
    meta_train,
    on_ray,
)
from innerloop.metagrad.distributed import trainable
from innerloop.metagrad.meta_train import build_optimizer, scheduled
from innerloop.runs import Run, RunError, digest

VALIDATIONS = 10  # in a training
VALIDATING = 0.25  # largest share of a training by time that validation takes
SAVE_EVERY = 60.0  # seconds between checkpoints
ESTIMATE_AFTER = 10  # steps after which the number of steps in the time is estimated


def train_events(
    experiment: Experiment, run: Run, resume: bool, ray: bool
) -> Iterator[Event]:
    """See `Experiment.train_events`."""
    workers = joined(continued(experiment, run, resume).where)
    if ray and workers.size > 1:
        raise InnerloopError(
            f"Ray evaluates the members of one process; this training has "
            f"{workers.size}: use either of them"
        )
    events = _events(experiment, run, resume, workers, ray)
    yield from events if workers.size == 1 else _stopped_together(events, workers)


def continued(experiment: Experiment, run: Run, resume: bool) -> Experiment:
    """The experiment, on the device of the run that it resumes unless it names one."""
    if experiment.device is None and resume and run.exists:
        return replace(experiment, device=Experiment.load(run).device)
    return experiment


def _stopped_together(events: Iterator[Event], workers: Workers) -> Iterator[Event]:
    """The events of this process, which end in all processes where they are closed in
    one.
    """
    for event in events:
        try:
            yield event
        except GeneratorExit:
            workers.any(True)
            events.close()  # pyright: ignore[reportAttributeAccessIssue]
            raise
        if workers.any(False):
            events.close()  # pyright: ignore[reportAttributeAccessIssue]
            return


def _events(
    experiment: Experiment, run: Run, resume: bool, workers: Workers, ray: bool
) -> Iterator[Event]:
    def there() -> Experiment | None:
        """The run to continue: that of a job whose processes were started again is
        continued without being asked for.
        """
        run.check_files()
        if not resume and run.exists and not run.belongs_to(torchrun.job()):
            raise RunError(
                f"{run.folder} holds a run already: resume it with --resume, or choose "
                "another folder"
            )
        return Experiment.load(run) if resume or run.exists else None

    before = workers.once(there)
    if before is not None:
        experiment = _resumed(experiment, before)
    resolved, setup = workers.first_before_others(experiment.resolve)
    if before is not None and resolved.data != experiment.data:
        raise RunError(
            f"the training data of {run.folder} have changed since it began; train a "
            "new run"
        )
    setup.learner  # noqa: B018  built, and checked, before anything is written
    rule = setup.meta_gradient
    move = on_ray(rule) if ray else distributed(rule, workers)
    training = _Training(resolved, setup, move, run, before is not None, workers)
    training.check()
    with contextlib.ExitStack() as held:

        def take() -> None:
            held.enter_context(run.locked())
            if run.exists and before is None:
                raise RunError(f"{run.folder} holds a run already")
            run.mark(torchrun.job())

        workers.once(take)
        try:
            yield from training.events()
        except Exception:
            if training.empty and workers.first:
                run.discard()  # it must not stand in the way of a corrected training
            raise


def _resumed(wanted: Experiment, there: Experiment) -> Experiment:
    """The experiment of a run, with the length and the device of `wanted`.

    Raises RunError where something else that `wanted` sets differs.
    """
    before = _values(there)
    for key, value in _values(wanted.expanded()).items():
        if before.get(key) != value:
            raise RunError(
                f"{key[-1]} {value} cannot change when a training is resumed: the run "
                f"has {before.get(key, 'the default')}"
            )
    longer = wanted.steps is not None or wanted.minutes is not None
    length = {"steps": wanted.steps, "minutes": wanted.minutes} if longer else {}
    moved = {"device": wanted.device} if wanted.device is not None else {}
    return replace(there, **length, **moved)


def _values(experiment: Experiment) -> dict[tuple[str, ...], Any]:
    """What an experiment sets beside its length and device, where that is not what
    every experiment has.
    """
    found: dict[tuple[str, ...], Any] = {
        ("training", name): value for name, value in experiment.training.items()
    }
    for kind in ("learner", "tasks", "meta_gradient", "likelihood"):
        choice: Choice | None = vars(experiment)[kind]
        if choice is not None:
            found[kind,] = choice.name
            found |= {(kind, name): value for name, value in choice.options.items()}
    usual = {"seed": 0, "precision": "auto", "init_from": None}
    values = {(name,): vars(experiment)[name] for name in usual}
    return found | {k: v for k, v in values.items() if v != usual[k[0]]}


class _Training:
    """The state of one training. Of several processes, the first one validates, writes
    the run and reads the clock.
    """

    def __init__(
        self,
        experiment: Experiment,
        setup: Setup,
        move: MetaGradient,
        run: Run,
        resume: bool,
        workers: Workers,
    ):
        self.experiment, self.setup, self.workers = experiment, setup, workers
        self.move, self.run, self.resume = move, run, resume
        self.learner = setup.learner
        seed = experiment.seed
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator().manual_seed(seed + 1)
        self.precision: Precision = experiment.settled_precision(self.learner)
        self.step, self.elapsed, self.best = 0, 0.0, None
        self.validating = 0.0  # seconds spent in validation by this process
        self.empty = False  # whether the run was created and has made no step yet
        self.best_step = 0
        self.held_out: TaskDistribution | None = None
        self.unseen = False  # whether it has no classes of the training
        self.saved_at = self.clock = time.monotonic()
        self.higher = 1 if self.learner.likelihood.higher_is_better else -1

    def check(self) -> None:
        """Raises InnerloopError where something does not fit; nothing is written
        yet.
        """
        if self.trainable:
            self.optimizer = build_optimizer(self.learner, self.experiment.config)
            self.move.prepare(self.learner, self.setup.tasks, self.noise)
            self._check_first_batch()

    @property
    def trainable(self) -> bool:
        return any(p.requires_grad for p in self.learner.parameters())

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return next(self.learner.parameters()).device

    def events(self) -> Iterator[Event]:
        learner, experiment, run = self.learner, self.experiment, self.run
        if not self.trainable:
            yield from self._nothing_to_train()
            return
        config = experiment.config
        state = self.workers.once(
            lambda: (
                run.load_checkpoint() if self.resume and run.has_checkpoint else None
            )
        )
        if state is not None:
            try:
                self._restore(state)
            except Exception as error:  # torch raises many types
                raise RunError(
                    f"{run.folder}/checkpoint.bin does not fit experiment.json: "
                    "restore both from a copy, or train again"
                ) from error
            self.workers.once(self._write_again)
        else:
            self.workers.once(lambda: run.create(experiment.as_dict()))
            self.empty = True
        notes = self.workers.once(self._prepare_validation)
        yield Started(self._describe(), notes, self.step)
        self.clock = time.monotonic() - self.elapsed
        if state is None:
            yield self._save()
        seconds = 60 * experiment.minutes if experiment.minutes else None
        if self._is_over(seconds):
            if not self.workers.once(self._is_validated):
                yield self._validate({})
            yield self.workers.once(self._finished)
            return
        loop = meta_train(
            learner,
            self.setup.tasks,
            steps=experiment.steps,
            seconds=seconds if experiment.steps is None else None,
            batch=1 if config.supervised else config.batch,
            meta_gradient=self.move,
            optimizer=self.optimizer,
            schedule=scheduled(config),
            clip=config.clip,
            precision=self.precision,
            generator=self.generator,
            start=self.step,
            elapsed=self.elapsed,
        )
        yield from self._loop(loop, experiment.steps, seconds)

    def _loop(
        self, loop: Any, steps: int | None, seconds: float | None
    ) -> Iterator[Event]:
        validated = first = self.step
        marks = 0
        metrics: dict[str, float] = {}
        batch = self.experiment.config.batch
        try:
            for number, values, progress in loop:
                self.step, self.empty = number + 1, False
                metrics = {name: float(value) for name, value in values.items()}
                stepped = Stepped(
                    self.step,
                    min(progress, 1.0),
                    time.monotonic() - self.clock,
                    metrics,
                    batch,
                    self._expected(self.step - first, progress, seconds),
                )
                if steps is not None:
                    due = self.step % max(1, steps // VALIDATIONS) == 0
                else:
                    due = int(progress * VALIDATIONS) > marks and self._affordable()
                late = time.monotonic() - self.saved_at > SAVE_EVERY
                due, late = self.workers.of_first(due, late)
                # a step is validated and saved before anyone can stop at it
                done: list[Event] = [stepped]
                if due or self.step == 1:
                    marks = int(progress * VALIDATIONS)
                    validated = self.step
                    done += [self._validate(metrics), self._save()]
                elif late:
                    done.append(self._save())
                yield from done
        except GeneratorExit:
            loop.close()
            self._save()
            raise
        if validated != self.step:
            yield self._validate(metrics)
            yield self._save()
        yield self.workers.once(self._finished)

    # ------------------------------------------------------------------ parts

    def _check_first_batch(self) -> None:
        """Raises InnerloopError where tasks and learner do not fit, before anything is
        written.
        """
        tasks = self.setup.tasks
        if not tasks.played:
            generator = torch.Generator().manual_seed(0)
            task = tasks.sample(1, generator).to(self.experiment.where)
            with torch.no_grad():
                self.learner(task)

    def _write_again(self) -> None:
        """Undo what was written after the checkpoint."""
        self.run.truncate_log(self.step)
        self.run.write_experiment(self.experiment.as_dict())

    def _prepare_validation(self) -> tuple[str, ...]:
        """Build the tasks to validate on; returns all notes on the data."""
        self.held_out, notes = self.setup.validation, self.setup.notes
        if self.workers.size > 1:
            notes = (*notes, f"{self.workers.size} processes")
        if self.held_out is None:
            return (*notes, f"not validated: {self.setup.no_validation}")
        self.unseen = self.experiment.seen_classes(self.held_out) == 0
        return notes

    def _write_untrained(self) -> None:
        if self.run.exists:
            self.run.truncate_log(0)
        else:
            self.run.create(self.experiment.as_dict())
        self.run.save_weights(self.learner.state_dict())

    def _nothing_to_train(self) -> Iterator[Event]:
        self.workers.once(self._write_untrained)
        note = f"{self.experiment.learner.name} has no parameters to meta-train"
        yield Started(self._describe(), self.setup.notes, 0)
        yield Finished(0, 0.0, (note,))

    def _describe(self) -> str:
        what = self.setup.tasks.describe()
        return f"{self.experiment.learner.name} on {self.experiment.tasks.name}: {what}"

    def _expected(
        self, done: int, progress: float, seconds: float | None
    ) -> int | None:
        """The number of steps that the time allows."""
        if seconds is None or done < ESTIMATE_AFTER or progress <= 0:
            return None
        return round(self.step / progress)

    def _affordable(self) -> bool:
        """Whether validation has left enough of the time to training."""
        return self.validating <= VALIDATING * (time.monotonic() - self.clock)

    def _is_over(self, seconds: float | None) -> bool:
        steps = self.experiment.steps
        if steps is not None:
            return self.step >= steps
        return seconds is not None and self.elapsed >= seconds

    def _is_validated(self) -> bool:
        logged = [line["step"] for line in self.run.read_log()][-1:]
        return logged == [self.step] and self.run.has_weights

    def _validate(self, metrics: dict[str, float]) -> Validated:
        began = time.monotonic()
        calibrate(self.learner, self.setup.tasks, self.precision)
        self.learner.eval()
        where = self.device
        validated, noise, gpu = self.workers.once(
            lambda: (self._validated(metrics), torch.get_rng_state(), gpu_noise(where))
        )
        torch.set_rng_state(noise)
        set_gpu_noise(gpu, where)
        self.validating += time.monotonic() - began
        return validated

    def _validated(self, metrics: dict[str, float]) -> Validated:
        learner, held_out = self.learner, self.held_out
        line: dict[str, Any] = {
            "step": self.step,
            "seconds": round(time.monotonic() - self.clock, 3),
            **metrics,
        }
        kept, text = True, ""
        if held_out is not None:
            plan = TestPlan(n=held_out.validation_size, precision=self.precision)
            score = held_out.score(learner, plan) or score_of(learner, held_out, plan)
            line |= {
                "validation": score.mean,
                "validation_interval": score.interval,
                "validation_tasks": plan.n,
                "validation_unseen": self.unseen,
            }
            seen = "" if self.unseen else ", classes seen in training"
            text = f"{score.name} {score} on {plan.n} {held_out.describe()}{seen}"
            gain = (
                None
                if self.best is None
                else self.higher * (score.mean - self.best.mean)
            )
            if self.unseen:
                interval = (self.best.interval or 0.0) if self.best else 0.0
                kept = gain is None or gain >= -interval
                if math.isfinite(score.mean) and (gain is None or gain > 0):
                    self.best, self.best_step = (
                        Estimate(score.mean, score.interval),
                        self.step,
                    )
        kept = kept or not self.run.has_weights
        if kept:
            # the latest that are no worse than the best, within its interval
            self.run.save_weights(learner.state_dict())
        self.run.log(line)
        return Validated(line, kept, text)

    def _finished(self) -> Finished:
        notes = []
        if self.best is not None and self.best_step < 0.7 * self.step:
            notes.append(
                f"validation was best at step {self.best_step} of {self.step}: a "
                "shorter "
                "training may do as well"
            )
        seconds = time.monotonic() - self.clock
        return Finished(self.step, seconds, tuple(notes), self._untestable())

    def _untestable(self) -> str:
        """Why this run cannot be tested without further options, or an empty string."""
        try:
            self.experiment.test_tasks(self.learner)
        except (InnerloopError, OSError) as error:
            return str(error)
        return ""

    def _save(self) -> Saved:
        state = {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "meta_gradient": self.move.state_dict(),
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": gpu_noise(self.device),
            "step": self.step,
            "seconds": time.monotonic() - self.clock,
            "best": list(self.best) if self.best else None,
            "best_step": self.best_step,
        }
        self._check_equal(state)
        self.workers.once(lambda: self.run.save_checkpoint(state))
        self.saved_at = time.monotonic()
        return Saved(self.step)

    def _check_equal(self, state: dict[str, Any]) -> None:
        """Raises InnerloopError where the processes are not at the same parameters and
        random numbers.
        """
        if self.workers.size > 1:
            generators = {name: state[name] for name in ("generator", "noise", "torch")}
            own = digest({**trainable(self.learner), **generators})
            if len(set(self.workers.every(own))) > 1:
                raise InnerloopError(
                    f"the processes differ at step {self.step}, in parameters or "
                    "random numbers: train on machines of one kind"
                )

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.move.load_state_dict(
            to_device(state["meta_gradient"], self.experiment.where)
        )
        self.generator.set_state(state["generator"])
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["torch"])  # of learners that draw while they train
        set_gpu_noise(state["cuda"], self.device)
        self.step = operator.index(state["step"])
        self.elapsed = float(state["seconds"])
        self.best = Estimate(*map(float, state["best"])) if state["best"] else None
        self.best_step = operator.index(state["best_step"])
        if not (self.step >= 0 and 0 <= self.elapsed < math.inf):
            raise RunError("the number of steps, or the time, is negative or infinite")


def gpu_noise(device: torch.device) -> list[Tensor]:
    """The state of the random generator of a GPU, none for other devices. It is the
    same in all processes, each of which uses another GPU.
    """
    return [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


def set_gpu_noise(states: list[Tensor], device: torch.device) -> None:
    """Continue from `gpu_noise`, also of another GPU."""
    if states and device.type == "cuda":
        # an earlier checkpoint holds those of all GPUs
        own = states[min(device.index or 0, len(states) - 1)]
        torch.cuda.set_rng_state(own, device)
