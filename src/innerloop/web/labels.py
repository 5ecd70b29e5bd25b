"""Labels for many inputs at once: of a project, and of examples that are not kept."""

from __future__ import annotations

import base64
import binascii
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from innerloop.core.task import Examples, TaskSpec
from innerloop.labeling import Labeling, folder_name
from innerloop.learners.active import ActiveLearner
from innerloop.readers.base import Inputs
from innerloop.readers.files import Sheet, read_sheet
from innerloop.readers.sources import LABEL_COLUMNS
from innerloop.web.content import NAME, TEXT
from innerloop.web.http import File, Refused
from innerloop.web.insight import Fitted
from innerloop.web.models import IMAGES, Model, clean
from innerloop.web.pictures import Decoders

MOST = 2000  # inputs
MOST_TABLE = 16 * 2**20  # bytes of a table
MOST_LINES = 50 * MOST  # of a table, which are counted before it is read
CHUNK = 32  # pictures in memory at once
NEXT = 20  # inputs that are named to label next
POOL = 500  # inputs, the least certain, that these are chosen from
NO_TABLES = (b"PK", b"PAR1", b"\x1f\x8b", b"\xd0\xcf\x11\xe0", b"BZh", b"\xfd7zXZ")


@dataclass
class Read:
    """Inputs that were read.

    Args:
        names: of each.
        z: their vectors.
        files: the file of each, where inputs are files.
        refused: the name and reason of those that could not be read.
    """

    names: list[str]
    z: Tensor
    files: list[File]
    refused: list[dict[str, str]]


def refusal(name: str, reason: str) -> dict[str, str]:
    return {"name": clean(name)[-120:], "message": reason[:200]}


def pictures_of(
    model: Model, files: Sequence[File], decoders: Decoders, use: Callable[[Any], None]
) -> tuple[list[File], list[dict[str, str]]]:
    """Decode files of pictures and hand them over, some at a time; returns those that
    could be read, and the refused.
    """
    good, refused, some = [], [], []
    for file in files:
        try:
            some.append(decoders.image(file.content, model.side))
            good.append(file)
        except Refused as error:
            refused.append(refusal(file.name, error.message))
        if len(some) == CHUNK:
            use(some)
            some = []
    if some:
        use(some)
    return good, refused


def is_table(file: File) -> bool:
    return file.name.lower().endswith((".csv", ".tsv", ".txt"))


def sheet_of(file: File) -> Sheet:
    """The rows of a table of texts. Raises Refused or InnerloopError for others."""
    if file.content.startswith(NO_TABLES) or b"\0" in file.content[:4096].lstrip(
        b"\xff\xfe\0"
    ).replace(b"\0", b"", 2048):
        raise Refused(422, "table", "a table is a .csv with a header")
    if len(file.content) > MOST_TABLE:
        raise Refused(413, "table", f"a table has at most {MOST_TABLE >> 20} MiB")
    lines = file.content.count(b"\n") + file.content.count(b"\r")
    if lines > 2 * MOST_LINES:  # a line may end in both
        raise Refused(422, "table", f"a table has at most {MOST_LINES:,} lines")
    sheet = read_sheet(Path("table.csv"), content=file.content)
    if len(sheet.rows) > MOST:
        raise Refused(422, "table", f"a table has at most {MOST:,} rows")
    return sheet


def labeled_rows(
    model: Model, file: File
) -> tuple[list[tuple[str, Any]], list[dict[str, str]]]:
    """The examples in a table, each with its label; and the lines that were refused."""
    sheet = sheet_of(file)
    own = model.label_column
    column = next((n for n in (own, *LABEL_COLUMNS) if sheet.find(n) is not None), own)
    labels = [label_of(label) for label in sheet.labels(column)]
    return _rows(model, sheet, labels)


def label_of(text: str) -> str:
    """The name of a class, from a label."""
    return " ".join(clean(text)[:NAME].split())


def _rows(
    model: Model, sheet: Sheet, labels: Sequence[str]
) -> tuple[list[tuple[str, Any]], list[dict[str, str]]]:
    refused = [refusal(f"line {line}", why) for line, why in sheet.malformed]
    found: list[tuple[str, Any]] = []
    cells = [sheet.column(_column(model, sheet, name)) for name in model.columns]
    for i, label in enumerate(labels):
        name = f"line {sheet.lines[i]}"
        row = [str(column[i]) for column in cells]
        if not label:
            refused.append(refusal(name, "it has no label"))
            continue
        if model.kind == "text":
            if text := clean(row[0]):
                found.append((label, text[:TEXT]))
            else:
                refused.append(refusal(name, "it has no text"))
            continue
        try:
            values = [float(value) for value in row]
            if not np.isfinite(values).all():
                raise ValueError
            found.append((label, values))
        except ValueError:
            refused.append(refusal(name, "it is no row of numbers"))
    return found, refused


def _column(model: Model, sheet: Sheet, name: str) -> str:
    """The column of a table that a column of the model is, for texts also the only one
    that holds no labels.
    """
    if sheet.find(name) is None and model.kind == "text":
        folded = [model.label_column, *LABEL_COLUMNS]
        others = [c for c in sheet.columns if c.casefold() not in folded]
        if len(others) == 1:
            return others[0]
    return name


