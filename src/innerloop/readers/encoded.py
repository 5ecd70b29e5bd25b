"""Readers that turn raw inputs into the vectors of pretrained encoders."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from innerloop.encoders import (
    ENCODERS,
    JOIN,
    is_pretrained,
    open_encoder,
    split_name,
    usual_encoder,
)
from innerloop.encoders.efficientnet import EfficientNet, Pixels
from innerloop.encoders.frozen import FrozenEncoder, feature_count, weights_of
from innerloop.engine.errors import InnerloopError
from innerloop.readers.image import ImageReader, reading_progress
from innerloop.readers.sources import File
from innerloop.readers.text import Texts

CHUNK = 32  # images in memory at once
TEXTS = 512
BESIDE = 32  # pixels of a side


@dataclass(frozen=True)
class EncodedImages(ImageReader):
    """Encoded images: images as vectors of a pretrained encoder.

    An image is embedded once; its vector is kept in the cache folder by the content of
    its file.

    Args:
        channels: 3.
        size: height and width in pixels to which images are scaled.
        dark_background, normalize_strokes, integer_white, float_white: as for images.
        encoder: one encoder of images, or several joined by "+".
        beside: height and width of a small image whose pixels follow after the vector,
            for a network that is learned beside the encoder; 0 for none.
        weights: name, version and SHA-256 of its weights; those that are installed
            where it is empty.
    """

    kind: ClassVar[str] = "encoded-images"
    smaller = larger = Image.Resampling.BICUBIC
    size: tuple[int, int] = (EfficientNet.size, EfficientNet.size)
    encoder: str = "efficientnet"
    beside: int = 0
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 3:
            raise InnerloopError(
                f"the encoder {self.encoder} reads images in color: channels must be "
                f"3; got {self.channels}"
            )
        _check_encoder(self)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (feature_count(self.encoder) + 3 * self.beside**2,)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        own = {e.name for e in fields(EncodedImages)} - {"encoder", "beside", "weights"}
        reading = json.dumps({name: getattr(self, name) for name in sorted(own)})
        beside = Pixels(self.beside) if self.beside else None
        return FrozenEncoder(self.encoder, self.weights, reading, beside)

    def pixels(
        self, files: Sequence[File | IO[bytes]], names: Sequence[str]
    ) -> tuple[Tensor, list[tuple[int, str]]]:
        """The vectors (n, features) of the images of files, and the indices of those
        that could not be read, with the reason.
        """
        found, unreadable = [], []
        chunks = range(0, len(files), CHUNK)
        for begin in reading_progress(chunks, len(chunks), "embedding images", 4):
            chosen = slice(begin, begin + CHUNK)
            vectors, problems = self._chunk(files[chosen], names[chosen])
            found.append(vectors)
            unreadable += [(begin + i, why) for i, why in problems]
        return torch.cat(found or [torch.empty(0, *self.x_shape)]), unreadable

    def _chunk(
        self, files: Sequence[File | IO[bytes]], names: Sequence[str]
    ) -> tuple[Tensor, list[tuple[int, str]]]:
        contents: dict[int, bytes] = {}
        problems: dict[int, str] = {}
        for i, file in enumerate(files):
            try:
                contents[i] = _content(file)
            except (OSError, InnerloopError) as error:
                problems[i] = str(error)
        places = list(contents)

        def decoded(wanted: list[int]) -> tuple[list[int], Tensor]:
            chosen = [places[w] for w in wanted]
            streams = [io.BytesIO(contents[i]) for i in chosen]
            images, bad = ImageReader.pixels(self, streams, [names[i] for i in chosen])
            problems.update((chosen[i], why) for i, why in bad)
            failed = {i for i, _ in bad}
            return [w for i, w in enumerate(wanted) if i not in failed], images

        vectors, failed = self._frozen.embed(list(contents.values()), decoded)
        for w in failed:  # a copy of another file is not decoded
            problems.setdefault(places[w], "a copy of an image that cannot be read")
        return vectors, sorted(problems.items())

    def convert(self, X: Any) -> Tensor:
        """Images as vectors (n, features); X as for `ImageReader.convert`."""
        images = (super().convert(X) * 255).round_().to(torch.uint8)
        found = []
        for part in images.split(CHUNK):
            contents = [image.numpy().tobytes() for image in part]
            found.append(
                self._frozen.embed(contents, lambda i, part=part: (i, part[i]))[0]
            )
        return torch.cat(found)


@dataclass(frozen=True)
class EncodedTexts(Texts):
    """Encoded texts: texts as vectors of pretrained encoders.

    A text is embedded once; its vector is kept in the cache folder. Long texts are read
    whole.

    Args:
        text_column: column of the texts in a file.
        label_column: column of the labels in a file.
        encoder: one encoder of texts, or several joined by "+".
        weights: name, version and SHA-256 of their weights; those that are installed
            where it is empty.
    """

    text_column: str = "text"
    label_column: str = "label"

    kind: ClassVar[str] = "encoded-texts"
    encoder: str = "minilm+words"
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_encoder(self)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (feature_count(self.encoder),)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        return FrozenEncoder(self.encoder, self.weights)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Vectors (n, features), and 0, since no text is cut."""
        found = []
        chunks = range(0, len(texts), TEXTS)
        for begin in reading_progress(chunks, len(chunks), "embedding texts", 4):
            some = list(texts[begin : begin + TEXTS])
            contents = [text.encode("utf-8", "surrogatepass") for text in some]
            found.append(
                self._frozen.embed(
                    contents, lambda i, some=some: (i, [some[j] for j in i])
                )[0]
            )
        return torch.cat(found or [torch.empty(0, *self.x_shape)]), 0

    def cut_note(self, cut: int, of: int) -> str:
        return ""


