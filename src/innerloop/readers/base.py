"""The base class of readers, which convert raw inputs to tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """What was read from a file or folder.

    Args:
        x: inputs as the learner takes them, (n, *x_shape).
        names: what each input is called in results: the path of a file in its folder,
            table or archive, a line number, or the text itself; (n,).
        labels: the label of each input, from a column or from the name of its folder,
            or None where one has none. Of inputs that were read with `labels=False`
            they may be none of the known classes.
        unreadable: inputs that could not be read and are left out, each as "name:
            reason".
        note: how they were read, where that is not obvious, in one sentence, or "".
        files: the file of each input, where inputs are files: a `Path`, or a `Member`
            of an archive.
    """

    x: Tensor
    names: list[str]
    labels: list[str] | None = None
    unreadable: tuple[str, ...] = ()
    note: str = ""
    files: tuple[Any, ...] = ()


class Reader(ABC):
    """Turns raw inputs, from files or from memory, into tensors; always in the same
    way, so it is saved with every run. A subclass is a frozen dataclass of plain data.

    Class variables:
        kind: its name in the registry.
        what: one input, in words: "image", "text", "sound" or "row".
        head: the head of `Probe` that suits its vectors without training.
        ranked: whether inputs are usually ranked by the probability of a class, so that
            tables of labels have a column for every class.
        tabular: whether its vectors are the cells of a row, for the networks for
            tables that are part of the package.

    Attributes:
        center, deviation: of real targets: learners see (y - center) / deviation.
        classes: the labels in the order of a learner's outputs, where it was trained on
            classes that are the same in every task, such as right and wrong; else ().
    """

    kind: ClassVar[str]
    what: ClassVar[str]
    head: ClassVar[str] = "auto"
    ranked: ClassVar[bool] = False
    tabular: ClassVar[bool] = False
    center: float = 0.0
    deviation: float = 1.0
    classes: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """What the names of inputs are, as the header of a column."""
        return {"image": "file", "sound": "file"}.get(self.what, self.what)

    @property
    def side(self) -> int:
        """The height or width of images in pixels, the larger; 0 for other inputs."""
        return 0

    @property
    def drawn(self) -> bool:
        """Whether inputs are drawings, whose strokes are normalized."""
        return False

    @property
    def vocabulary(self) -> int:
        """The number of tokens, for readers whose tensors are token numbers; else 0."""
        return 0

    @property
    def x_shape(self) -> tuple[int, ...] | None:
        """The shape of one input, or None where the settings do not say it."""
        return None

    def settings(self) -> dict[str, Any]:
        """Plain data for JSON, from which `from_settings` makes an equal reader."""
        return {e.name: getattr(self, e.name) for e in fields(self)}  # pyright: ignore[reportArgumentType]

    def preprocessing(self) -> dict[str, Any]:
        """How inputs are read, as plain data, for programs without this package."""
        return {"kind": self.kind, **self.settings()}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings)

    @abstractmethod
    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        """Read a folder, a file or an archive; with `labels`, every input must have
        one.

        Raises InnerloopFileError for a missing path, and InnerloopError for a path that
        holds nothing readable, naming the file and the row.
        """

    def as_text(self, x: Tensor) -> str | None:
        """One input (*x_shape) as the text that it was read from, as far as it holds
        it; None for inputs that are no texts.
        """
        return None

    def thumbnail(self, file: Any, side: int) -> bytes | None:
        """The file of an input as a small JPEG of at most `side` pixels in height and
        width; None for inputs that are no images.
        """
        return None

    @abstractmethod
    def convert(self, X: Any) -> Tensor:
        """Inputs (n, *x_shape) from what users hold in memory: arrays, tensors,
        lists, data frames, paths, PIL images, texts. Each input is converted alike,
        whatever the others are.

        Raises InnerloopError for what it cannot read, naming the input.
        """
