"""Readers that turn raw inputs into the vectors of pretrained encoders, or into what
pretrained networks take.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import IO, Annotated, Any, ClassVar, NamedTuple

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from innerloop.encoders import (
    ENCODERS,
    JOIN,
    is_pretrained,
    open_encoder,
    parts_of,
    resolved,
    split_name,
    trained_part,
    usual_encoder,
)
from innerloop.encoders.efficientnet import EfficientNet, Pixels
from innerloop.encoders.frozen import (
    FrozenEncoder,
    check_weights,
    feature_count,
    weights_of,
)
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Range, check_options
from innerloop.readers.base import Reader
from innerloop.readers.image import ImageReader
from innerloop.readers.sound import SoundReader, read_wave, seconds_of
from innerloop.readers.sources import File, content
from innerloop.readers.text import Texts

CHUNK = 32  # images in memory at once
SOUNDS = 8
TEXTS = 256
BESIDE = 32  # pixels of a side
LENGTH = 64  # tokens of a text for a network that is trained further
PATIENCE = 2.0  # seconds before a progress bar is shown
_NOT_CONTENT = ("encoder", "beside", "weights")  # nothing of how an item is read


class _Memory(NamedTuple):
    """The content of a file, which readers open like the member of an archive."""

    content: bytes

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.content)


class Encoded:
    """What readers of vectors have in common.

    Args:
        encoder: one encoder, or several joined by "+"; or a folder with a transformers
            model.
        weights: name, version and SHA-256 of their weights; those that are installed
            where it is empty.
    """

    what: ClassVar[str]
    encoder: str
    weights: tuple[str, ...]

    def check_encoder(self) -> None:
        """Raises InnerloopError for an encoder that does not exist, or of another kind
        of items.
        """
        object.__setattr__(self, "weights", tuple(self.weights))
        name = self.encoder
        if not is_pretrained(name):
            raise InnerloopError(
                f"encoder must be one of {', '.join(ENCODERS)}, several joined by "
                f"{JOIN}, or a folder; got {name!r:.60}"
            )
        for part in parts_of(name):
            if (what := open_encoder(part).what) != self.what:
                raise InnerloopError(
                    f"the encoder {part} reads {what}s, not {self.what}s"
                )

    @cached_property
    def features(self) -> int:
        return feature_count(self.encoder)

    def reading(self) -> str:
        """The settings that the vector of an item depends on."""
        own = [
            entry.name
            for entry in fields(self)  # pyright: ignore[reportArgumentType]
            if entry.name not in _NOT_CONTENT and not entry.name.endswith("_column")
        ]
        return json.dumps({name: getattr(self, name) for name in sorted(own)})


@dataclass(frozen=True)
class EncodedImages(Encoded, ImageReader):
    """Encoded images: images as vectors of a pretrained encoder.

    An image is embedded once; its vector is kept in the cache folder by the content of
    its file.

    Args:
        channels: 3.
        size: height and width in pixels to which images are scaled.
        dark_background, normalize_strokes, integer_white, float_white: as for images.
        image_column, label_column: as for images.
        encoder: one encoder of images, or several joined by "+"; or a folder with a
            transformers model.
        beside: height and width of a small image whose pixels follow after the vector,
            for a network that is learned beside the encoder; 0 for none.
        weights: name, version and SHA-256 of its weights; those that are installed
            where it is empty.
    """

    kind: ClassVar[str] = "encoded-images"
    what: ClassVar[str] = "image"
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
        self.check_encoder()

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.features + 3 * self.beside**2,)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        beside = Pixels(self.beside) if self.beside else None
        return FrozenEncoder(self.encoder, self.weights, self.reading(), beside)

    def pixels(
        self, files: Sequence[File | IO[bytes]], names: Sequence[str]
    ) -> tuple[Tensor, list[tuple[int, str]]]:
        """The vectors (n, features) of the images of files, and the indices of those
        that could not be read, with the reason.
        """

        def decode(files: list[_Memory], at: list[int]) -> Any:
            streams = [file.open() for file in files]
            return ImageReader.pixels(self, streams, [names[i] for i in at])

        return embed_files(self._frozen, files, decode, CHUNK, "embedding images")

    def convert(self, X: Any) -> Tensor:
        """Images as vectors (n, features); X as for `ImageReader.convert`."""
        found = []
        for image in in_time(list(self._images(X)), "embedding images"):
            place = len(found)
            pixels = (self._one(image, f"X[{place}]") * 255).round_().to(torch.uint8)
            found.append(pixels)
        images = torch.stack(found)
        vectors = []
        for part in in_time(images.split(CHUNK), "embedding images"):
            contents = [image.numpy().tobytes() for image in part]
            vectors.append(
                self._frozen.embed(contents, lambda i, part=part: (i, part[i]))[0]
            )
        return torch.cat(vectors)


@dataclass(frozen=True)
class EncodedTexts(Encoded, Texts):
    """Encoded texts: texts as vectors of pretrained encoders.

    A text is embedded once; its vector is kept in the cache folder. Long texts are read
    whole.

    Args:
        text_column: column of the texts in a file.
        label_column: column of the labels in a file.
        encoder: one encoder of texts, or several joined by "+"; or a folder with a
            transformers model.
        weights: name, version and SHA-256 of their weights; those that are installed
            where it is empty.
    """

    text_column: str = "text"
    label_column: str = "label"

    kind: ClassVar[str] = "encoded-texts"
    what: ClassVar[str] = "text"
    encoder: str = "minilm+words"
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_encoder()

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        return FrozenEncoder(self.encoder, self.weights)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Vectors (n, features), and 0, since no text is cut."""
        x = torch.empty(len(texts), *self.x_shape)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # less padding
        chunks = [order[i : i + TEXTS] for i in range(0, len(order), TEXTS)]
        for chunk in in_time(chunks, "embedding texts"):
            some = [texts[i] for i in chunk]
            contents = [str(text).encode("utf-8", "surrogatepass") for text in some]
            x[chunk] = self._frozen.embed(
                contents, lambda places, some=some: (places, [some[i] for i in places])
            )[0]
        return x, 0

    def cut_note(self, cut: int, of: int) -> str:
        return ""