READER_OF = {"image": EncodedImages, "text": EncodedTexts}


def _content(file: File | IO[bytes]) -> bytes:
    """Raises OSError or InnerloopError for a file that cannot be read."""
    if isinstance(file, Path) and not stat.S_ISREG(file.stat().st_mode):
        raise InnerloopError("it is not a regular file")
    return file.read_bytes() if isinstance(file, Path) else file.read()


def _check_encoder(reader: EncodedImages | EncodedTexts) -> None:
    object.__setattr__(reader, "weights", tuple(reader.weights))
    name = reader.encoder
    if not is_pretrained(name):
        raise InnerloopError(
            f"encoder must be one of {', '.join(ENCODERS)}, or several joined by "
            f"{JOIN}; got {name!r:.60}"
        )
    for part in name.split(JOIN):
        if ENCODERS[part].what != reader.what:
            raise InnerloopError(
                f"the encoder {part} reads {ENCODERS[part].what}s, not {reader.what}s"
            )


def encoded_reader(
    name: str, settings: Mapping[str, Any] | None = None
) -> EncodedImages | EncodedTexts:
    """A reader for a network whose name begins with pretrained encoders, such as
    "efficientnet" or "efficientnet+conv6", with the weights that are installed.

    settings: fields of the reader, among others that do not matter; `size` is the size
    of images that the learned network reads, or else the encoder.

    Raises MissingPackageError where the weights are not installed, and InnerloopError
    for texts with a learned network.
    """
    frozen, learned = split_name(name)
    if not frozen:
        open_encoder(name)  # raises InnerloopError
    cls = READER_OF[ENCODERS[frozen.split(JOIN)[0]].what]
    own = {e.name for e in fields(cls)}
    known = {n: v for n, v in (settings or {}).items() if n in own}
    if learned:
        if "beside" not in own:
            raise InnerloopError(
                f"{name}: only images can be read by a learned network beside an "
                f"encoder; use {frozen}"
            )
        known["beside"] = known.pop("size", BESIDE)
    return cls(encoder=frozen, weights=weights_of(frozen), **known)


def usual_reader(
    what: str, settings: Mapping[str, Any] | None = None
) -> EncodedImages | EncodedTexts:
    """A reader of "image" or "text" items with the encoders that are installed.

    Raises MissingPackageError where none is installed.
    """
    return encoded_reader(usual_encoder(what), settings)
