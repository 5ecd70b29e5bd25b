"""The base class of pretrained encoders, which turn raw items into vectors."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

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
    installed package or a folder, never from a network address. An instance is made
    without its weights; they are found when they are needed.

    Class variables:
        what: one item, in words: "image", "text" or "sound".
        features: length of a vector.
        share: length of its vectors relative to other encoders that are joined with it.
        usual: whether it is used for its kind of items where no encoder is named.
        size: height and width of the images that it reads, in pixels; 0 for others.
        length: most tokens of a text that its network reads at once; 0 for others.
        package, extra: the package that holds the weights, and the extra of innerloop
            that installs it.
        modules: other modules that it imports.
        files: the files that are used, by the end of their paths in the package.
        license: what the package states.
        version: changes when the vectors of the same weights do.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str]
    features: int
    share: ClassVar[float] = 1.0
    usual: ClassVar[bool] = True
    size: int = 0
    length: int = 0
    package: ClassVar[str]
    extra: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[str, ...]]
    license: ClassVar[str]

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def embed(self, items: Any) -> Tensor:
        """Vectors (n, features) of a batch of items, float32; of each item alike,
        whatever the others are, up to rounding.
        """

    @cached_property
    def _network(self) -> Any:
        return self.network()

    def with_network(self, network: nn.Module) -> Self:
        """The encoder with another state of its network."""
        found = copy.copy(self)
        vars(found)["_network"] = network
        return found

    def network(self) -> nn.Module:
        """The network with its weights as a new module, to be trained further: from
        images (n, 3, height, width) in 0..1, or token numbers (n, length) with 0 for
        padding, to features.

        Raises InnerloopError where it cannot be trained.
        """
        raise InnerloopError(
            f"the weights of {self.name} cannot be trained: name the encoder without "
            "':all', to use it as it is"
        )

    def takes(self, x_shape: tuple[int, ...], vocabulary: int) -> bool:
        """Whether `network` takes inputs of that shape, and token numbers below
        `vocabulary`, or no tokens where it is 0.
        """
        return not vocabulary and len(x_shape) == 3 and x_shape[0] == 3

    @property
    def identity(self) -> str:
        """Name, version and SHA-256 of the installed weights, and the version of the
        vectors.
        """
        return f"{self.weights} {self.version}"

    @cached_property
    def weights(self) -> Weights:
        """The installed weights.

        Raises MissingPackageError where a package is not installed, and InnerloopError
        where it lacks a file.
        """
        found = self.installed()
        files = tuple(_located(found, end) for end in self.files)
        return Weights(self.name, found.version, digest_of(files), files)

    def installed(self) -> Distribution:
        """The package. Raises MissingPackageError where it, or another that it needs,
        is not installed.
        """
        try:
            found = distribution(self.package)
            missing = next((m for m in self.modules if find_spec(m) is None), None)
        except PackageNotFoundError:
            found, missing = None, self.package
        if found is None or missing is not None:
            raise MissingPackageError(
                f"the encoder {self.name} needs the package {missing}: pip install "
                f"'innerloop[{self.extra}]'"
            )
        return found

    @classmethod
    def facts(cls) -> dict[str, str]:
        """What a user may want to know, beside the docstring."""
        return {
            "Items": f"{cls.what}s",
            "Features": str(cls.features),
            "Package": f"{cls.package}; pip install 'innerloop[{cls.extra}]'",
            "License": cls.license,
            "Default": "yes" if cls.usual else "no",
        }

    @classmethod
    def status(cls) -> dict[str, str]:
        """What is installed on this machine."""
        try:
            found = cls(cls.package).installed()
        except MissingPackageError as error:
            missing = str(error).split(" needs the package ")[-1].split(":")[0]
            return {"Installed": f"no: {missing} is missing"}
        return {"Installed": found.version}


def _located(package: Distribution, end: str) -> Path:
    for file in package.files or ():
        if f"/{file.as_posix()}".endswith(f"/{end}"):
            path = Path(str(package.locate_file(file)))
            if path.is_file():
                return path
    raise InnerloopError(
        f"the package {package.name} {package.version} lacks the file {end}: install "
        "it again"
    )


def digest_of(files: tuple[Path, ...]) -> str:
    """The SHA-256 of the contents of files together, in hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        about = file.stat()
        digest.update(_digest(file, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


@cache
def _digest(file: Path, size: int, changed: int) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def batches(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The indices of items in batches of at most `count`, of similar sizes."""
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    return [order[i : i + count] for i in range(0, len(order), count)]
