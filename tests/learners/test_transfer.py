"""Learners that begin with trained features, and prompts, against explicit loops
with the optimizers of torch.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import Task, TaskSpec
from innerloop.learners.optimization import PromptTuning
from innerloop.learners.transfer import FineTune, MetaTransfer
from innerloop.nets import TextEncoder
from innerloop.testing import Blobs

VECTORS, TEXTS = (
    TaskSpec("classes", (6,), 3),
    TaskSpec("classes", (5,), 3, vocabulary=12),
)


def task(spec: TaskSpec) -> Task:
    found = Blobs(spec).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    return Task(
        *(part._replace(x=part.x.double(), y=part.y.double()) for part in found)
    )


@pytest.mark.parametrize("adapted", ["head", "last", "all"])
def test_finetune_is_gradient_descent_on_what_it_adapts(adapted: str) -> None:
    torch.manual_seed(0)
    learner, some = (
        FineTune.build(
            VECTORS, adapted=adapted, inner_steps=7, inner_lr=0.2, encoder_lr=0.05
        ).double(),
        task(VECTORS),
    )
    encoder, head = copy.deepcopy(learner.encoder), nn.Linear(40, 3).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    moving = {
        "head": [],
        "last": list(encoder[-2].parameters()),
        "all": list(encoder.parameters()),
    }[adapted]  # pyright: ignore
    optimizer = torch.optim.SGD(
        [
            {"params": head.parameters(), "lr": 0.2},
            {"params": moving or [torch.zeros(1)], "lr": 0.05},
        ]
    )
    for _ in range(7):
        optimizer.zero_grad()
        F.cross_entropy(
            head(encoder(some.support.x)), some.support.y.argmax(-1)
        ).backward()
        optimizer.step()
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x),
        head(encoder(some.query.x)),
    )


def test_the_last_block_of_a_transformer_is_its_last_layer() -> None:
    learner = FineTune.build(TEXTS, adapted="last", encoder="bert")
    state = learner.adapt(
        Blobs(TEXTS).sample(1, torch.Generator().manual_seed(0)).unbind()[0].support
    )
    assert {".".join(name.split(".")[:5]) for name in state} == {
        "encoder.model.encoder.layer.1",
        "weight",
        "bias",
    }
    own = FineTune.build(TEXTS, adapted="last").adapt(
        Blobs(TEXTS).sample(1, torch.Generator().manual_seed(0)).unbind()[0].support
    )
    assert {".".join(name.split(".")[:3]) for name in own} == {
        "encoder.blocks.0",
        "weight",
        "bias",
    }
    with pytest.raises(ValueError, match="no blocks with weights"):
        FineTune.build(VECTORS, adapted="last", encoder="flatten").adapt(
            task(VECTORS).support
        )


def test_meta_transfer_is_an_explicit_loop() -> None:
    torch.manual_seed(0)
    learner, some = (
        MetaTransfer.build(VECTORS, inner_steps=3, inner_lr=0.3).double(),
        task(VECTORS),
    )
    for p in (*learner.scales.values(), *learner.shifts.values()):
        p.data += 0.3 * torch.randn_like(p)
    layers = [m for m in learner.encoder.modules() if isinstance(m, nn.Linear)]
    scales, shifts = list(learner.scales.values()), list(learner.shifts.values())

    def features(x: Tensor) -> Tensor:
        for layer, scale, shift in zip(layers, scales, shifts, strict=True):
            x = (x @ (layer.weight * scale).T + layer.bias + shift).relu()
        return x

    z = features(some.support.x)
    weight, bias = learner.head.weight, learner.head.bias
    for _ in range(3):
        loss = F.cross_entropy(z @ weight.T + bias, some.support.y.argmax(-1))  # pyright: ignore
        by_weight, by_bias = torch.autograd.grad(
            loss, [weight, bias], create_graph=True
        )  # pyright: ignore
        weight, bias = weight - 0.3 * by_weight, bias - 0.3 * by_bias
    expected = F.cross_entropy(
        features(some.query.x) @ weight.T + bias, some.query.y.argmax(-1)
    )  # pyright: ignore
    found = learner.loss(some)[0]
    torch.testing.assert_close(found, expected)
    theta = [p for p in learner.parameters() if p.requires_grad]
    assert not any(p.requires_grad for p in learner.encoder.parameters())
    for a, b in zip(
        torch.autograd.grad(found, theta),
        torch.autograd.grad(expected, theta),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_prompt_tuning_is_gradient_descent_on_prompt_and_head() -> None:
    torch.manual_seed(0)
    learner, some = (
        PromptTuning.build(
            TEXTS, prompt_length=2, inner_steps=4, inner_lr=0.3, head_lr=0.2, scale=0.05
        ).double(),
        task(TEXTS),
    )
    encoder = learner.encoder
    assert isinstance(encoder, TextEncoder)
    prompt = learner.prompt.detach().clone().requires_grad_()
    c = torch.stack(
        [
            encoder(some.support.x[some.support.y[:, k] > 0.5], learner.prompt).mean(0)
            for k in range(3)
        ]
    ).detach()
    weight, bias = (
        (0.1 * c).requires_grad_(),
        (-0.05 * c.square().sum(-1)).requires_grad_(),
    )
    optimizer = torch.optim.SGD(
        [{"params": [prompt], "lr": 0.3}, {"params": [weight, bias], "lr": 0.2}]
    )
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(
            encoder(some.support.x, prompt) @ weight.T + bias, some.support.y.argmax(-1)
        ).backward()
        optimizer.step()
    state = learner.adapt(some.support)
    for name, expected in (("prompt", prompt), ("weight", weight), ("bias", bias)):
        torch.testing.assert_close(state[name], expected)
    torch.testing.assert_close(
        learner.predict(state, some.query.x),
        encoder(some.query.x, prompt) @ weight.T + bias,
    )
    assert not torch.allclose(state["prompt"], learner.prompt)


def test_a_prompt_of_words_leaves_nothing_to_meta_learn() -> None:
    assert not any(
        p.requires_grad for p in PromptTuning.build(TEXTS, start="words").parameters()
    )
