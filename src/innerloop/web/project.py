"""One project: classes with examples, in memory and in its folder."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from innerloop.estimators import FILE, FewShotClassifier
from innerloop.runs import write_atomically
from innerloop.web.content import (
    EXAMPLES,
    MOST_CLASSES,
    MOST_EXAMPLES,
    NAME,
    STORED,
    TABLE,
    Content,
    Example,
    Group,
    as_json,
    damaged,
    full,
    shown,
    table,
)
from innerloop.web.http import Refused
from innerloop.web.insight import Fitted, Map
from innerloop.web.models import Model, clean
from innerloop.web.pictures import png, stored

UNDO = 50
MOST_BYTES = 112 * 2**20  # of the pictures of a project, so that it can be sent back
CHUNK = 64  # pictures in memory at once


class Project:
    """A project. Every change is written at once; a change that cannot be written does
    not happen.

    Args:
        id: in the interface, and the name of its folder.
        folder: on disk.
        model: what is taught.
        content: what it holds.
        charge: is told how many bytes more the disk will hold; raises Refused.
        next, version: of a project that was stored.
    """

    def __init__(
        self,
        id: str,
        folder: Path,
        model: Model,
        content: Content,
        charge: Callable[[int], None],
        next: int = 1,
        version: int = 0,
    ):
        self.id, self.folder, self.model, self.content = id, folder, model, content
        self.version, self.changed = version, time.monotonic()
        self.lock = threading.RLock()
        self._next, self._charge = next, charge
        self._undo: deque[Content] = deque(maxlen=UNDO)
        self._vectors: dict[str, Tensor] = {}
        self._fitted: Fitted | None = None
        self._map: Map | None = None
        self._stored = 0  # bytes of the files that are written anew
        self.estimator_is_current = False
        self.removed = False

    # ------------------------------------------------------------- what it is

    def state(self) -> dict[str, Any]:
        """What the interface says of it."""
        with self.lock:
            return {
                "id": self.id,
                "name": self.content.name,
                "model": self.model.name,
                "kind": self.model.kind,
                "saved": True,
                "folder": str(self.folder.absolute()),
                "classes": [shown(group) for group in self.content.groups],
                "can_undo": bool(self._undo),
                "examples": len(self.content.examples),
                "version": self.version,
            }

    @property
    def memory(self) -> int:
        """Bytes of its vectors, about."""
        first = next(iter(list(self._vectors.values())[:1]), None)
        return 0 if first is None else 4 * first.numel() * len(self._vectors)

    def group(self, id: str) -> Group:
        found = next((g for g in self.content.groups if g.id == id), None)
        if found is None:
            raise Refused(404, "class", "there is no such class")
        return found

    def picture(self, id: str) -> Image.Image:
        """The picture of an example."""
        with self.lock:
            found = next((e for e in self.content.examples if e.id == id), None)
            if found is None or not found.picture:
                raise Refused(404, "example", "there is no such picture")
            return stored(self._file(found).read_bytes())

    def _file(self, example: Example) -> Path:
        return self.folder / EXAMPLES / f"{example.id}.png"

    # ---------------------------------------------------------------- changes

    def rename(self, name: str) -> None:
        with self.lock:
            self._change(replace(self.content, name=clean(name)[:NAME] or "Project"))

    def add_group(self, name: str) -> None:
        with self.lock:
            group = Group(self._new("c"), self._free(name))
            self._room(classes=1)
            self._change(self.content.put(group))

    def rename_group(self, id: str, name: str) -> None:
        with self.lock:
            group = self.group(id)
            self._change(self.content.put(replace(group, name=self._free(name, id))))

    def remove_group(self, id: str) -> None:
        with self.lock:
            self.group(id)
            kept = tuple(g for g in self.content.groups if g.id != id)
            self._change(replace(self.content, groups=kept))

    def remove_example(self, id: str) -> None:
        with self.lock:
            for group in self.content.groups:
                kept = tuple(e for e in group.examples if e.id != id)
                if len(kept) < len(group.examples):
                    self._change(self.content.put(replace(group, examples=kept)))
                    return
            raise Refused(404, "example", "there is no such example")

    def undo(self) -> None:
        with self.lock:
            if not self._undo:
                raise Refused(409, "undo", "there is nothing to undo")
            before = self._undo.pop()
            try:
                self._write(before)
            except BaseException:
                self._undo.append(before)
                raise
            self._forget()

    def add(self, labeled: Sequence[tuple[str, Any]], by_name: bool = False) -> None:
        """Add items as one change, each with the identifier of its class, or its name
        where `by_name`: classes that do not exist are made.
        """
        if not labeled:
            return
        z = self.model.new_vectors([item for _, item in labeled])
        with self.lock:
            content = self.content
            self._room(examples=len(labeled))
            added: dict[str, list[Example]] = {}
            if by_name:
                content, labeled = self._with_classes(content, labeled)
            for id, _ in labeled:
                self.group(id) if not by_name else None
            files: list[Path] = []
            try:
                for (id, item), vector in zip(labeled, z, strict=True):
                    example = self._made(item, files)
                    self._vectors[example.id] = vector.clone()
                    added.setdefault(id, []).append(example)
                for group in content.groups:
                    more = tuple(added.get(group.id, ()))
                    group = replace(group, examples=(*group.examples, *more))
                    content = content.put(group)
                self._change(content)
            except BaseException:
                self._remove_files(files)
                raise

    def _with_classes(
        self, content: Content, labeled: Sequence[tuple[str, Any]]
    ) -> tuple[Content, list[tuple[str, Any]]]:
        known = {group.name: group.id for group in content.groups}
        for name in dict.fromkeys(name for name, _ in labeled):
            if name not in known:
                group = Group(self._new("c"), name)
                known[name] = group.id
                content = content.put(group)
        if len(content.groups) > MOST_CLASSES:
            raise full(f"a project has at most {MOST_CLASSES} classes")
        return content, [(known[name], item) for name, item in labeled]

    def _made(self, item: Any, files: list[Path]) -> Example:
        """An example of an item; a picture is written."""
        id = self._new("e")
        if isinstance(item, str):
            return Example(id, text=item)
        if not isinstance(item, Image.Image):
            return Example(id, row=tuple(item))
        content = png(item)
        held = sum(e.picture for e in self.content.examples)
        if held + len(content) > MOST_BYTES:
            raise full(f"the pictures of a project have at most {MOST_BYTES >> 20} MiB")
        self._charge(len(content))
        example = Example(id, picture=len(content))
        file = self._file(example)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.append(file)
        write_atomically(file, content)
        return example

    def _new(self, letter: str) -> str:
        id = f"{letter}{self._next}"
        self._next += 1
        return id

    def _free(self, name: str, own: str = "") -> str:
        """A name for a class that no other class has."""
        name = " ".join(clean(name)[:NAME].split())
        if not name:
            raise Refused(422, "invalid", "a class needs a name")
        if any(g.name == name and g.id != own for g in self.content.groups):
            raise Refused(409, "name", "another class has that name")
        return name

    def _room(self, classes: int = 0, examples: int = 0) -> None:
        if len(self.content.groups) + classes > MOST_CLASSES:
            raise full(f"a project has at most {MOST_CLASSES} classes")
        if len(self.content.examples) + examples > MOST_EXAMPLES:
            raise full(f"a project has at most {MOST_EXAMPLES:,} examples")

    def _change(self, content: Content) -> None:
        before = self.content
        self._write(content)
        dropped = self._undo[0] if len(self._undo) == UNDO else None
        self._undo.append(before)
        if dropped is not None:
            self._forget(dropped.examples)

    def forget_changes(self) -> None:
        """Changes so far cannot be undone."""
        with self.lock:
            self._undo.clear()
            self._forget()

    def _forget(self, candidates: Iterable[Example] | None = None) -> None:
        """Remove the pictures and vectors of examples that cannot come back."""
        kept = {e.id for c in (self.content, *self._undo) for e in c.examples}
        ids = set(self._vectors) if candidates is None else {e.id for e in candidates}
        gone = ids - kept
        for id in gone:
            self._vectors.pop(id, None)
        self._remove_files([self.folder / EXAMPLES / f"{id}.png" for id in gone])

    def _remove_files(self, files: Iterable[Path]) -> None:
        for file in files:
            with suppress(OSError):
                size = file.stat().st_size
                file.unlink()
                self._charge(-size)

    # ------------------------------------------------------------------ files

    def _write(self, content: Content) -> None:
        """Write a content, and make it the project's."""
        if self.removed:
            raise Refused(404, "project", "there is no such project")
        model, version = self.model, self.version + 1
        files = {
            TABLE: table(content, model),
            STORED: as_json(content, model, version, self._next),
        }
        size = sum(map(len, files.values()))
        self._charge(size - self._stored)
        self._stored = size
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # it would be of another content
            old = (self.folder / FILE).stat().st_size
            (self.folder / FILE).unlink()
            self._charge(-old)
        for name, value in files.items():
            write_atomically(self.folder / name, value)
        self.content, self.version = content, version
        self.changed = time.monotonic()
        if self._fitted is not None:
            self._map = self._fitted.shown
        self._fitted, self.estimator_is_current = None, False

    def has_picture(self, example: Example) -> bool:
        with suppress(OSError):
            return self._file(example).stat().st_size > 0
        return False

    def tidy(self) -> None:
        """Remove what an interrupted server left behind in the folder of a project that
        was stored.
        """
        names = {f"{example.id}.png" for example in self.content.examples}
        with suppress(OSError):
            self._remove_files(
                f for f in (self.folder / EXAMPLES).iterdir() if f.name not in names
            )
            self._remove_files(self.folder.glob(".*.part"))
        for name in (TABLE, STORED):
            with suppress(OSError):
                self._stored += (self.folder / name).stat().st_size
        self.estimator_is_current = (self.folder / FILE).is_file()

    def create(self) -> None:
        """Write a new project."""
        with self.lock:
            self._write(self.content)

    def save_estimator(self) -> None:
        """Write the fitted classifier, which `FewShotClassifier.load` reads."""
        with self.lock:
            content = self.content
            if self.estimator_is_current or self.removed:
                return
        examples = [(g.name, e) for g in content.groups for e in g.examples]
        if len({name for name, _ in examples}) >= 2:
            items = [self._item(example) for _, example in examples]
            if self.model.kind == "row":
                items = torch.tensor(items).numpy()  # pyright: ignore[reportAssignmentType]
            classifier = FewShotClassifier(self.model.learner)
            classifier.fit(items, [name for name, _ in examples])
            classifier.save(self.folder)
        with self.lock:
            file = self.folder / FILE
            size = file.stat().st_size if file.is_file() else 0
            try:
                self._charge(size)
                self.estimator_is_current = self.content is content
            except Refused:  # it can be made again
                file.unlink(missing_ok=True)
                return
            if not self.estimator_is_current or self.removed:
                self._remove_files([file])

    def _item(self, example: Example) -> Any:
        """An example as its reader takes it."""
        if example.text is not None:
            return example.text
        if example.row is not None:
            return list(example.row)
        return stored(self._file(example).read_bytes())

    # ------------------------------------------------------------ predictions

    def fitted(self) -> Fitted:
        """The classifier of the examples. Raises Refused for fewer than two classes."""
        with self.lock:
            if self._fitted is None:
                pairs = [(g.name, e) for g in self.content.groups for e in g.examples]
                if len({name for name, _ in pairs}) < 2:
                    raise Refused(409, "few", "give examples of two classes first")
                self._embed([example for _, example in pairs])
                z = torch.stack([self._vectors[example.id] for _, example in pairs])
                ids = [example.id for _, example in pairs]
                names = [name for name, _ in pairs]
                self._fitted = Fitted(self.model.head, ids, names, z, self._map)
            return self._fitted

    def _embed(self, examples: Sequence[Example]) -> None:
        """Compute vectors that are not in memory, such as those of a stored project."""
        missing = [e for e in examples if e.id not in self._vectors]
        for begin in range(0, len(missing), CHUNK):
            some = missing[begin : begin + CHUNK]
            try:
                z = self.model.vectors([self._item(example) for example in some])
            except OSError as error:
                raise damaged(self.id) from error
            self._vectors |= {e.id: v.clone() for e, v in zip(some, z, strict=True)}
