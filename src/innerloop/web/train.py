"""Operations on trainings: start, watch, stop, resume, test and compare them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from innerloop.assembly import usual_meta_gradient
from innerloop.engine.errors import InnerloopError
from innerloop.web.http import (
    BOOLEAN,
    Call,
    Operation,
    Refused,
    record,
)
from innerloop.web.train_files import History, leaderboard
from innerloop.web.train_form import (
    MOST_MINUTES,
    MOST_STEPS,
    PRECISIONS,
    Form,
    catalog,
    devices,
    shell_line,
)
from innerloop.web.train_schemas import (
    CHOICES,
    EVENT,
    FILLED,
    NAMES,
    RUN,
    RUNS,
    STRING,
    TRAINING,
)
from innerloop.web.trainings import MOST_AT_ONCE, MOST_RUNS, Conflict, Trainings

Result = TypeVar("Result")

POLL = 0.3  # seconds between looks at the files of a run
STATUS_EVERY = 5  # looks
MOST_STREAMS = 32
STATUS_OF = {"training": 403, "missing": 404}  # of a Conflict; 409 otherwise
RESERVED = ("allowed", "choices", "command")  # names in addresses


async def _thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function that reads or writes small files, in a thread."""
    try:
        return await anyio.to_thread.run_sync(partial(function, *arguments))
    except Conflict as conflict:
        raise _refused(conflict) from conflict


async def _computed(
    call: Call, function: Callable[..., Result], *arguments: Any
) -> Result:
    """The result of a function that imports or checks much."""
    try:
        return await call.compute(function, *arguments)
    except Conflict as conflict:
        raise _refused(conflict) from conflict


def _refused(conflict: Conflict) -> Refused:
    return Refused(STATUS_OF.get(conflict.code, 409), conflict.code, str(conflict))


def _trainings(call: Call) -> Trainings:
    """Raises Refused where trainings are not allowed."""
    trainings: Trainings = call.state.trainings
    try:
        trainings.root  # noqa: B018
    except Conflict as conflict:
        raise _refused(conflict) from conflict
    return trainings


# ------------------------------------------------------------------ operations


async def allowed(call: Call) -> Any:
    return {"allowed": call.state.settings.training is not None}


async def choices(call: Call) -> Any:
    trainings = _trainings(call)
    return await _computed(call, _choices, trainings, dict(call.path))


def _choices(trainings: Trainings, named: dict[str, str]) -> Any:
    form = Form(
        named["learner"], named["tasks"], named["meta_gradient"], trainings.data
    )
    return {
        **catalog(),
        "devices": devices(),
        "precisions": list(PRECISIONS),
        "starts": [run["name"] for run in trainings.all() if run["usable"]],
        "folder": str(trainings.root),
        "data": str(trainings.data),
        "usual_meta_gradient": usual_meta_gradient(form.learner),
        "sections": form.fields(),
        "most_minutes": MOST_MINUTES,
        "most_steps": MOST_STEPS,
    }


async def command(call: Call) -> Any:
    trainings = _trainings(call)
    _, line = await _computed(call, _words, trainings, call.body)
    return {"command": line}


def _words(trainings: Trainings, body: dict[str, Any]) -> tuple[list[str], str]:
    """What follows `innerloop train`, without the folder; and the whole line."""
    form = Form(
        body["learner"],
        body["tasks"],
        body.get("meta_gradient") or "",
        trainings.data,
    )
    if body.get("steps") is not None and body.get("minutes") is not None:
        raise InnerloopError("choose steps or minutes, not both")
    words = [form.learner, form.tasks, *form.arguments(body.get("options") or {})]
    for name in ("meta_gradient", "steps", "minutes", "seed", "precision", "device"):
        if (value := body.get(name)) not in (None, ""):
            words += ["--" + name.replace("_", "-"), str(value)]
    if body.get("device") not in (None, *devices()):
        raise InnerloopError(f"device must be one of {', '.join(devices())}")
    if (start := body.get("init_from")) is not None:
        words += ["--init-from", str(trainings.run(start).resolve())]
    line = shell_line(["train", *words, "--out", str(trainings.root / body["name"])])
    return words, line


