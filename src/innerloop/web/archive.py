"""Projects as files: one archive that holds the folder of a project."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from innerloop.estimators import FILE
from innerloop.web.content import (
    EXAMPLES,
    MOST_EXAMPLES,
    STORED,
    TABLE,
    content_of,
)
from innerloop.web.http import Refused
from innerloop.web.models import IMAGES
from innerloop.web.project import MOST_BYTES, Project
from innerloop.web.store import Projects

MOST_JSON = 64 * 2**20
MOST_PICTURE = 8 * 2**20  # bytes of a picture in an archive
RATIO = 200  # how much smaller an entry may be than its content
CHUNK = 64
_STAMP = (1980, 1, 1, 0, 0, 0)


def packed(project: Project) -> bytes:
    """The folder of a project as an archive, with its fitted classifier."""
    project.save_estimator()
    memory = io.BytesIO()
    with project.lock, zipfile.ZipFile(memory, "w") as archive:
        pictures = [e for e in project.content.examples if e.picture]
        names = [STORED, TABLE, *(f"{EXAMPLES}/{e.id}.png" for e in pictures)]
        if (project.folder / FILE).is_file():
            names.append(FILE)
        for name in names:
            how = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            entry = zipfile.ZipInfo(name, _STAMP)
            archive.writestr(entry, (project.folder / name).read_bytes(), how)
    return memory.getvalue()


def unpacked(projects: Projects, session: str, content: bytes) -> Project:
    """A new project from an archive that `packed` made. Nothing of it is written as it
    is, and no name in it is a path here: pictures are decoded again, and the classifier
    is fitted again.

    Raises Refused for any other archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _unpacked(projects, session, archive)
    except Refused:
        raise
    except Exception as error:  # of damaged archives: of any type
        raise _no_project(
            f"it cannot be read: {' '.join(str(error).split())}"
        ) from error


def _unpacked(projects: Projects, session: str, archive: zipfile.ZipFile) -> Project:
    entries = archive.infolist()
    if len(entries) > MOST_EXAMPLES + 16:
        raise _no_project("it has too many files")
    if sum(entry.file_size for entry in entries) > 2 * (MOST_BYTES + MOST_JSON):
        raise _no_project("it is too large")
    by_name = {entry.filename: entry for entry in entries}
    text = _read(archive, by_name, STORED, MOST_JSON)
    data: Any = json.loads(text)
    stored = content_of(data)
    model = projects.models.open(data["model"], data["identity"])
    if model.kind != data["kind"]:
        raise _no_project("its model is another here")
    project = projects.create(session, model.name, stored.name)
    try:
        for group in stored.groups:
            project.add_group(group.name)
        ids = [group.id for group in project.content.groups]
        labeled: list[tuple[str, Any]] = []
        for id, group in zip(ids, stored.groups, strict=True):
            for example in group.examples:
                if model.kind in IMAGES:
                    name = f"{EXAMPLES}/{example.id}.png"
                    picture = _read(archive, by_name, name, MOST_PICTURE)
                    item: Any = projects.decoders.image(picture, model.side)
                elif example.row is not None:
                    item = model.row(example.row)
                else:
                    item = model.item({"text": example.text})
                labeled.append((id, item))
                if len(labeled) == CHUNK:
                    project.add(labeled)
                    labeled = []
        project.add(labeled)
        project.forget_changes()
    except BaseException:
        projects.remove(session, project.id)
        raise
    return project


def _read(
    archive: zipfile.ZipFile,
    by_name: dict[str, zipfile.ZipInfo],
    name: str,
    most: int,
) -> bytes:
    """The content of an entry."""
    entry = by_name.get(name)
    if entry is None:
        raise _no_project(f"it has no {name}")
    large = entry.file_size > RATIO * entry.compress_size + 2**20
    if entry.flag_bits & 1 or large or entry.file_size > most:
        raise _no_project(f"{name} is encrypted or too large")
    with archive.open(entry) as opened:
        found = opened.read(most + 1)
    if len(found) > most:
        raise _no_project(f"{name} is too large")
    return found


def _no_project(reason: str) -> Refused:
    return Refused(422, "archive", f"this is no project file: {reason}"[:290])
