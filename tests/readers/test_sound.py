"""Sounds as waveforms: WAV files of all kinds, rates, lengths, and damaged files."""

import io
import json
import struct
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.engine.errors import InnerloopError
from innerloop.readers.sound import RATE, SoundReader, read_wave, resampled

READER = SoundReader(0.25)


def tone(rate: int = RATE, seconds: float = 0.5, hertz: float = 440.0) -> Any:
    times = np.arange(round(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * times)


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(
    samples: Any,
    rate: int = RATE,
    bits: int = 16,
    floating: bool = False,
    **fields: Any,
) -> bytes:
    """A WAV file of samples (n,) or (n, channels) from -1 to 1."""
    samples = np.asarray(samples)
    samples = samples if samples.ndim == 2 else samples[:, None]
    channels, width = samples.shape[1], bits // 8
    if floating:
        raw = samples.astype(f"<f{width}").tobytes()
    elif bits == 8:
        raw = (samples * 127 + 128).round().astype("u1").tobytes()
    else:
        whole = (samples * (2.0 ** (bits - 1) - 1)).round().astype("<i4")
        raw = whole[..., None].view("u1")[..., :width].tobytes()
    tag = fields.get("tag", 3 if floating else 1)
    form = struct.pack("<HHI", tag, channels, rate)
    form += struct.pack("<IHH", rate * width * channels, width * channels, bits)
    if extension := fields.get("extension"):
        form += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", extension)
        form += bytes.fromhex("000000001000800000aa00389b71")
    body = b"WAVE" + fields.get("before", b"") + chunk(b"fmt ", form)
    data = chunk(b"data", raw)
    if (says := fields.get("says")) is not None:
        data = b"data" + struct.pack("<I", says) + raw
    body += data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("bits", "floating", "error"),
    [
        (8, False, 0.008),
        (16, False, 1e-4),
        (24, False, 1e-6),
        (32, False, 1e-6),
        (32, True, 1e-6),
        (64, True, 1e-6),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_kind_of_sample_is_read(
    tmp_path: Path, bits: int, floating: bool, error: float, extensible: bool
) -> None:
    tag = 3 if floating else 1
    fields = {"tag": 0xFFFE, "extension": tag} if extensible else {}
    file = tmp_path / "a.wav"
    file.write_bytes(wav(tone(), RATE, bits, floating, **fields))
    found = READER.convert([file])
    assert found.shape == (1, 4000)
    assert np.abs(found[0].numpy() - tone()[:4000]).max() < error


def test_files_of_the_standard_library_are_read(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as opened:
        opened.setparams((2, 2, 22_050, 0, "NONE", ""))
        stereo = np.stack([tone(22_050), np.zeros(11_025)], 1)
        opened.writeframes((stereo * 32_767).astype("<i2").tobytes())
    found = read_wave(tmp_path / "a.wav")
    assert (found.rate, found.seconds) == (22_050, 0.5)
    assert np.abs(found.samples - tone(22_050) / 2).max() < 1e-4  # the mean of channels


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_every_rate_becomes_16_khz(rate: int) -> None:
    found = resampled(tone(rate).astype(np.float32), rate)
    wanted = tone()
    assert abs(len(found) - len(wanted)) <= 1
    inner = slice(100, 7900)
    assert np.abs(found[inner] - wanted[inner]).max() < 1e-3
    if rate > 2 * 10_000:  # a tone above 8 kHz has no place in the result
        high = resampled(tone(rate, hertz=10_000).astype(np.float32), rate)
        assert np.abs(high[inner]).max() < 5e-3


def test_a_cut_sound_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(tone(44_100, 1.0, 700), 44_100, before=chunk(b"LIST", b"abc")))
    whole = SoundReader(1.0).convert([file])[0]
    assert torch.allclose(READER.convert([file])[0], whole[:4000], atol=1e-6)
    padded = SoundReader(1.5).convert([file])[0]
    assert torch.equal(padded[:16_000], whole)
    assert not padded[16_000:].any()


def sounds(root: Path) -> Path:
    for i, place in enumerate(("a/1.wav", "a/2.WAV", "b/3.wav")):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(wav(tone(seconds=0.2 + 0.1 * i)))
    (root / "b" / "4.mp3").write_bytes(b"ID3")
    (root / "b" / "5.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    return root


def test_folders_archives_and_tables_of_sounds_are_read(tmp_path: Path) -> None:
    root = sounds(tmp_path / "data")
    found = READER.read(root, labels=True)
    assert found.x.shape == (3, *READER.x_shape)
    assert found.x.dtype == torch.float32
    assert (found.names, found.labels) == (
        ["a/1.wav", "a/2.WAV", "b/3.wav"],
        ["a", "a", "b"],
    )
    assert found.unreadable == (
        "b/5.wav: it holds no samples: the WAV file is cut off",
        "b/4.mp3: .mp3 is not read: convert it to WAV, for example: ffmpeg -i "
        "sound.mp3 sound.wav",
    )
    assert "2 of 3 sounds are longer than 0.25 s and were cut" in found.note
    assert READER.read(root, labels=False).labels == found.labels
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as opened:
        for file in root.rglob("*.*"):
            opened.write(file, file.relative_to(tmp_path))
    packed = READER.read(tmp_path / "data.zip", labels=True)
    assert torch.equal(packed.x, found.x)
    (root / "sounds.csv").write_text("file,label\na/1.wav,x\nb/3.wav,y\n")
    assert READER.read(root / "sounds.csv", labels=True).labels == ["x", "y"]


def test_other_formats_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.flac").write_bytes(b"fLaC")
    with pytest.raises(InnerloopError, match=r"\(\.wav\); .*1\.flac: .*ffmpeg -i") as e:
        READER.read(tmp_path, labels=True)
    assert len(str(e.value).replace(str(tmp_path), "")) < 300


def test_seconds_suit_the_data(tmp_path: Path) -> None:
    found = READER.scan(sounds(tmp_path), labels=True)
    reader = READER.for_data(found.files)
    assert reader.seconds == 0.5
    long = tmp_path / "long.wav"
    long.write_bytes(wav(np.zeros(20_000), 1000))
    assert READER.for_data([long]).seconds == 10
    assert SoundReader().x_shape == (32_000,)
    stored = json.loads(json.dumps(reader.settings()))
    assert SoundReader.from_settings(stored) == reader


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a WAV file"),
        (b"fLaC" * 9, "not a WAV file: convert it"),
        (wav(tone())[:1000], "cut off: its header says 16,000 bytes .*, and 956"),
        (wav(tone(), says=2**31), "cut off"),
        (wav(tone(), tag=2), r"compressed \(format 2\).*ffmpeg"),
        (wav(tone(), tag=0xFFFE, extension=6), r"compressed \(format 6\)"),
        (wav(tone())[:32] + b"\5\0" + wav(tone())[34:], "blocks of 5 bytes"),
        (wav(tone(), rate=3), "1,000 to 768,000 samples a second; got 3"),
        (wav(tone(), rate=2**30), "samples a second"),
        (wav(np.zeros((9, 65))), "65 channels"),
        (wav(np.zeros((0, 1))), "no samples"),
        (wav(tone()).replace(b"fmt ", b"xyz "), "before their format"),
        (wav([0.0, np.nan], bits=32, floating=True), "finite"),
        (wav([0.0, 30_000.0], bits=32, floating=True), "between -1 and 1; got up to"),
        (wav(tone())[:34] + b"\0\0" + wav(tone())[36:], "0 bits"),
        (wav(tone())[:32] + b"\7\0" + wav(tone())[34:], "blocks of 7 bytes"),
    ],
)
def test_lying_headers_are_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    with pytest.raises(InnerloopError, match=why) as raised:
        READER.convert([file])
    assert "\n" not in str(raised.value)
    with pytest.raises(InnerloopError, match=why):
        READER.read(file, labels=False)


def test_a_wav_file_from_a_pipe_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(), says=0xFFFFFFFF))
    (tmp_path / "b.wav").write_bytes(wav(tone()))
    found = READER.read(tmp_path, labels=False)
    assert torch.equal(found.x[0], found.x[1])