async def start(call: Call) -> Any:
    trainings, body = _trainings(call), call.body
    if body["name"] in RESERVED:
        raise Refused(409, "name", "choose another name for the run")
    words, line = await _computed(call, _words, trainings, body)
    kept = ("learner", "tasks", "meta_gradient", "steps", "minutes")
    asked = {name: body.get(name) for name in kept}
    await _thread(trainings.start, body["name"], words, asked, line)
    return await _thread(trainings.describe, body["name"])


async def list_runs(call: Call) -> Any:
    trainings = _trainings(call)
    return await _thread(_listed, trainings)


def _listed(trainings: Trainings) -> Any:
    runs = trainings.all()
    return {
        "runs": runs,
        "leaderboard": leaderboard(runs),
        "folder": str(trainings.root),
        "most_runs": MOST_RUNS,
        "most_at_once": MOST_AT_ONCE,
    }


async def one_run(call: Call) -> Any:
    return await _thread(_trainings(call).describe, call.path["run"])


async def events(call: Call) -> Any:
    trainings, name = _trainings(call), call.path["run"]
    run = await _thread(trainings.run, name)
    if trainings.streams >= MOST_STREAMS:
        raise Refused(429, "rate", "too many pages watch trainings")
    return _follow(trainings, name, History(run))


async def _follow(
    trainings: Trainings, name: str, history: History
) -> AsyncIterator[dict[str, Any]]:
    """What has happened in a run, then what happens until its process ends."""
    looks, before = 0, None
    with trainings.watching():
        while True:
            active = trainings.active(name)  # before the files are read
            if not active or looks % STATUS_EVERY == 0:
                run = await anyio.to_thread.run_sync(trainings.describe, name)
                if run != before:
                    yield {"event": "status", "run": run}
                before = run
            for event in await anyio.to_thread.run_sync(history.new):
                yield event
            if not active:
                yield {"event": "end"}
                return
            looks += 1
            await anyio.sleep(POLL)


async def stop(call: Call) -> Any:
    return await _done(call, _trainings(call).stop)


async def resume(call: Call) -> Any:
    return await _done(call, _trainings(call).resume)


async def test(call: Call) -> Any:
    tasks, seed = call.body["tasks"], call.body.get("seed", 0)
    return await _done(call, _trainings(call).test, tasks, seed)


async def delete(call: Call) -> Any:
    await _thread(_trainings(call).delete, call.path["run"])
    return {"deleted": call.path["run"]}


async def _done(call: Call, act: Callable[..., None], *arguments: Any) -> Any:
    """Act on the run that is named; returns it."""
    name = call.path["run"]
    await _thread(act, name, *arguments)
    return await _thread(_trainings(call).describe, name)


# ------------------------------------------------------------------ interface

ALL, ONE = "/api/trainings", "/api/trainings/{run}"

OPERATIONS: list[Operation] = [
    Operation(
        "GET",
        f"{ALL}/allowed",
        "trainingAllowed",
        "Whether the server was started with --allow-training.",
        allowed,
        record(allowed=BOOLEAN),
    ),
    Operation(
        "GET",
        f"{ALL}/choices",
        "trainingChoices",
        "What can be trained, and the options of one learner and task source.",
        choices,
        CHOICES,
        query=NAMES,
    ),
    Operation(
        "POST",
        f"{ALL}/command",
        "trainingCommand",
        "The command line that a filled form stands for; nothing is started.",
        command,
        record(command=STRING),
        TRAINING,
    ),
    Operation("POST", ALL, "startTraining", "Start a training.", start, RUN, TRAINING),
    Operation("GET", ALL, "trainings", "All runs, and who leads.", list_runs, RUNS),
    Operation("GET", ONE, "training", "One run.", one_run, RUN),
    Operation(
        "GET",
        f"{ONE}/events",
        "trainingEvents",
        "What has happened in a run, then what happens until it ends.",
        events,
        EVENT,
        result_type="text/event-stream",
    ),
    Operation(
        "POST", f"{ONE}/stop", "stopTraining", "Stop; it can be resumed.", stop, RUN
    ),
    Operation(
        "POST", f"{ONE}/resume", "resumeTraining", "Continue a training.", resume, RUN
    ),
    Operation(
        "POST",
        f"{ONE}/test",
        "testTraining",
        "Measure a run on unseen tasks.",
        test,
        RUN,
        FILLED,
    ),
    Operation(
        "DELETE",
        ONE,
        "deleteTraining",
        "Delete a run that does not go on.",
        delete,
        record(deleted=STRING),
    ),
]
