"""Encoders from folders with transformers models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from innerloop import PromptTuning
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.encoders import open_encoder
from innerloop.encoders.prompted import Prompted
from innerloop.engine.errors import InnerloopError
from innerloop.learners.transfer.finetune import last_block

transformers = pytest.importorskip("transformers")


def test_texts_are_the_mean_over_their_tokens(bert: Path) -> None:
    encoder = open_encoder(str(bert))
    texts = ["hello", "a", "some longer text"]
    found = encoder.embed(texts)
    assert found.shape == (3, encoder.features) == (3, 16)
    model = transformers.AutoModel.from_pretrained(bert, local_files_only=True).eval()
    for text, vector in zip(texts, found, strict=True):
        letters = [4 + ord(c) - 97 if c != " " else 1 for c in text]
        with torch.no_grad():
            states = model(torch.tensor([[2, *letters, 3]]))[0]
        torch.testing.assert_close(vector, states[0].mean(0), atol=1e-5, rtol=1e-5)


def test_long_texts_are_read_in_parts(bert: Path) -> None:
    encoder = open_encoder(str(bert))
    parts = "abcdefghijklmnop", "qrst"  # 16 letters and two special tokens are one part
    whole = encoder.embed(["".join(parts)])[0]
    first, second = encoder.embed(list(parts))
    torch.testing.assert_close(whole, (18 * first + 6 * second) / 24)


def test_images_are_the_pooled_output(vit: Path) -> None:
    encoder = open_encoder(str(vit))
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    found = encoder.embed(images)
    assert found.shape == (3, encoder.features) == (3, 16)
    assert encoder.size == 16
    model = transformers.AutoModel.from_pretrained(vit, local_files_only=True).eval()
    mean = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    std = torch.tensor([0.2, 0.25, 0.3])[:, None, None]
    with torch.no_grad():
        expected = model((images / 255 - mean) / std).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert encoder.embed(images[:, :, :9, :12]).isfinite().all()  # of another size


def test_a_pooling_layer_that_is_not_stored_is_not_made_up(
    tmp_path: Path, vit: Path
) -> None:
    model = transformers.ViTModel.from_pretrained(vit, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "vit")
    shutil.copy(vit / "preprocessor_config.json", tmp_path / "vit")
    encoder = open_encoder(str(tmp_path / "vit"))
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    again = encoder.network()(images / 255)
    torch.testing.assert_close(encoder.embed(images), again.detach())


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_the_network_is_what_embeds(kind: str, request: pytest.FixtureRequest) -> None:
    encoder = open_encoder(str(request.getfixturevalue(kind)))
    if kind == "bert":
        items = ["ab", "some text", "c"]
        x = encoder.numbers(items, 12)[0]  # pyright: ignore
        assert encoder.takes((12,), encoder.vocabulary)  # pyright: ignore
        assert not encoder.takes((12,), 7)
    else:
        items = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
        x = items / 255
        assert encoder.takes((3, 16, 16), 0)
        assert not encoder.takes((1, 16, 16), 0)
    network = encoder.network()
    torch.testing.assert_close(network(x).detach(), encoder.embed(items))
    assert last_block(network).endswith("1")  # of two layers
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    fresh = encoder.network()
    nn.init.zeros_(next(network.parameters()))  # each call returns weights of its own
    assert not torch.equal(next(fresh.parameters()), next(network.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no config", "has no config.json"),
        ("no weights", r"has no \*.safetensors"),
        ("no tokenizer", "needs tokenizer.json"),
        ("damaged config", "config.json cannot be read"),
        ("no width", "names no hidden_size"),
        ("damaged weights", "the model in .* cannot be used"),
        ("other weights", "lacks weights"),
    ],
)
def test_folders_that_cannot_be_used(
    change: str, message: str, bert: Path, vit: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    if change == "no config":
        config.unlink()
    elif change == "no weights":
        weights.unlink()
    elif change == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif change == "damaged config":
        config.write_text("{")
    elif change == "no width":
        config.write_text(json.dumps({"model_type": "clip"}))
    elif change == "damaged weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        shutil.copy(vit / "model.safetensors", weights)
    with pytest.raises(InnerloopError, match=message) as error:
        open_encoder(str(folder)).embed(["a text"])
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_a_prompt_stands_behind_the_text(bert: Path) -> None:
    network = open_encoder(str(bert)).network().eval()
    assert isinstance(network, Prompted)
    x = torch.tensor([[3.0, 5, 7, 0, 0], [4, 6, 0, 0, 0]])
    prompt = network.embed_tokens(torch.tensor([9, 2])).detach().requires_grad_()
    with_prompt = network(x, prompt)
    # the same tokens written behind a text, where they are no part of the mean
    first, mask = x[:1, :3], torch.ones(1, 5, dtype=torch.long)
    states = network.states(mask, input_ids=torch.tensor([[2, 4, 6, 8, 1]]))
    torch.testing.assert_close(network(first, prompt), states[:, :3].mean(1))
    torch.testing.assert_close(network(x[:1], prompt), with_prompt[:1])
    torch.testing.assert_close(network(x, prompt[:0]), network(x))
    assert not torch.allclose(with_prompt, network(x), atol=1e-4)
    (moved,) = torch.autograd.grad(
        torch.autograd.grad(with_prompt.square().sum(), prompt, create_graph=True)[0]
        .square()
        .sum(),
        prompt,
    )
    assert bool(moved.abs().sum() > 0)


def test_prompts_are_tuned_for_a_pretrained_network(bert: Path) -> None:
    spec = TaskSpec("classes", (6,), 2, vocabulary=31)
    network, y = f"{bert}:all", torch.eye(2)
    x = torch.tensor([[3.0, 5, 7, 0, 0, 0], [4, 6, 0, 0, 0, 0]])
    task = Task(Examples(x, y), Examples(x, y))
    learner = PromptTuning.build(spec, encoder=network, prompt_length=2, inner_steps=1)
    learner.loss(task)[0].backward()
    assert learner.offset.grad is not None
    assert bool(learner.offset.grad.abs().sum() > 0)
    assert all(p.grad is None for p in learner.encoder.parameters())
    longer = PromptTuning.build(spec, encoder=network, prompt_length=20)
    with pytest.raises(InnerloopError, match="lower the length of the texts"):
        longer.adapt(task.support)