def lines_of(file: File) -> list[str]:
    """The lines of a text file that are not empty."""
    if len(file.content) > MOST_TABLE:
        raise Refused(413, "table", f"a text file has at most {MOST_TABLE >> 20} MiB")
    lines = file.content.decode("utf-8-sig", "replace").splitlines()
    found = [text[:TEXT] for line in lines if (text := clean(line))]
    if len(found) > MOST:
        raise Refused(422, "table", f"at most {MOST:,} lines are labeled at once")
    return found


def read_inputs(model: Model, files: Sequence[File], decoders: Decoders) -> Read:
    """The inputs in files: pictures, or one table or text file."""
    vectors: list[Tensor] = []
    if model.kind in IMAGES:
        good, refused = pictures_of(
            model, files, decoders, lambda some: vectors.append(model.new_vectors(some))
        )
        names = [clean(file.name) or "picture" for file in good]
    else:
        if len(files) != 1 or not is_table(files[0]):
            raise Refused(422, "kind", "send one .csv or .txt with what to label")
        good, refused, items = [], [], []
        if model.kind == "text" and files[0].name.lower().endswith(".txt"):
            items = lines_of(files[0])
        else:
            sheet = sheet_of(files[0])
            pairs, refused = _rows(model, sheet, ["-"] * len(sheet.rows))
            items = [item for _, item in pairs]
        if items:
            vectors.append(model.new_vectors(items))
        names = [
            item if isinstance(item, str) else ", ".join(f"{v:g}" for v in item)
            for item in items
        ]
    if not vectors:
        why = f": {refused[0]['message']}" if refused else ""
        raise Refused(422, "empty", f"nothing could be read{why}"[:290])
    return Read(names, torch.cat(vectors), good, refused)


def labeling(model: Model, fitted: Fitted, read: Read) -> Labeling:
    """What `innerloop adapt` says of the inputs."""
    return Labeling(
        model.reader,
        Inputs(fitted.support.x, fitted.labels, fitted.labels),
        Inputs(read.z, read.names),
        fitted.classes,
        fitted.probabilities(read.z),
        fitted.rejected(read.z),
    )


def rows_of(found: Labeling) -> list[dict[str, Any]]:
    """A labeling as JSON."""
    rows = []
    for i, (name, row, places) in enumerate(
        zip(found.query.names, found.probabilities, found.order, strict=True)
    ):
        first, second = int(places[0]), int(places[1])
        rows.append(
            {
                "name": name,
                "label": found.classes[first],
                "none": bool(found.rejected[i]),
                "probability": round(float(row[first]), 4),
                "second": found.classes[second],
                "second_probability": round(float(row[second]), 4),
            }
        )
    return rows


def ask_next(fitted: Fitted, z: Tensor, p: NDArray[np.float64]) -> list[int]:
    """Which inputs to label next, the most informative first: uncertain ones that are
    unlike each other, by the baseline "entropy" of `ActiveLearner`.
    """
    margin = np.sort(p, 1)[:, -1] - np.sort(p, 1)[:, -2]
    pool = np.argsort(margin, kind="stable")[:POOL]
    support = fitted.support
    flat = F.normalize(
        torch.cat([support.x, z[torch.from_numpy(pool.copy())]]).flatten(1).float()
        - support.x.flatten(1).float().mean(0),
        dim=-1,
    )
    n = len(support.x)
    spec = TaskSpec("classes", tuple(flat.shape[1:]), support.y.shape[1])
    learner = ActiveLearner.build(spec, strategy="entropy")
    known = Examples(flat[:n], support.y.float())
    with torch.no_grad():
        chosen = learner.next_to_label(flat[n:], known, min(NEXT, len(pool)))
    return [int(pool[i]) for i in chosen]


def sorted_into(found: Labeling, files: Sequence[File]) -> bytes:
    """The files as an archive, each in a folder with the name of its label."""
    memory, used = io.BytesIO(), set()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for file, label in zip(files, found.labels, strict=True):
            base = PurePosixPath(file.name.replace("\\", "/")).name
            base = re.sub(r"[^\w. ()+,=@-]", "_", clean(base)).strip(". ")[-100:]
            stem, dot, suffix = (base or "picture").rpartition(".")
            name, count = base or "picture", 1
            while (path := f"{folder_name(label)}/{name}") in used:
                count += 1
                name = f"{stem or suffix}-{count}{dot + suffix if stem else ''}"
            used.add(path)
            archive.writestr(path, file.content)
    return memory.getvalue()


def predict(model: Model, body: dict[str, Any], decoders: Decoders) -> dict[str, Any]:
    """Labels for a query, from a support set that comes with it."""

    def item(value: dict[str, Any]) -> Any:
        if "picture" not in value:
            return model.item(value)
        if model.kind not in IMAGES:
            raise Refused(422, "kind", f"this model reads {model.kind}s")
        try:
            content = base64.b64decode(value["picture"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(422, "picture", f"this is no base64: {error}") from error
        return decoders.image(content, model.side)

    names = [label_of(value["label"]) for value in body["support"]]
    if len(set(names)) < 2 or "" in names:
        raise Refused(409, "few", "give examples of two classes at least, with names")
    z = model.new_vectors([item(v) for v in [*body["support"], *body["query"]]])
    n = len(names)
    fitted = Fitted(model.head, [str(i) for i in range(n)], names, z[:n])
    p = fitted.probabilities(z[n:])
    return {
        "labels": [fitted.classes[i] for i in p.argmax(1)],
        "probabilities": [
            {c: round(float(v), 4) for c, v in zip(fitted.classes, row, strict=True)}
            for row in p
        ],
        "none": [bool(value) for value in fitted.rejected(z[n:])],
    }
