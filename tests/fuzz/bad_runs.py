"""Run folders with damage."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load, save

from innerloop.runs import FILES, MAGIC, digest
from tests.fuzz.values import JSON, junk, mangled, mutated


def damage(run: Path, others: list[Path], rng: Random) -> str:
    """Damages a run folder; returns how.

    Args:
        others: undamaged runs whose files may take the place of this run's.
    """
    kinds = (
        *(_json,) * 8,
        *(_bytes,) * 4,
        *(_log, _gone, _foreign, _swap, _folder, _weights, _weights, _state, _state),
        *(_left_over, _tests, _loop),
    )
    try:
        return rng.choice(kinds)(run, others, rng)
    except Exception:  # what damages by content needs content that can be read
        return "nothing more"


def _regular(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _pick(run: Path, rng: Random) -> Path:
    return rng.choice([run / name for name in FILES if _regular(run / name)])


def _read(file: Path) -> bytes:
    if not _regular(file):
        raise FileNotFoundError(file)
    return file.read_bytes()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json(run: Path, others: list[Path], rng: Random) -> str:
    file = run / "experiment.json"
    data = json.loads(_read(file))
    data, done = mutated(rng, data)
    file.write_text(json.dumps(data), "utf-8")
    return f"experiment.json: {done}"


def _bytes(run: Path, others: list[Path], rng: Random) -> str:
    file = _pick(run, rng)
    content, how = mangled(rng, file.read_bytes())
    file.write_bytes(content)
    return f"{file.name}: {how}"


def _log(run: Path, others: list[Path], rng: Random) -> str:
    file = run / "log.jsonl"
    lines = _read(file).decode().splitlines()
    odd = (*map(json.dumps, JSON), '{"step": 1e999}', '{"step": -5}', "{", "[" * 9999)
    line = rng.choice(odd)
    lines.insert(rng.randint(0, len(lines)), line)
    file.write_text("\n".join(lines), "utf-8")
    return f"log.jsonl: a line {line!r:.60}"


def _gone(run: Path, others: list[Path], rng: Random) -> str:
    file = _pick(run, rng)
    file.unlink()
    return f"{file.name} deleted"


def _foreign(run: Path, others: list[Path], rng: Random) -> str:
    file, other = _pick(run, rng), rng.choice(others)
    if (other / file.name).is_file():
        shutil.copy(other / file.name, file)
    return f"{file.name} of the run {other.name}"


def _swap(run: Path, others: list[Path], rng: Random) -> str:
    one, two = _pick(run, rng), _pick(run, rng)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return f"{one.name} and {two.name} swapped"


def _folder(run: Path, others: list[Path], rng: Random) -> str:
    place = run / rng.choice((*FILES, ".lock", "tests"))
    _remove(place)
    place.mkdir()
    if rng.random() < 0.5:
        (place / "file").write_text("x")
    return f"{place.name} is a folder"


def _left_over(run: Path, others: list[Path], rng: Random) -> str:
    place = run / f".{rng.choice(FILES)}.1.part"
    if rng.random() < 0.5:
        place.mkdir()
    else:
        place.write_bytes(junk(rng))
    return f"{place.name} left over"


def _tests(run: Path, others: list[Path], rng: Random) -> str:
    place = run / "tests"
    _remove(place)
    if rng.random() < 0.5:
        place.write_text("x")
        return "tests is a file"
    place.symlink_to("/nonexistent/x")
    return "tests links to nowhere"


def _loop(run: Path, others: list[Path], rng: Random) -> str:
    file = _pick(run, rng)
    target = rng.choice((file, Path("/dev/zero"), Path("/nonexistent"), run))
    file.unlink()
    file.symlink_to(target)
    return f"{file.name} links to {target.name}"


def _weights(run: Path, others: list[Path], rng: Random) -> str:
    """Other tensors, with the right checksum."""
    file = run / "weights.safetensors"
    tensors = load(_read(file))
    tensors, done = _other_tensors(tensors, rng)
    file.write_bytes(save(tensors, {"sha256": digest(tensors)}))
    return f"weights: {done}"


def _other_tensors(tensors: dict[str, Any], rng: Random) -> tuple[dict[str, Any], str]:
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    how = rng.choice(
        ("nan", "huge", "shape", "int", "half", "double", "gone", "named", "none")
    )
    if how == "none":
        return {}, "none"
    if how in ("gone", "named"):
        del tensors[name]
        if how == "named":
            tensors[f"{name}x"] = tensor
        return tensors, f"{name} {how}"
    tensors[name] = {
        "nan": lambda: torch.full_like(tensor.float(), torch.nan),
        "huge": lambda: torch.full_like(tensor.float(), 1e38),
        "shape": lambda: torch.zeros(*tensor.shape, 2),
        "int": lambda: tensor.to(torch.int32),
        "half": lambda: tensor.half(),
        "double": lambda: tensor.double(),
    }[how]()
    return tensors, f"{name} {how}"


def _state(run: Path, others: list[Path], rng: Random) -> str:
    """Another state in the checkpoint, with the right checksum."""
    file = run / "checkpoint.bin"
    _, _, content = _read(file).partition(b"\n")
    state = torch.load(io.BytesIO(content), weights_only=True)
    if rng.random() < 0.3:
        learner, done = _other_tensors(dict(state["learner"]), rng)
        state["learner"], done = learner, f"learner: {done}"
    else:
        key = rng.choice(sorted(state))
        how = rng.choice(("set", "set", "set", "gone"))
        done = f"{key} gone"
        if how == "gone":
            del state[key]
        else:
            state[key] = rng.choice(
                (*JSON, torch.zeros(3), torch.zeros(3, dtype=torch.uint8))
            )
            done = f"{key} = {state[key]!r:.60}"
    if rng.random() < 0.05:
        state, done = [1, 2], "a list"
    memory = io.BytesIO()
    torch.save(state, memory)
    content = memory.getvalue()
    head = MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
    file.write_bytes(head + content)
    return f"checkpoint: {done}"
