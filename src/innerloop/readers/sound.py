"""Sounds in WAV files to waveforms."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Range, check_options
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import regular_file, shown
from innerloop.readers.sources import File, FileKind, Found, find

RATE = 16_000  # samples a second of a waveform
MIN_RATE, MAX_RATE = 1000, 768_000  # samples a second of a file
MAX_CHANNELS = 64
ZEROS = 12  # of the sinc function on either side, in resampling
_BLOCK = 4096  # samples that are interpolated at once
_CONVERT = "convert it to WAV, for example: ffmpeg -i {} sound.wav"
_OTHER_SOUNDS = (
    *(".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma"),
    *(".aif", ".aiff", ".amr", ".webm", ".mp4"),
)
SOUNDS = FileKind(
    "sound",
    frozenset({".wav", ".wave"}),
    ".wav",
    {s: f"{s} is not read: {_CONVERT.format('sound' + s)}" for s in _OTHER_SOUNDS},
    ("sound", "audio", "file", "path", "filename", "file_name"),
)


class Wave(NamedTuple):
    """The first samples of a sound, (n,) mono float32, its samples a second, and how
    many seconds it has in all.
    """

    samples: NDArray[np.float32]
    rate: int
    seconds: float


@dataclass(frozen=True)
class SoundReader(Reader):
    """Sound: WAV files as waveforms of one length at 16 kHz.

    Integer samples of 8, 16, 24 and 32 bits and floating point samples are read, at any
    rate. The channels are averaged. Samples lie between -1 and 1; a shorter sound is
    padded with silence at its end, a longer one is cut.

    Args:
        seconds: the length of a waveform.
        sound_column: column of the paths in a table; None for sound, audio, file, path,
            filename or file_name.
        label_column: column of the labels in a table; None for label, class or y.
    """

    seconds: Annotated[float, Range(0.01, 600)] = 2.0
    sound_column: str | None = None
    label_column: str | None = None

    kind: ClassVar[str] = "sound"
    what: ClassVar[str] = "sound"

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def wave_shape(self) -> tuple[int]:
        """The shape of a waveform (samples,)."""
        return (round(self.seconds * RATE),)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.wave_shape

    def for_data(self, files: Sequence[File]) -> Self:
        """The same reader, with seconds that suit training sounds: their 95th
        percentile, rounded up to a tenth, from 0.5 to 10.
        """
        seconds = [s for file in files if (s := seconds_of(file)) is not None]
        if not seconds:
            return self
        suited = math.ceil(10 * float(np.percentile(seconds, 95)) - 1e-6) / 10
        return replace(self, seconds=min(max(suited, 0.5), 10.0))

    def scan(self, path: Path | str, *, labels: bool) -> Found:
        """The sound files of a data set, see `sources.find`."""
        return find(
            path,
            SOUNDS,
            labels=labels,
            file_column=self.sound_column,
            label_column=self.label_column,
        )

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        """Read a folder PATH/CLASS/sound.wav, a table with a column of paths, or an
        archive of either; with `labels=False` also a sound, or sounds at any depth.

        Files that cannot be read are left out and named in `unreadable`.
        """
        return self.read_found(path, self.scan(path, labels=labels))

    def read_found(self, path: Path | str, found: Found) -> Inputs:
        """What `read` returns, from the files that were found."""
        values, unreadable, cut = self.waveforms(found.files)
        failed = dict(unreadable)
        kept = [i for i in range(len(found.files)) if i not in failed]
        messages = tuple(f"{found.names[i]}: {why}" for i, why in unreadable)
        if not kept:
            raise InnerloopError(
                f"{shown(path)} holds no sound that can be read; {messages[0][:200]}"
            )
        notes = [found.note] if found.note else []
        if cut:
            notes.append(
                f"{cut:,} of {len(kept):,} sounds are longer than {self.seconds:g} s "
                "and were cut; a reader with more seconds reads them whole"
            )
        return Inputs(
            values,
            [found.names[i] for i in kept],
            [found.labels[i] for i in kept] if found.labels else None,
            (*messages, *found.other),
            "; ".join(notes),
            tuple(found.files[i] for i in kept),
        )

    def waveforms(
        self, files: Sequence[File]
    ) -> tuple[Tensor, list[tuple[int, str]], int]:
        """The inputs from files (n, *x_shape), here waveforms; the indices of those
        that could not be read, with the reason; and how many were cut. The tensor holds
        only the others. A subclass may return features.
        """
        values = torch.zeros(len(files), *self.wave_shape)
        unreadable, count, cut = [], 0, 0
        for i, file in enumerate(files):
            try:
                wave = read_wave(file, self.seconds)
            except MemoryError:
                raise
            except Exception as error:  # an archive raises whatever it likes
                lines = (getattr(error, "strerror", None) or str(error)).splitlines()
                unreadable.append((i, (lines or [type(error).__name__])[0][:200]))
                continue
            values[count] = self.fit(wave)
            cut += wave.seconds > self.seconds
            count += 1
        return values[:count], unreadable, cut

    def resampled(self, wave: Wave) -> Tensor:
        """A sound as a waveform of at most the reader's length."""
        values = torch.from_numpy(resampled(wave.samples, wave.rate, RATE))
        return values[: self.wave_shape[0]]

    def fit(self, wave: Wave) -> Tensor:
        """A sound as a waveform of the reader's length."""
        values, row = self.resampled(wave), torch.zeros(self.wave_shape)
        row[: len(values)] = values
        return row

    def convert(self, X: Any) -> Tensor:
        """Waveforms (n, samples) of a list of paths, of pairs (rate, samples), or of
        samples at 16 kHz; samples are (n,) or (n, channels), integers or numbers from
        -1 to 1.

        Raises InnerloopError for what it cannot read, naming the input.
        """
        waves = self.resampled_all(X)
        rows = torch.zeros(len(waves), *self.wave_shape)
        for row, wave in zip(rows, waves, strict=True):
            row[: len(wave)] = wave
        return rows

    def resampled_all(self, X: Any) -> list[Tensor]:
        """The sounds of X, as for `convert`, as waveforms of at most the reader's
        length.
        """
        return [self._one(x, f"X[{place}]") for place, x in enumerate(_several(X))]

    def _one(self, sound: Any, name: str) -> Tensor:
        try:
            if isinstance(sound, str | os.PathLike):
                wave = read_wave(regular_file(Path(sound)), self.seconds)
                return self.resampled(wave)
            rate, samples = sound if isinstance(sound, tuple) else (RATE, sound)
            if not MIN_RATE <= rate <= MAX_RATE:
                raise InnerloopError(_wrong_rate(rate))
            wave = Wave(_mono(samples), int(rate), len(samples) / rate)
            return self.resampled(wave)
        except MemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InnerloopError(f"cannot read {name} as a sound: {reason}") from error