@dataclass(frozen=True)
class EncodedSounds(Encoded, SoundReader):
    """Encoded sounds: WAV files as vectors of a pretrained encoder.

    A sound is embedded once; its vector is kept in the cache folder by the content of
    its file.

    Args:
        seconds: longer sounds are cut.
        sound_column, label_column: as for sounds.
        encoder: one encoder of sounds, or several joined by "+".
        weights: name, version and SHA-256 of their weights; those that are installed
            where it is empty.
    """

    kind: ClassVar[str] = "encoded-sounds"
    what: ClassVar[str] = "sound"
    seconds: Annotated[float, Range(0.01, 600)] = 30.0
    encoder: str = "openwakeword"
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_encoder()

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        return FrozenEncoder(self.encoder, self.weights, self.reading())

    def waveforms(
        self, files: Sequence[File]
    ) -> tuple[Tensor, list[tuple[int, str]], int]:
        """The vectors (n, features) of the sounds of files; the indices of those that
        could not be read, with the reason; and how many were cut.
        """

        def decode(files: list[_Memory], at: list[int]) -> Any:
            found, unreadable = [], []
            for place, file in enumerate(files):
                try:
                    wave = read_wave(file, self.seconds)  # pyright: ignore[reportArgumentType]
                    found.append(self.resampled(wave))
                except InnerloopError as error:
                    unreadable.append((place, str(error)))
            return found, unreadable

        vectors, unreadable = embed_files(
            self._frozen, files, decode, SOUNDS, "embedding sounds"
        )
        failed = {i for i, _ in unreadable}
        lengths = [seconds_of(f) for i, f in enumerate(files) if i not in failed]
        return vectors, unreadable, sum((s or 0) > self.seconds for s in lengths)

    def convert(self, X: Any) -> Tensor:
        """Sounds as vectors (n, features); X as for `SoundReader.convert`."""
        waves = self.resampled_all(X)
        found = []
        for begin in in_time(range(0, len(waves), SOUNDS), "embedding sounds"):
            some = waves[begin : begin + SOUNDS]
            contents = [wave.numpy().tobytes() for wave in some]
            found.append(
                self._frozen.embed(
                    contents, lambda at, some=some: (at, [some[i] for i in at])
                )[0]
            )
        return torch.cat(found)


