"""A run folder survives a power cut at any moment, and a disk that is full or broken.

The model of the disk is strict: a file's content is safe once the file was synced, its
name once its folder was. What was not synced when the power fails may be there, be
missing or be torn, each by itself and in any order.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.runs import Disk, Run, RunError

BLOCK = 512
CHECKPOINTS = 4


class RecordingDisk(Disk):
    """Does what it is asked to do, and writes it down."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def write(self, path: Path, content: bytes) -> None:
        self.calls.append(("write", path, content))
        super().write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        self.calls.append(("append", path, content))
        super().append(path, content)

    def sync(self, path: Path) -> None:
        self.calls.append(("sync", path, path.is_dir()))
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.calls.append(("rename", source, target))
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self.calls.append(("unlink", path))
        super().unlink(path)


class FailingDisk(Disk):
    """Its `at`-th call fails, a write half-way, and so do all later ones."""

    def __init__(self, at: int, code: int) -> None:
        self.at, self.code, self.count = at, code, 0

    def _fail(self, path: Path, content: bytes = b"") -> None:
        self.count += 1
        if self.count >= self.at:
            if content:
                path.write_bytes(content[: len(content) // 2])
            raise OSError(self.code, "the disk fails", str(path))

    def write(self, path: Path, content: bytes) -> None:
        self._fail(path, content)
        super().write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        self._fail(path)
        super().append(path, content)

    def sync(self, path: Path) -> None:
        self._fail(path)
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self._fail(source)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._fail(path)
        super().unlink(path)


class File:
    """The content of a file: what is safe, and what was written since."""

    def __init__(self) -> None:
        self.safe, self.now = b"", b""

    def after_power_loss(self, chance: random.Random) -> bytes:
        if self.safe == self.now:
            return self.now
        kept = chance.choice((0, len(self.now), chance.randint(0, len(self.now))))
        start = len(self.safe) if self.now.startswith(self.safe) else 0
        end = max(start, kept // BLOCK * BLOCK if chance.random() < 0.5 else kept)
        torn = self.now[:end]
        if chance.random() < 0.3:  # a block that was allocated and never written
            torn += bytes(min(BLOCK, len(self.now) - end))
        return torn


def after_power_loss(
    calls: list[tuple[Any, ...]], chance: random.Random
) -> dict[Path, bytes]:
    """What may be left after these calls, the last of which never returned."""
    safe_names: dict[Path, File] = {}
    names: dict[Path, File] = {}
    pending: list[Callable[[dict[Path, File]], None]] = []

    def link(path: Path, file: File) -> Callable[[dict[Path, File]], None]:
        return lambda names: names.__setitem__(path, file)

    def drop(path: Path) -> Callable[[dict[Path, File]], None]:
        return lambda names: names.pop(path, None)  # pyright: ignore[reportReturnType]

    def move(
        source: Path, target: Path, file: File
    ) -> Callable[[dict[Path, File]], None]:
        def moved(names: dict[Path, File]) -> None:
            names[target] = file
            if names.get(source) is file:
                del names[source]

        return moved

    for name, path, *rest in calls:
        if name in ("write", "append"):
            if path not in names:
                names[path] = File()
                pending.append(link(path, names[path]))
            file = names[path]
            file.now = rest[0] if name == "write" else file.now + rest[0]
            if name == "write":
                file.safe = b""  # truncated in place
        elif name == "sync" and rest[0]:
            for change in pending:
                change(safe_names)
            pending = []
        elif name == "sync":
            names[path].safe = names[path].now
        elif name == "rename":
            file = names.pop(path)
            names[rest[0]] = file
            pending.append(move(path, rest[0], file))
        elif path in names:
            del names[path]
            pending.append(drop(path))
    chosen = [change for change in pending if chance.random() < 0.5]
    chance.shuffle(chosen)
    if chance.random() < 0.3:
        chosen = pending
    for change in chosen:
        change(safe_names)
    return {path: file.after_power_loss(chance) for path, file in safe_names.items()}


def checkpoint(number: int) -> dict[str, Any]:
    return {"step": number, "weights": torch.full((700,), float(number))}


def train(run: Run) -> list[int]:
    """What a training writes; how many calls had been made when each checkpoint was
    safe.
    """
    disk = run.disk
    safe = []
    run.folder.mkdir(parents=True, exist_ok=True)
    run.create({"learner": {"name": "protonet"}})
    for number in range(CHECKPOINTS):
        run.save_weights({"w": torch.full((300,), float(number))})
        run.log({"step": number})
        run.save_checkpoint(checkpoint(number))
        safe.append(len(disk.calls) if isinstance(disk, RecordingDisk) else 0)
    run.truncate_log(1)
    run.save_report("few-shot", {"accuracy": 1.0})
    return safe


def restored(content: dict[Path, bytes], root: Path, folder: Path) -> Run:
    """A run folder with the files that are left."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*"):
        if old.is_file():
            old.unlink()
    for path, data in content.items():
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return Run(folder)


def test_a_power_cut_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    disk = RecordingDisk()
    safe = train(Run(tmp_path / "run", disk))
    assert len(disk.calls) > 40
    cuts = 0
    for end in range(len(disk.calls) + 1):
        saved = sum(calls <= end for calls in safe)
        for seed in range(12):
            left = after_power_loss(disk.calls[:end], random.Random(1000 * end + seed))
            run = restored(left, tmp_path / "run", tmp_path / "left")
            cuts += 1
            if saved:
                assert run.experiment()["learner"]["name"] == "protonet"
                step = run.load_checkpoint()["step"]
                assert step in (saved - 1, saved)
                torch.testing.assert_close(
                    run.load_checkpoint()["weights"], checkpoint(step)["weights"]
                )
                assert float(run.load_weights()["w"][0]) in (saved - 1, saved)
            elif run.has_checkpoint:
                assert run.load_checkpoint()["step"] == 0
            steps = [line["step"] for line in run.read_log()]
            assert steps == list(range(len(steps)))
    assert cuts > 500


def test_the_model_finds_a_writer_that_does_not_sync(tmp_path: Path) -> None:
    """The test above can fail: without fsync, a checkpoint is lost."""
    disk = RecordingDisk()
    safe = train(Run(tmp_path / "run", disk))
    lost = 0
    calls = [call for call in disk.calls[: safe[1]] if call[0] != "sync" or call[2]]
    for seed in range(50):
        left = after_power_loss(calls, random.Random(seed))
        run = restored(left, tmp_path / "run", tmp_path / "left")
        try:
            run.load_checkpoint()
        except RunError:
            lost += 1
    assert lost > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_one_error_and_the_last_checkpoint_stays(
    tmp_path: Path, code: int
) -> None:
    disk = RecordingDisk()
    train(Run(tmp_path / "whole", disk))
    for at in range(1, len(disk.calls) + 1):
        folder = tmp_path / f"run{at}"
        run = Run(folder, FailingDisk(at, code))
        with pytest.raises(RunError) as raised:
            train(run)
        assert len(str(raised.value).splitlines()) == 1
        again = Run(folder)
        assert not list(folder.glob(".*.part"))
        if again.has_checkpoint:
            assert 0 <= again.load_checkpoint()["step"] < CHECKPOINTS
            steps = [line["step"] for line in again.read_log()]
            assert steps == list(range(len(steps)))
