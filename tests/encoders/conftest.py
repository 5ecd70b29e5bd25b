"""Small encoders that need no download: three of the package pytest, and transformers
models with random weights.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from innerloop import encoders
from innerloop.cli import main
from innerloop.encoders.base import PretrainedEncoder


class Fake(PretrainedEncoder):
    """Fake: an encoder whose weights are files of pytest."""

    package = "pytest"
    extra = "fake"
    files = ("pytest/__init__.py",)
    license = "none"
    seen = 0  # items that were embedded, of all instances

    def _count(self, items: Any) -> None:
        type(self).seen += len(items)


class Colors(Fake):
    """Colors: means and deviations of colors.

    Reference: Nobody 2000, "Nothing".
    """

    what, features, size = "image", 6, 8

    def embed(self, items: Tensor) -> Tensor:
        self._count(items)
        pixels = items.float().flatten(2) / 255
        return torch.cat([pixels.mean(2), pixels.std(2)], 1)

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Letters(Fake):
    """Letters: how often each letter occurs."""

    what, features = "text", 26

    def embed(self, items: list[str]) -> Tensor:
        self._count(items)
        found = [[t.count(c) for c in string.ascii_lowercase] for t in items]
        return torch.tensor(found).float() + 0.01


class Loudness(Fake):
    """Loudness: mean absolute values and differences."""

    what, features = "sound", 2

    def embed(self, items: list[Tensor]) -> Tensor:
        self._count(items)
        return torch.stack(
            [torch.stack([w.abs().mean(), w.diff().abs().mean()]) for w in items]
        )


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The encoders "colors", "letters" and "loudness", and an empty cache folder."""
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoders, "ENCODERS", encoders.ENCODERS)
    for name, cls in (("colors", Colors), ("letters", Letters), ("loudness", Loudness)):
        monkeypatch.setitem(encoders.ENCODERS, name, cls)
        cls.seen = 0
    encoders._opened.cache_clear()
    yield
    encoders._opened.cache_clear()


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; returns its one line."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert len(lines[0]) < 330, lines[0]
        return lines[0]

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """12 classes of 4 pictures of about one color, each in a folder."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for c in range(12):
        (root / f"c{c}").mkdir(parents=True)
        base = rng.integers(0, 255, 3)
        for i in range(4):
            noise = rng.integers(-9, 9, (12, 10, 3))
            pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"c{c}" / f"{i}.png")
    return root


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """A table of 12 labels, each of 5 texts of its own words."""
    words = [f"{a}{b}" for a in "abcd" for b in "efg"]
    lines = [
        f"{w} {w} {words[(k + i) % 12]} {'h' * i},label {w}"
        for k, w in enumerate(words)
        for i in range(1, 6)
    ]
    file = tmp_path / "requests.csv"
    file.write_text("\n".join(["text,label", *lines]))
    return file


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of random weights."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("models") / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), max_position_embeddings=20, **SMALL
    )
    transformers.BertModel(config).save_pretrained(folder)
    known = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(known, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vision transformer of random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)
    transformers.ViTModel(config).save_pretrained(folder)
    settings = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.3],
        "rescale_factor": 1 / 255,
        "size": {"height": 16, "width": 16},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
