"""JSON schemas of the operations on projects."""

from __future__ import annotations

from innerloop.web.content import NAME, TEXT
from innerloop.web.drawings import DRAWING
from innerloop.web.http import (
    BOOLEAN,
    COUNT,
    NUMBER,
    SHARE,
    Schema,
    array,
    choice,
    record,
    text,
)

MOST_ADDED = 200  # examples in one call

ID = text(64)
PLACE: Schema = {"type": "number", "minimum": -1, "maximum": 1}
TEXTUAL = text(TEXT, 1)
ROW = array(NUMBER, 10_000, 1)
KIND = choice("drawing", "image", "text", "row")
MODEL = record(
    {"missing": text(60), "columns": array(text(200))},
    name=text(64),
    title=text(200),
    kind=KIND,
    ready=BOOLEAN,
    note=text(1000),
)
EXAMPLE = record(
    id=ID, text={"anyOf": [text(1_000_000), {"type": "null"}]}, picture=BOOLEAN
)
CLASS = record(id=ID, name=text(NAME), examples=array(EXAMPLE))
STATE = record(
    id=ID,
    name=text(NAME),
    model=text(64),
    kind=KIND,
    saved=BOOLEAN,
    folder=text(5000),
    classes=array(CLASS),
    can_undo=BOOLEAN,
    examples=COUNT,
    version=COUNT,
)
REFUSED = array(record(name=text(200), message=text(300)))
ONE: Schema = {
    "anyOf": [record(drawing=DRAWING), record(text=TEXTUAL), record(row=ROW)]
}
SOME: Schema = {
    "anyOf": [
        record(drawings=array(DRAWING, MOST_ADDED, 1)),
        record(texts=array(TEXTUAL, MOST_ADDED, 1)),
        record(rows=array(ROW, MOST_ADDED, 1)),
    ]
}
ANSWER = record(
    classes=array(record(id=ID, name=text(NAME), probability=SHARE)),
    none=BOOLEAN,
    neighbors=array(record(example=ID, similarity=NUMBER), 5),
    point={"anyOf": [array(PLACE, 2, 2), {"type": "null"}]},
    milliseconds=NUMBER,
)
ACCURACY = record(correct=COUNT, of=COUNT)
INSIGHT = record(
    {"version": COUNT},
    map=array(record({"class": ID}, example=ID, x=PLACE, y=PLACE)),
    accuracy={"anyOf": [ACCURACY, {"type": "null"}]},
    doubtful=array(record(example=ID, looks_like=ID)),
)
LABELED = record(
    rows=array(
        record(
            name=text(TEXT),
            label=text(NAME),
            none=BOOLEAN,
            probability=SHARE,
            second=text(NAME),
            second_probability=SHARE,
        )
    ),
    ask_next=array(COUNT),
    refused=REFUSED,
)
ENTRY: dict[str, Schema] = {
    "text": TEXTUAL,
    "row": ROW,
    "drawing": DRAWING,
    "picture": text(2**21, 1),
}
QUERY: Schema = {"anyOf": [record(None, **{n: s}) for n, s in ENTRY.items()]}
SUPPORT: Schema = {
    "anyOf": [record(None, label=text(NAME, 1), **{n: s}) for n, s in ENTRY.items()]
}
PREDICTED = record(
    labels=array(text(NAME)),
    probabilities=array({"type": "object", "additionalProperties": SHARE}),
    none=array(BOOLEAN),
)
BYTES: Schema = {"type": "string", "format": "binary"}
MODELS = record(models=array(MODEL))
LISTED = record(
    projects=array(record(id=ID, name=text(NAME), model=text(64), examples=COUNT))
)
