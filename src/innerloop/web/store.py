"""Projects of sessions: bounded in memory, and on disk from the first example on."""

from __future__ import annotations

import atexit
import hashlib
import json
import re
import secrets
import shutil
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.web.content import (
    NAME,
    STORED,
    Content,
    content_of,
    damaged,
)
from innerloop.web.http import Refused
from innerloop.web.models import Model, Models, clean
from innerloop.web.pictures import Decoders
from innerloop.web.project import Project

ID = re.compile(r"[0-9a-f]{16}")
MOST_OPEN = 1000  # projects in memory
MOST_MEMORY = 2**29  # bytes of their vectors
MOST_DISK = 8 * 2**30  # bytes of all projects
MOST_PROJECTS = 200  # of a session
LEAST = 4096  # bytes that a project counts at least
MOST_JSON = 64 * 2**20  # bytes of a project.json
OFTEN = 32  # uses of projects, between which memory is not counted
QUIET = 2.0  # seconds without a change, after which the estimator is written
REST = 20  # times as long as an estimator took to write, before the next one


class Disk:
    """How many bytes projects have on disk.

    Args:
        folder: of all projects.
        most: bytes.
    """

    def __init__(self, folder: Path, most: int):
        self.folder, self.most = folder, most
        self._lock = threading.Lock()
        self._used: int | None = None

    def charge(self, more: int) -> None:
        """Count bytes that will be written, or were removed. Raises Refused, and counts
        nothing, where they are too many.
        """
        with self._lock:
            if self._used is None:
                self._used = size_of(self.folder)
            if more > 0 and self._used + more > self.most:
                raise Refused(
                    507,
                    "full",
                    f"the projects have {self.most / 2**20:,.0f} MiB on disk, the most "
                    "that they may have: delete some",
                )
            self._used += more


