"""Vectors of items on disk, so that every item is embedded once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.folders import cache_folder

MAX_BYTES = 2**30  # of the vectors of one encoder; the oldest are removed
TIMEOUT = 30  # seconds to wait for another process that writes
_AT_ONCE = 500  # keys in one query


class FeatureStore:
    """The vectors of items by their keys, in a file of the cache folder; in half
    precision, to which `rounded` brings others. Where the file cannot be used, nothing
    is kept.

    Args:
        key: all that the vectors depend on beside the items.
        features: length of a vector.
    """

    def __init__(self, key: str, features: int):
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self.file = cache_folder() / "features" / f"{name}.sqlite"
        self.features = features

    def _connect(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.file, timeout=TIMEOUT)
        try:
            connection.execute(
                "create table if not exists vectors (key blob unique, value blob)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """The vectors that are stored, float32."""
        found: dict[bytes, Tensor] = {}
        if not self.file.is_file():
            return found
        try:
            with closing(self._connect()) as connection:
                for begin in range(0, len(keys), _AT_ONCE):
                    some = keys[begin : begin + _AT_ONCE]
                    marks = ",".join("?" * len(some))
                    found |= {
                        key: torch.from_numpy(
                            np.frombuffer(value, "<f2").copy()
                        ).float()
                        for key, value in connection.execute(
                            f"select key, value from vectors where key in ({marks})",
                            list(some),
                        )
                        if len(value) == 2 * self.features
                    }
        except (sqlite3.OperationalError, OSError):
            pass  # it is locked, or cannot be read
        except sqlite3.DatabaseError:  # it is damaged
            with suppress(OSError):
                self.file.unlink()
        return found

    def put(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Store vectors (n, features)."""
        values = vectors.to(torch.float16).numpy().astype("<f2")
        most = MAX_BYTES // (2 * self.features)
        with (
            suppress(sqlite3.Error, OSError),
            closing(self._connect()) as connection,
            connection,
        ):
            connection.executemany(
                "insert or ignore into vectors values (?, ?)",
                [(k, v.tobytes()) for k, v in zip(keys, values, strict=True)],
            )
            connection.execute(
                "delete from vectors where rowid <= "
                "(select max(rowid) from vectors) - ?",
                (most,),
            )


def rounded(vectors: Tensor) -> Tensor:
    """Vectors as they come back from a store."""
    return vectors.to(torch.float16).float()