@dataclass(frozen=True)
class EncoderTokens(Texts):
    """Encoder tokens: texts as the token numbers of a pretrained encoder.

    They are the inputs of its network, which is trained further.

    Args:
        text_column: column of the texts in a file.
        label_column: column of the labels in a file.
        encoder: an encoder of texts, or a folder with a transformers model.
        length: number of tokens of a text, special ones included; longer texts are cut.
        weights: name, version and SHA-256 of the encoder; those that are installed
            where it is empty.
    """

    text_column: str = "text"
    label_column: str = "label"

    kind: ClassVar[str] = "encoder-tokens"
    encoder: str = "minilm"
    length: Annotated[int, Range(4, 512)] = LENGTH
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        check_options(self)
        if not is_pretrained(self.encoder) or open_encoder(self.encoder).what != "text":
            raise InnerloopError(
                f"token numbers need one encoder of texts; got {self.encoder!r:.60}"
            )
        if self.length > (most := open_encoder(self.encoder).length):
            raise InnerloopError(
                f"the encoder {self.encoder} reads at most {most} tokens at once; got "
                f"length {self.length}"
            )

    @cached_property
    def _tokenizer(self) -> Any:
        check_weights(self.weights, weights_of(self.encoder))
        return open_encoder(self.encoder)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def vocabulary(self) -> int:
        return self._tokenizer.vocabulary

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Token numbers (n, length), float32, 0 after the end of a text, and how many
        texts were cut.
        """
        return self._tokenizer.numbers(texts, self.length)

    def cut_note(self, cut: int, of: int) -> str:
        return (
            f"{cut:,} of {of:,} texts have more than {self.length} tokens and were "
            "cut; a larger length reads more of them"
        )

    def check_length(self, length: int | None) -> None:
        if length not in (None, self.length):
            raise InnerloopError(
                f"length must be {self.length}, as in the run of the reader; got "
                f"{length}"
            )


READER_OF: dict[str, type[EncodedImages | EncodedTexts | EncodedSounds]] = {
    "image": EncodedImages,
    "text": EncodedTexts,
    "sound": EncodedSounds,
}


def embed_files(
    frozen: FrozenEncoder,
    files: Sequence[File | IO[bytes]],
    decode: Callable[[list[_Memory], list[int]], tuple[Any, list[tuple[int, str]]]],
    chunk: int,
    label: str,
) -> tuple[Tensor, list[tuple[int, str]]]:
    """The vectors of files, and the indices of those that could not be read, with the
    reason.

    Args:
        frozen: the encoder.
        files: the files.
        decode: the items of some files, from their contents and their indices, without
            those that cannot be read, and the places of these in the contents, with the
            reason.
        chunk: files in memory at once.
        label: of the progress bar.
    """
    found, problems = [], {}
    for begin in in_time(range(0, len(files), chunk), label):
        contents: dict[int, bytes] = {}
        for i in range(begin, min(begin + chunk, len(files))):
            try:
                contents[i] = content(files[i])
            except MemoryError:
                raise
            except Exception as error:  # an archive raises whatever it likes
                lines = (getattr(error, "strerror", None) or str(error)).splitlines()
                problems[i] = (lines or [type(error).__name__])[0][:200]
        places = list(contents)

        def decoded(
            wanted: list[int],
            places: list[int] = places,
            contents: dict[int, bytes] = contents,
        ) -> tuple[list[int], Any]:
            at = [places[w] for w in wanted]
            items, bad = decode([_Memory(contents[i]) for i in at], at)
            problems.update((at[place], why) for place, why in bad)
            failed = {place for place, _ in bad}
            return [w for i, w in enumerate(wanted) if i not in failed], items

        vectors, failed = frozen.embed(list(contents.values()), decoded)
        for w in failed:  # a copy of another file is not decoded
            problems.setdefault(places[w], "a copy of a file that cannot be read")
        found.append(vectors)
    vectors = torch.cat(found or [torch.empty(0, frozen.x_size)])
    return vectors, sorted(problems.items())


def in_time(items: Sequence[Any], label: str) -> Iterator[Any]:
    """The items, with a progress bar on a terminal as soon as they take long."""
    begin, progress, task = time.monotonic(), None, None
    try:
        for number, item in enumerate(items):
            late = time.monotonic() - begin > PATIENCE and sys.stderr.isatty()
            if progress is None and late:
                progress = Progress(console=Console(stderr=True), transient=True)
                task = progress.add_task(label, total=len(items))
                progress.start()
            if progress is not None and task is not None:
                progress.update(task, completed=number)
            yield item
    finally:
        if progress is not None:
            progress.stop()


def encoded_reader(name: str, settings: Mapping[str, Any] | None = None) -> Reader:
    """A reader for a network whose name begins with pretrained encoders, such as
    "efficientnet" or "efficientnet+conv6", with the weights that are installed; or for
    a pretrained network that is trained further, such as "efficientnet:all".

    settings: fields of the reader, among others that do not matter; `size` is the size
    of images that the learned network reads, or else the encoder.

    Raises MissingPackageError where the weights are not installed, InnerloopFileError
    for a folder that does not exist, and InnerloopError for texts with a learned
    network.
    """
    if (part := trained_part(name)) is not None:
        return _trained_reader(resolved(part), settings or {})
    frozen, learned = split_name(name)
    frozen = resolved(frozen)
    encoders = [open_encoder(part) for part in parts_of(frozen or name)]
    cls = READER_OF[encoders[0].what]
    known = _known(cls, settings or {})
    if learned:
        if not issubclass(cls, EncodedImages):
            raise InnerloopError(
                f"{name}: only images can be read by a learned network beside an "
                f"encoder; use {frozen}"
            )
        known["beside"] = known.pop("size", BESIDE)
    if issubclass(cls, EncodedImages):
        size = max(encoder.size for encoder in encoders) or EfficientNet.size
        known.setdefault("size", (size, size))
    return cls(encoder=frozen, weights=weights_of(frozen), **known)


def _trained_reader(name: str, settings: Mapping[str, Any]) -> Reader:
    """A reader for the network of an encoder that is trained further."""
    encoder = open_encoder(name)
    if encoder.what == "text":
        known: dict[str, Any] = {"length": min(encoder.length, LENGTH)}
        known |= _known(EncoderTokens, settings)
        return EncoderTokens(encoder=name, weights=weights_of(name), **known)
    if encoder.what == "image":
        known = _known(ImageReader, settings)
        encoder.installed()
        return ImageReader(**{"size": (encoder.size, encoder.size), **known})
    raise InnerloopError(
        f"encoders of {encoder.what}s cannot be trained: name {name} without ':all'"
    )


def _known(cls: type[Reader], settings: Mapping[str, Any]) -> dict[str, Any]:
    own = {entry.name for entry in fields(cls)}  # pyright: ignore[reportArgumentType]
    return {n: v for n, v in settings.items() if n in own and v is not None}


def usual_reader(what: str, settings: Mapping[str, Any] | None = None) -> Reader:
    """A reader of "image", "text" or "sound" items with the encoders that are
    installed.

    Raises MissingPackageError where none is installed.
    """
    return encoded_reader(usual_encoder(what), settings)
