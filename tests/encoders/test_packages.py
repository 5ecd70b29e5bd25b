"""The encoders of real packages, against independent computations."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import FewShotClassifier
from innerloop.encoders import ENCODERS, open_encoder
from innerloop.engine.errors import MissingPackageError


@pytest.fixture
def installed(request: pytest.FixtureRequest) -> None:
    """Skips where the package of the encoder is not installed."""
    try:
        open_encoder(request.param).installed()
    except MissingPackageError as error:
        pytest.skip(str(error))


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("installed", [name], indirect=True)


def images(seed: int = 0, size: int = 64) -> Tensor:
    """Smooth images (2, 3, size, size), bytes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 8, generator=generator) * 255
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 255).byte()


# ------------------------------------------------------------------ images


class Reference:
    """EfficientNet-lite0 straight from its stored tensors, with batch normalization and
    explicit padding. The layers are applied in the order in which they are stored.
    """

    def __init__(self, file: object):
        stored = torch.load(str(file), map_location="cpu", weights_only=True)
        names = [n for n in stored if n.endswith("weight") and stored[n].dim() == 4]
        self.layers = [(stored[n], self._norm(stored, n)) for n in names]
        self.place = 0

    @staticmethod
    def _norm(stored: dict[str, Tensor], name: str) -> list[Tensor]:
        order = list(stored)
        begin = order.index(name) + 1
        return [stored[n] for n in order[begin : begin + 4]]

    def layer(self, x: Tensor, stride: int, linear: bool) -> Tensor:
        weight, (scale, shift, mean, variance) = self.layers[self.place]
        self.place += 1
        kernel, size = weight.shape[-1], x.shape[-1]
        groups = x.shape[1] // weight.shape[1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before = total // 2
        x = F.pad(x, (before, total - before, before, total - before))
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        x = F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        return x if linear else x.clamp(0, 6)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.layer((x.double() - 127) / 128, 2, False)
        stages = "k3s1e1r1 k3s2e6r2 k5s2e6r2 k3s2e6r3 k5s1e6r3 k5s2e6r4 k3s1e6r1"
        for stage in stages.split():
            for repeat in range(int(stage[7])):
                before = x
                stride = 1 if repeat else int(stage[3])
                if stage[5] != "1":
                    x = self.layer(x, 1, False)
                x = self.layer(x, stride, False)
                x = self.layer(x, 1, True)
                if repeat:
                    x = x + before
        return self.layer(x, 1, False).mean((2, 3))


@of("efficientnet")
@pytest.mark.parametrize("size", [64, 75])
def test_efficientnet_is_as_its_stored_layers(installed: None, size: int) -> None:
    encoder = open_encoder("efficientnet")
    reference = Reference(encoder.weights.files[0])
    reference.layers = [
        (w.double(), [t.double() for t in norm]) for w, norm in reference.layers
    ]
    x = images(size=size)
    expected = reference(x)
    assert reference.place == len(reference.layers) == 49
    found = encoder.embed(x)
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.network()(x / 255).detach(), found)


@of("mobilenet")
def test_mobilenet_embeds_each_image_alike(installed: None) -> None:
    encoder = open_encoder("mobilenet")
    x = images(size=224)
    found = encoder.embed(x)
    assert found.shape == (2, 576)
    torch.testing.assert_close(encoder.embed(x[1:]), found[1:], atol=1e-4, rtol=1e-4)
    assert encoder.embed(images(size=40)).isfinite().all()


# ------------------------------------------------------------------ texts

TEXTS = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
    "word " * 300,
]


@of("minilm")
def test_minilm_is_the_mean_over_tokens_and_two_layers(installed: None) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = open_encoder("minilm")
    found = encoder.embed(TEXTS)
    folder = encoder.weights.files[0].parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    for text, vector in zip(TEXTS[:4], found, strict=False):
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt")
            states = model.eval()(**inputs, output_hidden_states=True).hidden_states
        expected = (states[-1] + states[-2])[0].mean(0) / 2
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


