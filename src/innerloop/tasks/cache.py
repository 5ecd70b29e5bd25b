"""A disk cache of tensors that are expensive to compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from innerloop.engine.errors import InnerloopFileError
from innerloop.engine.folders import cache_folder
from innerloop.tasks.download import replacing

MAX_BYTES = 4 * 2**30  # of all entries together; the oldest are removed
Entry = tuple[dict[str, Tensor], dict[str, Any]]


def cached(name: str, key: Any, make: Callable[[], Entry]) -> Entry:
    """Tensors and plain data, from the cache or else made and kept there.

    Args:
        name: the first part of the file's name.
        key: everything that the result depends on, as plain data.
        make: computes tensors and plain data.

    A damaged file is removed and made again. Where the cache cannot be written, nothing
    is kept.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    file = cache_folder() / "tensors" / f"{name}-{digest}.safetensors"
    stored = _load(file)
    if stored is not None:
        return stored
    tensors, data = make()
    metadata = {"data": json.dumps(data), "sha256": _checksum(tensors)}
    try:
        with replacing(file) as partial:
            save_file(tensors, partial, metadata)
        _limit(file)
    except InnerloopFileError:
        pass  # a full disk, or a folder of somebody else
    return tensors, data


def _load(file: Path) -> Entry | None:
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            # copies, so that the file may change afterward
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        if _checksum(tensors) != metadata["sha256"]:
            raise ValueError("damaged")
        data = json.loads(metadata["data"])
    except MemoryError:
        raise
    except Exception:  # whatever a damaged file makes the parser raise
        with suppress(OSError):
            file.unlink()
        return None
    with suppress(OSError):
        file.touch()  # the oldest are removed first
    return tensors, data


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        raw = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        digest.update(memoryview(raw))  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


def _limit(newest: Path) -> None:
    """Remove the entries that were not used for longest, beyond `MAX_BYTES`."""
    with suppress(OSError):
        entries = [(f, f.stat()) for f in newest.parent.glob("*.safetensors")]
        total = 0
        for file, found in sorted(entries, key=lambda e: e[1].st_mtime, reverse=True):
            total += found.st_size
            if total > MAX_BYTES and file != newest:
                file.unlink(missing_ok=True)