def _several(X: Any) -> Iterator[Any]:
    """The single sounds of X; refuses one sound where several are expected."""
    array = isinstance(X, np.ndarray | Tensor)
    if (
        not isinstance(X, Sequence | Tensor | np.ndarray)
        or isinstance(X, str)
        or (array and X.ndim < 2)
    ):
        raise InnerloopTypeError(
            "X must be several sounds, such as a list of paths; pass [sound] for one"
        )
    if not len(X):
        raise InnerloopError("X must hold at least one sound; got none")
    return iter(X)


def _mono(samples: Any) -> NDArray[np.float32]:
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu().numpy()
    values = np.asarray(samples)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise InnerloopError(
            f"samples must have the shape (n,) or (n, channels); got {values.shape}"
        )
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 128 - 1
    elif values.dtype.kind == "i":
        values = values.astype(np.float64) / -float(np.iinfo(values.dtype).min)
    elif values.dtype.kind != "f":
        raise InnerloopError(f"samples must be real numbers; got {values.dtype}")
    if not np.isfinite(values).all():
        raise InnerloopError("its samples must be finite numbers")
    if (most := float(np.abs(values).max())) > 8:  # mastering may exceed 1 a little
        raise InnerloopError(
            f"its samples must lie between -1 and 1; got up to {most:g}"
        )
    if values.ndim == 2:
        values = values.mean(1)
    return values.astype(np.float32)


def read_wave(file: File, seconds: float = math.inf) -> Wave:
    """The first seconds of a WAV file.

    Raises InnerloopError for a file that is damaged, cut off, or not WAV.
    """
    with _opened(file) as f:
        layout = _layout(f)
        # the filter of the last samples reads beyond the end
        margin = 2 * ZEROS * max(1.0, layout.rate / RATE)
        wanted = min(layout.frames, seconds * layout.rate + margin)
        raw = f.read(math.ceil(wanted) * layout.width * layout.channels)
    whole = layout.frames / layout.rate
    return Wave(_mono(_samples(raw, layout)), layout.rate, whole)


def _opened(file: File) -> IO[bytes]:
    return regular_file(file).open("rb") if isinstance(file, Path) else file.open()


class _Layout(NamedTuple):
    floating: bool
    channels: int
    rate: int
    width: int  # bytes of a sample
    frames: int  # samples of each channel


