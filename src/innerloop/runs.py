"""A run folder: everything that a training leaves behind, and enough to resume it.

experiment.json      the experiment, fully resolved, and versions
log.jsonl            one line for each validation: step, seconds, loss, metrics
weights.safetensors  the weights to use, with their SHA-256
checkpoint.bin       all that resuming needs, behind its SHA-256
tests/NAME.json      the results of tests

Every file is written beside its place, flushed to the disk and renamed, so that a crash
or a power cut leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import plain

FORMAT = 4
FILES = ("experiment.json", "log.jsonl", "weights.safetensors", "checkpoint.bin")
MAGIC = b"innerloop checkpoint 1 "


class RunError(InnerloopError):
    """A run folder that cannot be used, and why."""


class Disk:
    """The file operations that a run is written with, in one place, so that tests can
    interrupt each of them, as a power cut would.
    """

    def write(self, path: Path, content: bytes) -> None:
        """Create or replace a file; it may not be on the disk yet."""
        path.write_bytes(content)

    def append(self, path: Path, content: bytes) -> None:
        with path.open("ab") as opened:
            opened.write(content)

    def sync(self, path: Path) -> None:
        """Wait until a file's content, or a folder's entries, are on the disk."""
        folder = path.is_dir()
        if folder and os.name != "posix":
            return  # other systems cannot open folders
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)


DISK = Disk()


def write_atomically(path: Path, content: bytes, disk: Disk | None = None) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    A link is followed; a device or a pipe is opened and written to, never replaced.
    """
    disk = disk or DISK
    # /dev/stdout leads to a pipe that has no path of its own: look before following it
    if path.exists() and not path.is_file():
        try:
            with path.open("wb") as opened:
                opened.write(content)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        disk.write(partial, content)
        disk.sync(partial)
        disk.rename(partial, path)
        disk.sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def file_name(text: str) -> str:
    """A text as a file name that every system takes; other texts have other names."""
    safe = re.sub(r"[^\w.=+-]+", "_", text, flags=re.ASCII)[:120]
    suffix = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return safe if safe == text else f"{safe}-{suffix}"


