"""The progress of a training on the terminal."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from innerloop.cli.output import console
from innerloop.engine import torchrun
from innerloop.engine.errors import MissingPackageError
from innerloop.engine.progress import watched
from innerloop.events import Event, Finished, Started, Stepped, Validated
from innerloop.measurements import plain

LINE_EVERY = 30.0  # seconds between lines of a measurement without a terminal
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP wait for the end of the meta-step, so that what is
    saved is whole: the list fills. A second Ctrl-C does not wait; torchrun passes on
    the first one, so that its processes receive two.
    """
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT and torchrun.job() is None:
            raise KeyboardInterrupt
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    every = signal.Signals.__members__
    known = [every[name] for name in STOPPING if name in every]
    before = {number: signal.signal(number, note) for number in known}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def recorded(events: Iterator[Event], file: Path | None) -> Iterator[Event]:
    """The events, each also appended to a file as a JSON line; of the meta-steps about
    a thousand in a training.
    """
    if file is None:
        yield from events
        return
    shown = -math.inf
    with file.open("a", encoding="utf-8") as opened, contextlib.closing(events):  # pyright: ignore[reportArgumentType]
        for event in events:
            at = event.progress if isinstance(event, Stepped) else math.inf
            if abs(at - shown) >= 1e-3:
                shown = at if math.isfinite(at) else shown
                line = {"event": type(event).__name__.lower(), **vars(event)}
                opened.write(json.dumps(plain(line), allow_nan=False) + "\n")
                opened.flush()
            yield event


def plotted(events: Iterator[Event], folder: str | None) -> Iterator[Event]:
    """The events; those of meta-steps and validations are also written into a folder
    for TensorBoard.

    Raises MissingPackageError where TensorBoard is not installed.
    """
    if folder is None:
        return events
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "--tensorboard needs TensorBoard: pip install 'innerloop[tensorboard]'"
        ) from error
    return _plotted(events, SummaryWriter(folder, flush_secs=10))


def _plotted(events: Iterator[Event], writer: Any) -> Iterator[Event]:
    with contextlib.closing(writer), contextlib.closing(events):  # pyright: ignore[reportArgumentType]
        for event in events:
            step, scalars = event.scalars()
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            yield event


@contextlib.contextmanager
def measuring(
    to: Any, text: str = "reading", unit: str = "tasks"
) -> Iterator[Callable[[str], None]]:
    """Show what is measured, how much of it is done, and the time that is left; where
    there is no terminal, in a line every half minute. Yields what names the next
    measurement.
    """
    began = printed = time.monotonic()
    last = 0

    def say(new: str) -> None:
        nonlocal text
        text = new
        status.update(escape(text))

    def show(done: int, total: int) -> None:
        nonlocal began, printed, last
        now = time.monotonic()
        if done <= last:  # another measurement
            began = now
        last, line = done, f"{text}: {done} of {total} {unit}"
        if now - began > 5 and done < total:
            left = (now - began) * (total - done) / done
            line += f", about {left / 60:.0f} min" if left > 90 else f", {left:.0f} s"
            line += " left"
        status.update(escape(line))
        if not to.is_terminal and now - printed >= LINE_EVERY:
            printed = now
            to.print(line)

    with to.status(text) as status, watched(show):
        yield say


def follow(events: Iterator[Event], out: str | Path) -> None:
    """Show a training's events until it ends, or is interrupted.

    Raises KeyboardInterrupt after an interrupt, when the run is saved.
    """
    to = console()
    bar = Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[text]}"),
        console=to,
        disable=not to.is_terminal,
    )
    shown = bar.add_task("", total=1.0, text="")
    with stop_signals() as caught, bar:
        view = _View(to, bar, shown)
        if not drained(events, view.show, caught):
            to.print(f"stopped; the run is saved in {out}: add --resume to continue")
            raise KeyboardInterrupt
    if view.untestable:
        to.print(f"saved in {out}; to test it, choose other options: {view.untestable}")
    else:
        to.print(f"saved in {out}; test it with: innerloop test {out}")


def drained(
    events: Iterator[Event], show: Callable[[Event], None], caught: list[int]
) -> bool:
    """Show events until they end, or a signal is caught; whether the training has
    finished. It has not where another of its processes has stopped it.
    """
    event = None
    for event in events:
        show(event)
        if caught:
            events.close()  # pyright: ignore[reportAttributeAccessIssue]
            return False
    return isinstance(event, Finished)


def finish(events: Iterator[Event]) -> None:
    """A training in silence, by another process than the first.

    Raises KeyboardInterrupt after an interrupt.
    """
    with stop_signals() as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not drained(events, lambda event: None, caught):
            raise KeyboardInterrupt


class _View:
    def __init__(self, to: Any, bar: Progress, shown: Any):
        self.to, self.bar, self.shown = to, bar, shown
        self.began, self.tasks, self.validated_on = time.monotonic(), 0, ""
        self.estimated, self.untestable = False, ""

    def show(self, event: Event) -> None:
        shown: dict[type, Callable[[Any], None]] = {
            Started: self.started,
            Stepped: self.stepped,
            Validated: self.validated,
            Finished: self.finished,
        }
        shown.get(type(event), lambda event: None)(event)

    def started(self, event: Started) -> None:
        again = f" (resumed at step {event.step})" if event.step else ""
        self.lines(event.description + again, *event.notes)

    def finished(self, event: Finished) -> None:
        self.lines(*event.notes)
        self.untestable = event.untestable

    def lines(self, *texts: str) -> None:
        for text in texts:
            self.to.print(text)

    def stepped(self, event: Stepped) -> None:
        self.tasks += event.tasks
        rate = self.tasks / max(time.monotonic() - self.began, 1e-9)
        text = (
            f"step {event.step}, loss {event.metrics['loss']:.3f}, {rate:.0f} tasks/s"
        )
        self.bar.update(self.shown, completed=event.progress, text=text)
        if event.expected_steps is not None and not self.estimated:
            self.estimated = True
            self.lines(f"about {event.expected_steps} steps in the time")

    def validated(self, event: Validated) -> None:
        line = event.line
        parts = [f"step {line['step']}", f"{line['seconds']:.0f} s"]
        parts += [f"loss {line['loss']:.4f}"] if "loss" in line else []
        if event.description:
            score, _, what = event.description.partition(" on ")
            parts.append(f"validation {score}")
            if what and what != self.validated_on:
                self.validated_on = what
                self.lines(f"validation is on {what}")
        self.lines("  ".join(parts))