def _layout(f: IO[bytes]) -> _Layout:
    """The layout of the samples, before which the file then stands."""
    head = f.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise InnerloopError(f"it is not a WAV file: {_CONVERT.format('sound')}")
    place = f.tell()
    end, long_size = f.seek(0, os.SEEK_END), None
    f.seek(place)
    found: tuple[bool, int, int, int] | None = None
    while len(chunk := f.read(8)) == 8:
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        begin = f.tell()
        if name == b"fmt ":
            found = _format(f.read(min(size, 64)))
        elif name == b"ds64":  # of files with more than 4 GiB
            long_size = struct.unpack("<Q", f.read(16)[8:].ljust(8, b"\0"))[0]
        elif name == b"data":
            if found is None:
                raise InnerloopError("its samples come before their format")
            floating, channels, rate, width = found
            if head[:4] == b"RF64" and size == 0xFFFFFFFF and long_size is not None:
                size = long_size
            left = end - begin
            # a program that writes to a pipe does not know the size
            if size in (0, 0xFFFFFFFF):
                size = left
            if size > left:
                raise InnerloopError(
                    f"it is cut off: its header says {size:,} bytes of samples, and "
                    f"{left:,} follow"
                )
            frames = size // (width * channels)
            if not frames:
                raise InnerloopError("it holds no samples")
            return _Layout(floating, channels, rate, width, frames)
        f.seek(begin + size + size % 2)
    raise InnerloopError("it holds no samples: the WAV file is cut off")


def _format(fields: bytes) -> tuple[bool, int, int, int]:
    """Whether samples are floating point, channels, rate and bytes of a sample."""
    if len(fields) < 16:
        raise InnerloopError("the format of its samples is cut off")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", fields[:16])
    if tag == 0xFFFE and len(fields) >= 26:  # the format stands in the extension
        tag = struct.unpack("<H", fields[24:26])[0]
    allowed = {1: (8, 16, 24, 32), 3: (32, 64)}.get(tag)
    if allowed is None:
        raise InnerloopError(
            f"its samples are compressed (format {tag}): convert it, for example: "
            "ffmpeg -i sound.wav -c:a pcm_s16le other.wav"
        )
    width = block // channels if channels else 0
    if not 1 <= channels <= MAX_CHANNELS or 8 * width not in allowed:
        raise InnerloopError(
            f"its header says {channels} channels and {bits} bits in blocks of {block} "
            f"bytes; expected up to {MAX_CHANNELS} channels of "
            f"{', '.join(map(str, allowed))} bits"
        )
    if block != width * channels or not 0 < bits <= 8 * width:
        raise InnerloopError(
            f"its header says {bits} bits in blocks of {block} bytes for {channels} "
            "channels, which do not fit"
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InnerloopError(_wrong_rate(rate))
    return tag == 3, channels, rate, width


def _wrong_rate(rate: Any) -> str:
    return (
        f"a sound has {MIN_RATE:,} to {MAX_RATE:,} samples a second; got {rate!r:.40}"
    )


def _samples(raw: bytes, layout: _Layout) -> NDArray[Any]:
    """Samples (n, channels)."""
    if layout.floating:
        values = np.frombuffer(raw, f"<f{layout.width}")
    elif layout.width == 3:  # as the upper bytes of 32 bits
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0]
    else:
        values = np.frombuffer(raw, "u1" if layout.width == 1 else f"<i{layout.width}")
    return values.reshape(-1, layout.channels)


def seconds_of(file: File) -> float | None:
    """How long a WAV file is; None where it cannot be read."""
    try:
        with _opened(file) as f:
            layout = _layout(f)
    except MemoryError:
        raise
    except Exception:  # `waveforms` names it
        return None
    return layout.frames / layout.rate


def resampled(
    samples: NDArray[np.float32], rate: int, wanted: int = RATE
) -> NDArray[np.float32]:
    """Samples at another rate, by a sinc function in a Hann window that passes what
    both rates can hold.
    """
    if rate == wanted:
        return samples
    number = max(1, round(len(samples) * wanted / rate))
    cutoff = min(1.0, wanted / rate)  # relative to half of the old rate
    reach = math.ceil(ZEROS / cutoff)
    padded = np.pad(samples, (reach, reach + 1))
    taps = np.arange(-reach + 1, reach + 1)
    found = np.empty(number, np.float32)
    for begin in range(0, number, _BLOCK):
        # in units of 1 / wanted of an old sample, exactly
        place = np.arange(begin, min(begin + _BLOCK, number), dtype=np.int64) * rate
        place = np.minimum(place, (len(samples) - 1) * wanted)
        first, part = np.divmod(place, wanted)
        parts, which = np.unique(part, return_inverse=True)  # few, as they repeat
        distance = (parts / wanted)[:, None] - taps
        window = np.cos(np.clip(distance / reach, -1, 1) * (np.pi / 2)) ** 2
        kernels = (cutoff * np.sinc(cutoff * distance) * window).astype(np.float32)
        around = padded[first[:, None] + taps + reach]  # (m, taps)
        found[begin : begin + len(place)] = (around * kernels[which]).sum(1)
    return found