class Projects:
    """The projects of all sessions.

    Args:
        folder: where they are on disk, in a folder for each session.
        runs: run folders whose learners can be taught.
        most_disk: bytes on disk.
        most_open: projects in memory; those that were not used for longest are closed,
            and opened again when they are needed.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Path] = (),
        most_disk: int = MOST_DISK,
        most_open: int = MOST_OPEN,
    ):
        self.folder = folder
        self.models, self.decoders = Models(runs), Decoders()
        self.disk, self.most_open = Disk(folder, most_disk), most_open
        self._lock = threading.RLock()
        self._open: OrderedDict[tuple[str, str], Project] = OrderedDict()
        # those that a request still uses, too
        self._alive: weakref.WeakValueDictionary[tuple[str, str], Project] = (
            weakref.WeakValueDictionary()
        )
        self._kept = 0
        self._saver = _Saver()
        atexit.register(_close, weakref.ref(self))

    def close(self) -> None:
        """Write what is not written yet, and end the processes that decode."""
        self._saver.close()
        self.decoders.close()

    def _folder(self, session: str) -> Path:
        return self.folder / hashlib.sha256(session.encode()).hexdigest()[:32]

    def list(self, session: str) -> list[dict[str, Any]]:
        """The projects of a session, those that cannot be read left out."""
        found = []
        for id in self._ids(session):
            with suppress(Refused):
                with self._lock:
                    project = self._alive.get((session, id))
                if project is not None:
                    content, model = project.content, project.model.name
                else:
                    content, data = self._read(session, id)
                    model = data["model"]
                found.append(
                    {
                        "id": id,
                        "name": content.name,
                        "model": model,
                        "examples": len(content.examples),
                    }
                )
        return found

    def _ids(self, session: str) -> list[str]:
        """The projects of a session, the oldest first."""
        with suppress(OSError):
            folders = [
                f for f in self._folder(session).iterdir() if ID.fullmatch(f.name)
            ]
            return [f.name for f in sorted(folders, key=lambda f: f.stat().st_ctime_ns)]
        return []

    def create(self, session: str, model: str, name: str = "") -> Project:
        """A new project."""
        chosen = self.models.open(model)
        content = Content(clean(name)[:NAME] or "Project")
        with self._lock:
            if len(self._ids(session)) >= MOST_PROJECTS:
                raise Refused(507, "full", "there are too many projects: delete some")
            id = secrets.token_hex(8)
            self.disk.charge(LEAST)
            project = self._made(session, id, chosen, content)
            project.create()
            return self._keep(session, project)

    def get(self, session: str, id: str) -> Project:
        """A project of a session. Raises Refused for one that does not exist."""
        with self._lock:
            project = self._alive.get((session, id))
            if project is not None:
                return self._keep(session, project)
        data = self._read(session, id)[1]
        model = self.models.open(data["model"], data["identity"])  # may take seconds
        with self._lock:
            project = self._alive.get((session, id))
            return self._keep(session, project or self._loaded(session, id, model))

    def _loaded(self, session: str, id: str, model: Model) -> Project:
        """A project from its folder."""
        content, data = self._read(session, id)
        if model.kind != data["kind"]:
            raise damaged(id)
        counts = data["next"], data["version"]
        project = self._made(session, id, model, content, *counts)
        pictures = [e for e in content.examples if e.picture]
        if not all(project.has_picture(example) for example in pictures):
            raise damaged(id)
        project.tidy()
        return project

    def remove(self, session: str, id: str) -> None:
        with self._lock:
            project = self._alive.pop((session, id), None)
            self._open.pop((session, id), None)
            folder = self._found(session, id)
            with project.lock if project is not None else nullcontext():
                if project is not None:
                    project.removed = True
                size = size_of(folder)
                shutil.rmtree(folder, ignore_errors=True)
                self.disk.charge(size_of(folder) - size - LEAST)

    def changed(self, project: Project) -> None:
        """Write the estimator of a project soon."""
        self._saver.add(project)

    def _made(self, session: str, id: str, *rest: Any) -> Project:
        model, content, *counts = rest
        folder = self._folder(session) / id
        return Project(id, folder, model, content, self.disk.charge, *counts)

    def _keep(self, session: str, project: Project) -> Project:
        key = session, project.id
        self._alive[key] = self._open[key] = project
        self._open.move_to_end(key)
        self._kept += 1
        if self._kept % OFTEN and len(self._open) <= self.most_open:
            return project
        memory = sum(other.memory for other in self._open.values())
        while len(self._open) > 1 and (
            len(self._open) > self.most_open or memory > MOST_MEMORY
        ):
            _, other = self._open.popitem(last=False)
            memory -= other.memory
        return project

    def _found(self, session: str, id: str) -> Path:
        """The folder of a project. Raises Refused where there is none."""
        folder = self._folder(session) / id
        if not ID.fullmatch(id) or not folder.is_dir():
            raise Refused(404, "project", "there is no such project")
        return folder

    def _read(self, session: str, id: str) -> tuple[Content, dict[str, Any]]:
        file = self._found(session, id) / STORED
        try:
            if file.stat().st_size > MOST_JSON:
                raise damaged(id)
            data = json.loads(file.read_text(encoding="utf-8"))
            return content_of(data), data
        except (OSError, ValueError, RecursionError, Refused) as error:
            raise damaged(id) from error


class _Saver:
    """A thread that writes the estimators of projects, when these have been at rest for
    a while; it starts with the first.
    """

    def __init__(self) -> None:
        self._due: dict[int, Project] = {}
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def add(self, project: Project) -> None:
        with self._wake:
            self._due[id(project)] = project
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._due and not self._ended:
                    self._wake.wait()
                if self._ended:
                    return
                self._wake.wait(QUIET / 4)
            begin = time.monotonic()
            self.write(QUIET, 1)
            with self._wake:  # so that requests come first
                rest = REST * (time.monotonic() - begin)
                self._wake.wait_for(lambda: self._ended, rest)

    def write(self, quiet: float = 0.0, most: int | None = None) -> None:
        """Write those that have been at rest for so many seconds, at most so many."""
        now = time.monotonic()
        with self._wake:
            ready = [p for p in self._due.values() if now - p.changed >= quiet][:most]
            for project in ready:
                del self._due[id(project)]
        for project in ready:
            with suppress(InnerloopError, OSError, Refused):
                project.save_estimator()

    def close(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify()
        if self._thread is not None:  # it may be writing
            self._thread.join(10.0)
        self.write()


def _close(projects: weakref.ref[Projects]) -> None:
    if (found := projects()) is not None:
        found.close()


def size_of(folder: Path) -> int:
    """The bytes of the files below a folder."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