@of("minilm")
def test_minilm_is_the_published_model(installed: None) -> None:
    encoder = open_encoder("minilm")
    model = encoder.network()
    model.layers = 1
    x, _ = encoder.numbers(TEXTS[:4], 16)
    with torch.no_grad():
        unit = F.normalize(model(x), dim=1)
    # the similarities that the model's page shows for these sentences
    published = torch.tensor([0.695, 0.943, 0.257])
    torch.testing.assert_close(unit[0] @ unit[1:4].T, published, atol=2e-3, rtol=0)


@of("words")
def test_words_are_the_mean_of_the_vectors_of_tokens(installed: None) -> None:
    import tokenizers
    from safetensors.numpy import load_file

    encoder = open_encoder("words")
    (table,) = load_file(encoder.weights.files[0]).values()
    tokenizer = tokenizers.Tokenizer.from_file(str(encoder.weights.files[1]))
    tokenizer.no_truncation()
    for text, vector in zip(TEXTS, encoder.embed(TEXTS), strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        expected = np.mean([table[i].astype(np.float64) for i in ids], axis=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize("installed", ["minilm", "words"], indirect=True)
def test_empty_and_odd_texts_have_finite_vectors(
    installed: None, request: pytest.FixtureRequest
) -> None:
    encoder = open_encoder(request.node.callspec.params["installed"])
    found = encoder.embed(["", " ", "\N{SNOWMAN}", "\u4f60\u597d", "a" * 5000])
    assert found.isfinite().all()


# ------------------------------------------------------------------ sounds


@of("openwakeword")
def test_sounds_of_some_kinds_are_told_apart(installed: None) -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(16_000) / 16_000

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(1, generator=generator)

    def noise() -> Tensor:
        return torch.randn(16_000, generator=generator) / 3

    kinds = [
        lambda: torch.sin(2 * torch.pi * draw(180, 260) * t),
        lambda: torch.sin(2 * torch.pi * draw(1500, 2200) * t),
        lambda: torch.sin(2 * torch.pi * (draw(200, 300) * t + draw(500, 900) * t**2)),
        lambda: torch.sin(2 * torch.pi * (draw(1800, 2200) * t - 700 * t**2)),
        noise,
        lambda: F.avg_pool1d(noise()[None], 41, 1, 20)[0],
    ]
    encoder = open_encoder("openwakeword")
    waves = [
        [(kind() * draw(0.1, 0.5) + noise() / 100).clamp(-1, 1) for _ in range(6)]
        for kind in kinds
    ]
    support = [(16_000, w.numpy()) for some in waves for w in some[:3]]
    query = [(16_000, w.numpy()) for some in waves for w in some[3:]]
    classifier = FewShotClassifier(encoder="openwakeword")
    labels = [k for k in range(len(kinds)) for _ in range(3)]
    classifier.fit(support, labels)
    assert classifier.score(query, labels) > 0.9
    torch.testing.assert_close(encoder.embed(waves[0][:1]), encoder.embed(waves[0])[:1])
    assert encoder.embed([torch.zeros(3)]).isfinite().all()


# ------------------------------------------------------------------ all


@pytest.mark.parametrize("name", ENCODERS)
def test_the_license_is_what_the_package_states(name: str) -> None:
    cls = ENCODERS[name]
    try:
        about = distribution(cls.package).metadata
    except PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed")
    stated = f"{about.get('License', '')} {about.get('License-Expression', '')}"
    classes = " ".join(about.get_all("Classifier") or ())
    for known, word in (("MIT", "MIT"), ("Apache", "Apache")):
        if known in stated or f"License :: OSI Approved :: {known}" in classes:
            assert word in cls.license
    if stated.split() in ([], ["UNKNOWN"]) and "License ::" not in classes:
        assert "state none" in cls.license


@pytest.mark.parametrize("name", ENCODERS)
def test_the_files_are_in_the_package(name: str) -> None:
    encoder = open_encoder(name)
    try:
        encoder.installed()
    except MissingPackageError as error:
        pytest.skip(str(error))
    weights = encoder.weights
    assert len(weights.files) == len(encoder.files)
    assert weights.version == distribution(encoder.package).version
    assert len(weights.sha256) == 64