def test_sounds_in_memory_have_a_rate(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(8000), 8000))
    wanted = READER.convert([str(tmp_path / "a.wav")])
    whole = (tone(8000) * 32_767).round().astype(np.int16)
    assert torch.equal(READER.convert([(8000, whole)]), wanted)
    assert READER.convert(np.zeros((3, 100), np.float32)).shape == (3, 4000)
    stereo = np.stack([tone(), tone()], 1).astype(np.float32)
    assert torch.equal(READER.convert([stereo]), READER.convert([stereo[:, 0]]))


@pytest.mark.parametrize(
    ("X", "why"),
    [
        ("a.wav", "several sounds"),
        (np.zeros(100), "several sounds"),
        (None, "several sounds"),
        ([], "at least one"),
        (["gone.wav"], r"X\[0\] as a sound: there is no file gone"),
        ([(7, np.zeros(9))], r"X\[0\].*samples a second; got 7"),
        ([np.zeros((2, 2, 2))], r"X\[0\].*shape"),
        ([np.full(9, 100.0)], "between -1 and 1"),
        ([np.zeros(9, complex)], "real numbers"),
    ],
)
def test_what_is_no_sound_is_named(X: Any, why: str) -> None:
    with pytest.raises(InnerloopError, match=why):
        READER.convert(X)


def test_options_are_checked() -> None:
    for seconds in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(InnerloopError, match="seconds"):
            SoundReader(seconds)


def test_samples_of_a_subclass_may_be_features(tmp_path: Path) -> None:
    class Loudness(SoundReader):
        @property
        def x_shape(self) -> tuple[int, ...]:
            return (1,)

        def waveforms(self, files: Any) -> Any:
            values, unreadable, cut = super().waveforms(files)
            return values.square().mean(1, keepdim=True), unreadable, cut

    (tmp_path / "a.wav").write_bytes(io.BytesIO(wav(tone())).getvalue())
    found = Loudness(0.25).read(tmp_path / "a.wav", labels=False)
    assert found.x.shape == (1, 1)
