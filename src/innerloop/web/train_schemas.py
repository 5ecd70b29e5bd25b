"""Schemas of the operations on trainings."""

from __future__ import annotations

from innerloop.web.http import BOOLEAN, COUNT, Schema, array, choice, record
from innerloop.web.train_form import LONGEST, MOST_MINUTES, MOST_STEPS, PRECISIONS

STRING: Schema = {"type": "string"}
MAYBE: Schema = {"type": ["number", "null"]}
NAMED: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9+_-]{0,39}$"}
RUN_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
VALUE: Schema = {
    "anyOf": [
        {"type": ["number", "boolean", "null"]},
        {"type": "string", "maxLength": LONGEST},
    ]
}
VALUES: Schema = {
    "type": "object",
    "additionalProperties": VALUE,
    "maxProperties": 100,
}
SETTING: Schema = {"type": "object"}
OPTIONS = record({part: VALUES for part in ("training", "tasks", "learner", "how")})
TRAINING = record(
    {
        "meta_gradient": {"anyOf": [NAMED, {"enum": ["", None]}]},
        "options": OPTIONS,
        "steps": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_STEPS},
        "minutes": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": MOST_MINUTES,
        },
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        "precision": choice(*PRECISIONS),
        "device": choice("cpu", "cuda"),
        "init_from": {"anyOf": [RUN_NAME, {"type": "null"}]},
    },
    name=RUN_NAME,
    learner=NAMED,
    tasks=NAMED,
)
MEASURED = record(
    name=STRING,
    mean=MAYBE,
    interval=MAYBE,
    n=COUNT,
    unit=STRING,
    transductive=BOOLEAN,
    text=STRING,
)
TABLE = record(title=STRING, rows=array(record(labels=SETTING, values=array(MEASURED))))
TEST = record(
    name=STRING,
    tasks=STRING,
    split=STRING,
    n=COUNT,
    seed=COUNT,
    settings=SETTING,
    seen_classes=COUNT,
    tables=array(TABLE),
    notes=array(STRING),
)
STATUSES = (
    *("starting", "running", "stopping", "testing"),
    *("finished", "stopped", "failed"),
)
RUN = record(
    name=RUN_NAME,
    began={"type": "number"},
    learner=STRING,
    tasks=STRING,
    meta_gradient=STRING,
    options=SETTING,
    training=SETTING,
    inputs=STRING,
    steps=MAYBE,
    minutes=MAYBE,
    step=COUNT,
    seconds={"type": "number"},
    measure=STRING,
    score=MAYBE,
    interval=MAYBE,
    trained=BOOLEAN,
    saved=BOOLEAN,
    usable=BOOLEAN,
    command=STRING,
    tests=array(TEST),
    status=choice(*STATUSES),
    problem=STRING,
)
ENTRY = record(
    name=STRING,
    family=STRING,
    summary=STRING,
    reference=STRING,
    predicts=array(STRING),
    needs=array(STRING),
)
FIELD = record(
    name=STRING,
    flag=STRING,
    type=choice("integer", "number", "switch", "text", "choice"),
    help=STRING,
    default={},
    optional=BOOLEAN,
    needed=BOOLEAN,
    from_data=BOOLEAN,
    choices=array({}),
    low=MAYBE,
    high=MAYBE,
    open_low=BOOLEAN,
    open_high=BOOLEAN,
)
CHOICES = record(
    learners=array(ENTRY),
    tasks=array(ENTRY),
    meta_gradients=array(ENTRY),
    devices=array(STRING),
    precisions=array(STRING),
    starts=array(RUN_NAME),
    folder=STRING,
    data=STRING,
    usual_meta_gradient=STRING,
    sections=array(record(part=STRING, title=STRING, fields=array(FIELD))),
    most_minutes=COUNT,
    most_steps=COUNT,
)
PLACE = record(
    run=STRING,
    learner=STRING,
    mean={"type": "number"},
    interval=MAYBE,
    unit=STRING,
    text=STRING,
    seen_classes=COUNT,
    close=BOOLEAN,
)
RANKING = record(
    tasks=STRING,
    split=STRING,
    labels=SETTING,
    measure=STRING,
    n=COUNT,
    seed=COUNT,
    higher_is_better=BOOLEAN,
    rows=array(PLACE),
)
RUNS = record(
    runs=array(RUN),
    leaderboard=array(RANKING),
    folder=STRING,
    most_runs=COUNT,
    most_at_once=COUNT,
)
EVENT: Schema = {
    "type": "object",
    "properties": {
        "event": choice(
            *("status", "started", "stepped", "validated"),
            *("saved", "finished", "end"),
        )
    },
    "required": ["event"],
}
FILLED = record(
    {"seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}},
    tasks={"type": "integer", "minimum": 1, "maximum": 10_000},
)
NAMES = {
    "learner": {**NAMED, "default": "protonet"},
    "tasks": {**NAMED, "default": "strokes"},
    "meta_gradient": {**NAMED, "pattern": "^[A-Za-z0-9+_-]{0,40}$", "default": ""},
}