def versions() -> dict[str, str]:
    from innerloop import __version__

    return {
        "innerloop": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


class Run:
    """A run folder, existing or new."""

    def __init__(self, folder: Path | str, disk: Disk | None = None):
        self.folder, self.disk = Path(folder), disk or DISK

    @classmethod
    def of(cls, run: Run | Path | str) -> Run:
        """`run` itself, or the run in that folder."""
        return run if isinstance(run, Run) else cls(run)

    @property
    def exists(self) -> bool:
        return (self.folder / "experiment.json").is_file()

    @property
    def has_checkpoint(self) -> bool:
        return (self.folder / "checkpoint.bin").is_file()

    @property
    def has_weights(self) -> bool:
        return (self.folder / "weights.safetensors").is_file()

    def check_files(self) -> None:
        """Raises RunError where a folder or a device is in the place of a file of the
        run.
        """
        for file in (self.folder / name for name in FILES):
            if file.exists() and not file.is_file():
                raise RunError(
                    f"{file} is no regular file: remove it, or choose another folder"
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for the length of a training, creating it where needed.

        Raises RunError where another process holds it.
        """
        lock = self._acquire(self.folder, timeout=0)
        try:
            self._remove_parts(self.folder, *FILES)
            yield
        finally:
            lock.release()

    def _acquire(self, folder: Path, timeout: float) -> FileLock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock", timeout=timeout)
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"{folder} is being trained by another process: wait for it, or "
                "choose another folder"
            ) from error
        except OSError as error:
            raise RunError(f"cannot use {folder}: {error.strerror}") from error
        return lock

    def belongs_to(self, job: str | None) -> bool:
        """Whether a job of this name has trained the run, see `mark`."""
        try:
            return job is not None and (self.folder / ".job").read_text() == job
        except OSError:
            return False

    def mark(self, job: str | None) -> None:
        """Note the job that trains the run, inside `locked`: where its processes are
        started again, they continue the run.
        """
        if job is not None:
            self._write(".job", job.encode())

    def create(self, experiment: dict[str, Any]) -> None:
        """Start a run, inside `locked`: the experiment, an empty log.

        Raises RunError where that would replace files that belong to no run.
        """
        there = [name for name in FILES if (self.folder / name).exists()]
        if there and not self.exists:
            raise RunError(
                f"{self.folder} is no run folder, but holds a {there[0]} that a run "
                "would replace: choose another folder"
            )
        for name in ("weights.safetensors", "checkpoint.bin"):
            self._remove(self.folder / name)
        self.write_experiment(experiment)
        self._write("log.jsonl", b"")

    def _remove(self, file: Path) -> None:
        try:
            self.disk.unlink(file)
        except OSError as error:
            raise RunError(f"cannot remove {file}: {error.strerror}") from error

    def _remove_parts(self, folder: Path, *names: str) -> None:
        """Remove what killed processes left half-written; nobody else may be writing
        these files. Names may hold wildcards.
        """
        for name in names:
            for file in folder.glob(f".{name}.*.part"):
                self._remove(file)

    def discard(self) -> None:
        """Remove a run that has nothing in it yet, and its folder if that is empty."""
        for file in (self.folder / name for name in (*FILES, ".job", ".lock")):
            with contextlib.suppress(OSError):
                self.disk.unlink(file)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.folder / name, content, self.disk)

    def write_experiment(self, experiment: dict[str, Any]) -> None:
        data = {"format": FORMAT, "versions": versions(), "experiment": experiment}
        self._write("experiment.json", json.dumps(data, indent=2).encode() + b"\n")

    def experiment(self) -> dict[str, Any]:
        """The experiment as it was written.

        Raises RunError where the folder is missing, foreign or of another format.
        """
        if not self.folder.is_dir():
            raise RunError(f"there is no run folder {self.folder}")
        if not self.exists:
            raise RunError(f"{self.folder} is no run folder: it has no experiment.json")
        file = self.folder / "experiment.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            number, experiment = stored["format"], dict(stored["experiment"])
        except (ValueError, OSError, RecursionError) as error:
            raise RunError(f"{file} cannot be read: {error}") from error
        except (TypeError, KeyError) as error:
            raise RunError(f"{file} cannot be used: it holds no experiment") from error
        if number != FORMAT:
            raise RunError(
                f"{file} has format {number!r}; this version of innerloop reads "
                f"{FORMAT}"
            )
        return experiment

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to the log."""
        content = json.dumps(plain(line), allow_nan=False).encode() + b"\n"
        try:
            self.disk.append(self.folder / "log.jsonl", content)
            self.disk.sync(self.folder / "log.jsonl")
        except OSError as error:
            file = self.folder / "log.jsonl"
            raise RunError(f"cannot write {file}: {error.strerror}") from error

    def read_log(self) -> list[dict[str, Any]]:
        """The log's lines, up to the first that is not whole."""
        lines: list[dict[str, Any]] = []
        try:
            text = (self.folder / "log.jsonl").read_text(
                encoding="utf-8", errors="replace"
            )
        except OSError:
            return lines
        for line in text.splitlines():
            try:
                entry = dict(json.loads(line))
                entry["step"] = int(entry["step"])
            except (ValueError, RecursionError, TypeError, KeyError):
                break
            lines.append(entry)
        return lines

    def truncate_log(self, step: int) -> None:
        """Drop the lines after a step: a resumed training writes them again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        content = "".join(json.dumps(plain(line)) + "\n" for line in kept)
        self._write("log.jsonl", content.encode())

    def save_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Save tensors by name, with their SHA-256."""
        tensors = {n: t.detach().cpu().contiguous() for n, t in state.items()}
        self._write("weights.safetensors", save(tensors, {"sha256": digest(tensors)}))

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Raises RunError where there are none, or they are damaged."""
        file = self._saved("weights.safetensors")
        try:
            with safe_open(file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                expected = (opened.metadata() or {}).get("sha256")
        except Exception as error:  # safetensors and torch raise many types
            raise RunError(_damaged(file)) from error
        if digest(tensors) != expected:
            raise RunError(_damaged(file))
        broken = [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]
        if broken:
            raise RunError(
                f"{file} holds values that are not finite ({broken[0]}): the training "
                "diverged; train again with a lower learning rate"
            )
        return tensors

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        memory = io.BytesIO()
        torch.save(state, memory)
        content = memory.getvalue()
        head = MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
        self._write("checkpoint.bin", head + content)

    def load_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint. Raises RunError where there is none, or it is
        damaged.
        """
        file = self._saved("checkpoint.bin")
        try:
            head, _, content = file.read_bytes().partition(b"\n")
            whole = head == MAGIC + hashlib.sha256(content).hexdigest().encode()
            if not whole:
                raise RunError(_damaged(file))
            return torch.load(
                io.BytesIO(content), weights_only=True, map_location="cpu"
            )
        except RunError:
            raise
        except Exception as error:  # torch.load raises pickle's own errors
            raise RunError(_damaged(file)) from error

    def save_report(self, name: str, report: dict[str, Any]) -> Path:
        """Store the results of a test as tests/NAME.json."""
        folder = self.folder / "tests"
        content = json.dumps(report, indent=2, allow_nan=False).encode() + b"\n"
        file = folder / f"{name}.json"
        with self._acquire(folder, timeout=-1):
            self._remove_parts(folder, "*.json")
            write_atomically(file, content, self.disk)
        return file

    def _saved(self, name: str) -> Path:
        self.experiment()  # says what is wrong with the folder, if anything
        if not (self.folder / name).is_file():
            raise RunError(
                f"{self.folder} has no {name}: its training has not saved anything yet"
            )
        return self.folder / name


def _damaged(file: Path) -> str:
    return f"{file} is damaged: restore it from a copy, or train again"


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors, their names, types and shapes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
