"""What a project holds: in memory, as JSON and as a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from innerloop.web.http import (
    COUNT,
    NUMBER,
    Refused,
    Schema,
    array,
    check,
    record,
    text,
)
from innerloop.web.models import IMAGES, Model

FORMAT = 1
STORED, TABLE, EXAMPLES = "project.json", "examples.csv", "examples"
MOST_CLASSES = 100
MOST_EXAMPLES = 2000
NAME, TEXT = 80, 10_000  # characters
EXAMPLE_ID: Schema = {"type": "string", "pattern": "^e[1-9][0-9]{0,8}$"}
CLASS_ID: Schema = {"type": "string", "pattern": "^c[1-9][0-9]{0,8}$"}
CONTENT = record(
    format={"const": FORMAT},
    name=text(NAME),
    model=text(64),
    identity=text(4000),
    kind=text(10),
    version=COUNT,
    next=COUNT,
    classes=array(
        record(
            id=CLASS_ID,
            name=text(NAME, 1),
            examples=array(
                record(
                    id=EXAMPLE_ID,
                    text={"anyOf": [text(TEXT, 1), {"type": "null"}]},
                    row={"anyOf": [array(NUMBER, 10_000), {"type": "null"}]},
                    picture=COUNT,
                ),
                MOST_EXAMPLES,
            ),
        ),
        MOST_CLASSES,
    ),
)


@dataclass(frozen=True)
class Example:
    """One example: a text, a row of numbers, or a picture, of so many bytes."""

    id: str
    text: str | None = None
    row: tuple[float, ...] | None = None
    picture: int = 0


@dataclass(frozen=True)
class Group:
    """A class."""

    id: str
    name: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Content:
    """What can be changed, and undone, in a project."""

    name: str
    groups: tuple[Group, ...] = ()

    @property
    def examples(self) -> list[Example]:
        return [example for group in self.groups for example in group.examples]

    def put(self, group: Group) -> Content:
        """With a class in the place of the one with its identifier, or at the end."""
        if all(other.id != group.id for other in self.groups):
            return replace(self, groups=(*self.groups, group))
        groups = tuple(group if g.id == group.id else g for g in self.groups)
        return replace(self, groups=groups)


def shown(group: Group) -> dict[str, Any]:
    examples = [
        {
            "id": e.id,
            "text": e.text if e.row is None else ", ".join(f"{v:g}" for v in e.row),
            "picture": bool(e.picture),
        }
        for e in group.examples
    ]
    return {"id": group.id, "name": group.name, "examples": examples}


def plain(group: Group) -> dict[str, Any]:
    examples = [
        {
            "id": e.id,
            "text": e.text,
            "row": None if e.row is None else list(e.row),
            "picture": e.picture,
        }
        for e in group.examples
    ]
    return {"id": group.id, "name": group.name, "examples": examples}


def as_json(content: Content, model: Model, version: int, next: int) -> bytes:
    """A content as `content_of` reads it."""
    data = {
        "format": FORMAT,
        "name": content.name,
        "model": model.name,
        "identity": model.identity,
        "kind": model.kind,
        "version": version,
        "next": next,
        "classes": [plain(group) for group in content.groups],
    }
    return json.dumps(data, ensure_ascii=False).encode() + b"\n"


def content_of(data: Any) -> Content:
    """The content of a project.json. Raises Refused for any other JSON."""
    check(CONTENT, data, STORED)
    groups = tuple(
        Group(
            group["id"],
            group["name"],
            tuple(
                Example(
                    e["id"],
                    e["text"],
                    None if e["row"] is None else tuple(e["row"]),
                    e["picture"],
                )
                for e in group["examples"]
            ),
        )
        for group in data["classes"]
    )
    content = Content(data["name"], groups)
    ids = [g.id for g in groups] + [e.id for e in content.examples]
    names = [g.name for g in groups]
    most = max((int(id[1:]) for id in ids), default=0)
    if len(set(ids)) < len(ids) or len(set(names)) < len(names) or most >= data["next"]:
        raise Refused(422, "damaged", f"{STORED}: names or identifiers are twice there")
    kinds = {
        (e.text is not None, e.row is not None, e.picture > 0) for e in content.examples
    }
    own = {"text": (True, False, False), "row": (False, True, False)}
    if kinds - {own.get(data["kind"], (False, False, True))}:
        raise Refused(422, "damaged", f"{STORED}: an example is no {data['kind']:.10}")
    if len(content.examples) > MOST_EXAMPLES:
        raise Refused(422, "damaged", f"{STORED}: it has too many examples")
    return content


def table(content: Content, model: Model) -> bytes:
    """The examples as the table that `innerloop adapt --support` reads."""
    memory = io.StringIO()
    writer = csv.writer(memory)
    writer.writerow([*model.columns, model.label_column])
    for group in content.groups:
        for e in group.examples:
            if model.kind in IMAGES:
                cells: Sequence[Any] = [f"{EXAMPLES}/{e.id}.png"]
            else:
                cells = [e.text] if e.row is None else list(map(repr, e.row))
            writer.writerow([*cells, group.name])
    return memory.getvalue().encode()


def damaged(id: str) -> Refused:
    return Refused(422, "damaged", f"the folder of the project {id} is damaged")


def full(message: str) -> Refused:
    return Refused(507, "full", message)
