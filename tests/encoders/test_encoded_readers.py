"""Readers of vectors: every item is embedded once, alike in files and in memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop.encoders.frozen import FrozenEncoder
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.readers import (
    EncodedImages,
    EncodedSounds,
    EncodedTexts,
    EncoderTokens,
    ImageReader,
    encoded,
)
from innerloop.readers.detect import reader_for
from innerloop.readers.encoded import encoded_reader

from .conftest import Colors, Fake, Letters, Loudness


def write_wave(file: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes((samples * 32767).round().astype("<i2").tobytes())


def tone(hertz: float, seconds: float = 0.3, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


# ------------------------------------------------------------------ images


def test_images_are_embedded_once(pictures: Path) -> None:
    reader = encoded_reader("colors")
    assert isinstance(reader, EncodedImages)
    assert reader.size == (8, 8)
    assert reader.x_shape == (6,)
    first = reader.read(pictures, labels=True)
    assert first.x.shape == (48, 6)
    assert Colors.seen == 48
    again = encoded_reader("colors").read(pictures, labels=True)
    assert torch.equal(first.x, again.x)
    assert Colors.seen == 48


def test_equal_images_are_embedded_once(pictures: Path) -> None:
    for i in range(5):
        shutil.copy(pictures / "c0" / "0.png", pictures / "c1" / f"copy{i}.png")
    found = encoded_reader("colors").read(pictures, labels=True)
    assert len(found.x) == 53
    assert Colors.seen == 48
    at = found.names.index("c0/0.png"), found.names.index("c1/copy3.png")
    assert torch.equal(found.x[at[0]], found.x[at[1]])


def test_the_columns_of_a_table_do_not_matter(pictures: Path) -> None:
    encoded_reader("colors").read(pictures, labels=True)
    other = encoded_reader("colors", {"label_column": "kind", "image_column": "file"})
    other.read(pictures, labels=True)
    assert Colors.seen == 48


def test_the_size_of_images_matters(pictures: Path) -> None:
    encoded_reader("colors").read(pictures, labels=True)
    encoded_reader("colors", {"size": 9}).read(pictures, labels=True)
    assert Colors.seen == 96


def test_unreadable_images_and_their_copies_are_named(pictures: Path) -> None:
    for name in ("0.png", "1.png"):
        (pictures / "c3" / name).write_bytes(b"no image")
    found = encoded_reader("colors").read(pictures, labels=True)
    assert len(found.x) == len(found.names) == 46
    assert [line.split(":")[0] for line in found.unreadable] == ["c3/0.png", "c3/1.png"]
    kept = encoded_reader("colors").read(pictures / "c4", labels=False).x
    place = found.names.index("c4/0.png")
    assert torch.equal(found.x[place : place + 4], kept)


def test_images_in_memory_are_as_in_files(pictures: Path) -> None:
    reader = encoded_reader("colors")
    files = sorted((pictures / "c5").iterdir())
    read = reader.read(pictures / "c5", labels=False).x
    assert torch.equal(reader.convert(files), read)
    opened = [Image.open(file) for file in files]
    assert torch.equal(reader.convert(opened), read)


def test_a_vector_has_root_mean_square_1(pictures: Path) -> None:
    x = encoded_reader("colors").read(pictures, labels=True).x
    torch.testing.assert_close(x.square().mean(1), torch.ones(48))


def test_joined_encoders_are_side_by_side_by_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from innerloop import encoders

    class Half(Letters):
        features, share = 13, 0.5

        def embed(self, items: list[str]) -> torch.Tensor:
            return super().embed(items)[:, :13]

    monkeypatch.setitem(encoders.ENCODERS, "half", Half)
    x = EncodedTexts(encoder="letters+half").encode(["abcabz", "hello"])[0]
    assert x.shape == (2, 39)
    torch.testing.assert_close(x.square().mean(1), torch.ones(2))
    sizes = x[:, :26].norm(dim=1), x[:, 26:].norm(dim=1)
    torch.testing.assert_close(sizes[1] / sizes[0], torch.full((2,), 0.5))


# ------------------------------------------------------------------ texts


def test_texts_are_embedded_once_and_stay_in_order() -> None:
    texts = [chr(97 + i % 26) * (1 + i % 40) for i in range(1000)]
    reader = EncodedTexts(encoder="letters")
    x = reader.encode(texts)[0]
    assert Letters.seen == len(set(texts))
    assert x.argmax(1).tolist() == [i % 26 for i in range(1000)]
    assert torch.equal(EncodedTexts(encoder="letters").encode(texts)[0], x)
    assert Letters.seen == len(set(texts))


def test_texts_of_similar_lengths_are_embedded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoded, "TEXTS", 10)
    batches: list[list[int]] = []
    embed = Letters.embed

    def watched(self: Letters, items: list[str]) -> torch.Tensor:
        batches.append([len(item) for item in items])
        return embed(self, items)

    monkeypatch.setattr(Letters, "embed", watched)
    texts = ["a" * (1 + (7 * i) % 50) for i in range(50)]
    EncodedTexts(encoder="letters").encode(texts)
    assert len(batches) == 5
    assert all(max(lengths) - min(lengths) < 10 for lengths in batches)


def test_what_was_embedded_before_a_failure_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoded, "TEXTS", 10)
    embed = Letters.embed

    def failing(self: Letters, items: list[str]) -> torch.Tensor:
        if Letters.seen >= 20:
            raise KeyboardInterrupt
        return embed(self, items)

    texts = ["a" * i for i in range(1, 41)]
    monkeypatch.setattr(Letters, "embed", failing)
    with pytest.raises(KeyboardInterrupt):
        EncodedTexts(encoder="letters").encode(texts)
    monkeypatch.setattr(Letters, "embed", embed)
    EncodedTexts(encoder="letters").encode(texts)
    assert Letters.seen == 40


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoded, "PATIENCE", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    EncodedTexts(encoder="letters").encode(["a text"])
    assert ("embedding texts" in capsys.readouterr().err) == terminal


def test_no_progress_is_shown_while_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    EncodedTexts(encoder="letters").encode(["a text"])
    assert capsys.readouterr().err == ""


def test_transformers_is_imported_only_where_a_vector_is_missing(bert: Path) -> None:
    encoded_reader(str(bert)).convert(["some text"])
    code = """if True:
        import sys
        from innerloop.readers.encoded import encoded_reader
        reader = encoded_reader(sys.argv[1])
        for text in ("some text", "another text"):
            reader.convert([text])
            print("transformers" in sys.modules)
    """
    command = [sys.executable, "-c", code, str(bert)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# ------------------------------------------------------------------ sounds


def test_sounds_are_read_whole(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    write_wave(root / "loud" / "0.wav", tone(400, 0.2))
    write_wave(root / "loud" / "1.wav", tone(400, 3.0))
    write_wave(root / "quiet" / "0.wav", 0.1 * tone(400, 0.2, 8000), 8000)
    reader = reader_for(root, "loudness")
    assert isinstance(reader, EncodedSounds)
    found = reader.read(root, labels=True)
    assert found.x.shape == (3, 2)
    assert found.labels == ["loud", "loud", "quiet"]
    assert [file.name for file in found.files] == ["0.wav", "1.wav", "0.wav"]
    assert found.note == ""
    torch.testing.assert_close(found.x[0], found.x[1], rtol=1e-2, atol=1e-2)
    reader_for(root, "loudness").read(root, labels=True)
    assert Loudness.seen == 3
    in_memory = reader.convert([root / "loud" / "0.wav", (16_000, tone(400, 3.0))])
    torch.testing.assert_close(in_memory, found.x[:2], rtol=1e-2, atol=1e-2)


def test_sounds_that_are_cut_or_unreadable_are_named(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    write_wave(root / "a" / "0.wav", tone(400, 0.4))
    write_wave(root / "a" / "1.wav", tone(400, 0.2))
    (root / "a" / "2.wav").write_bytes(b"no sound")
    reader = EncodedSounds(encoder="loudness", seconds=0.3)
    for _ in range(2):  # read, and from the store
        found = reader.read(root, labels=True)
        assert len(found.x) == 2
        assert "1 of 2 sounds are longer than 0.3 s" in found.note
        assert found.unreadable[0].startswith("a/2.wav: it is not a WAV file")


# ------------------------------------------------------------------ weights and names


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = encoded_reader("letters")
    assert EncodedTexts.from_settings(reader.settings()) == reader
    monkeypatch.setattr(Letters, "files", ("_pytest/__init__.py",))
    from innerloop import encoders

    encoders._opened.cache_clear()
    other = EncodedTexts.from_settings(reader.settings())
    with pytest.raises(InnerloopError, match=r"needs the weights letters .* installed"):
        other.convert(["a text"])


@pytest.mark.parametrize("weights", [["letters"], ["a", "b"]])
def test_weights_of_a_run_that_was_changed_are_refused(weights: list[str]) -> None:
    with pytest.raises(InnerloopError, match="needs the weights"):
        FrozenEncoder("letters", weights)


def test_changed_weights_have_another_digest(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerloop.encoders.folder import FolderTexts

    shutil.copytree(bert, tmp_path / "bert")
    before = FolderTexts(str(tmp_path / "bert"), {"hidden_size": 16}).weights
    assert str(before).startswith("bert folder sha256:")
    with (tmp_path / "bert" / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    after = FolderTexts(str(tmp_path / "bert"), {"hidden_size": 16}).weights
    assert before.sha256 != after.sha256


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    for name in ("letters", "colors", "loudness"):
        with pytest.raises(
            MissingPackageError, match=r"needs .* not-there-at-all: pip .*\[fake\]"
        ):
            encoded_reader(name)


def test_a_missing_module_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fake, "modules", ("not_there_at_all",))
    with pytest.raises(MissingPackageError, match=r"not_there_at_all: .*\[fake\]"):
        encoded_reader("letters+words")


def test_a_reader_of_a_run_needs_no_package_to_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = encoded_reader("letters").settings()
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    from innerloop import encoders

    encoders._opened.cache_clear()
    assert EncodedTexts.from_settings(settings).x_shape == (26,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("letters+colors", "the encoder colors reads images, not texts"),
        ("letters+conv4", "only images can be read by a learned network"),
        ("leters", "there is no encoder 'leters': did you mean 'letters'"),
        ("./nothing", "there is no folder .*/nothing"),
        ("letters+colors:all", "only one pretrained encoder can be trained"),
        ("loudness:all", "encoders of sounds cannot be trained"),
    ],
)
def test_names_that_do_not_fit_are_refused(name: str, message: str) -> None:
    with pytest.raises(InnerloopError, match=message):
        encoded_reader(name)


def test_an_encoder_that_is_trained_has_plain_readers(bert: Path) -> None:
    images = encoded_reader("colors:all")
    assert type(images) is ImageReader
    assert images.size == (8, 8)
    tokens = encoded_reader(f"{bert}:all", {"length": 9})
    assert isinstance(tokens, EncoderTokens)
    assert (tokens.x_shape, tokens.vocabulary) == ((9,), 31)
    x, cut = tokens.encode(["abc", "abcdefghij"])
    # the special tokens 2 and 3 around the letters from 4, each one greater
    assert x[0].tolist() == [3, 5, 6, 7, 4, 0, 0, 0, 0]
    assert x[1].tolist() == [3, 5, 6, 7, 8, 9, 10, 11, 4]
    assert cut == 1
    with pytest.raises(InnerloopError, match="at most 18 tokens at once"):
        encoded_reader(f"{bert}:all", {"length": 19})
