"""Fine-tuning on augmented copies of the support set, against explicit loops."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.augmentation import Warp
from innerloop.learners.metric import ProtoNet
from innerloop.learners.transfer import PMF
from innerloop.testing import Blobs

VECTORS = TaskSpec("classes", (6,), 3)
IMAGES = TaskSpec("classes", (1, 12, 12), 3)
TEXTS = TaskSpec("classes", (7,), 3, vocabulary=12)


def task(spec: TaskSpec, seed: int = 0) -> Task:
    found = Blobs(spec).sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    return Task(
        *(part._replace(x=part.x.double(), y=part.y.double()) for part in found)
    )


def built(spec: TaskSpec, **fields: object) -> PMF:
    torch.manual_seed(0)
    return PMF.build(spec, **fields).double()


def cosines(z: Tensor, prototypes: Tensor) -> Tensor:
    products = (z[:, None] * prototypes).sum(-1)
    return products / z.norm(dim=-1)[:, None] / prototypes.norm(dim=-1)


def means(z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([z[y.argmax(-1) == k].mean(0) for k in range(y.shape[1])])


def test_steps_descend_the_loss_of_noisy_copies_of_the_support_set() -> None:
    learner, some = (
        built(VECTORS, encoder="mlp", inner_steps=4, inner_lr=0.05),
        task(VECTORS),
    )
    x, y = some.support
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(6, generator=generator).double()
    order = torch.tensor(sorted(range(len(x)), key=lambda i: float(x[i] @ key)))
    encoder, scale = (
        copy.deepcopy(learner.encoder),
        float(learner.log_scale.detach().exp()),
    )
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.05)
    for _ in range(4):
        noise = torch.randn(len(x), 6, generator=generator)
        size = x[order].square().mean(-1, keepdim=True).sqrt()
        copies = x[order] + learner.noise * size * noise.double()
        logits = scale * cosines(encoder(copies), means(encoder(x), y))
        optimizer.zero_grad()
        F.cross_entropy(logits, y[order].argmax(-1)).backward()
        optimizer.step()
    expected = scale * cosines(encoder(some.query.x), means(encoder(x), y))
    found = learner.predict(learner.adapt(some.support), some.query.x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("spec", [VECTORS, IMAGES, TEXTS])
def test_without_steps_it_is_a_prototypical_network_with_cosines(
    spec: TaskSpec,
) -> None:
    learner, some = built(spec, inner_steps=0), task(spec)
    network = ProtoNet.build(spec, encoder=learner.encoder, metric="cosine", scale=10.0)
    network = network.double()
    expected = network.predict(network.adapt(some.support), some.query.x)
    found = learner.predict(learner.adapt(some.support), some.query.x)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1))
    torch.testing.assert_close(learner.loss(some)[0], network.loss(some)[0])


def test_meta_training_does_not_go_through_the_steps() -> None:
    some = task(VECTORS)
    far, near = (built(VECTORS, inner_steps=n, inner_lr=1.0) for n in (5, 0))
    assert torch.equal(far.loss(some)[0], near.loss(some)[0])
    far_state, near_state = (each.adapt(some.support) for each in (far, near))
    assert not torch.allclose(far_state["prototypes"], near_state["prototypes"])


@pytest.mark.parametrize("spec", [VECTORS, IMAGES, TEXTS])
def test_adapting_is_deterministic_and_the_same_for_every_batch(
    spec: TaskSpec,
) -> None:
    learner, some = built(spec, inner_steps=3), task(spec)
    other = task(spec, 1)
    first = learner.adapt(some.support)
    torch.manual_seed(5)
    again = learner.adapt(some.support)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    x, y = (torch.stack(pair) for pair in zip(some.support, other.support, strict=True))
    both = learner.mapped(learner.adapt, Examples(x, y))
    for name, value in first.items():
        torch.testing.assert_close(both[name][0], value)
    for name, value in learner.adapt(other.support).items():
        torch.testing.assert_close(both[name][1], value)


def test_frozen_weights_stay() -> None:
    learner = built(VECTORS, encoder="mlp", inner_steps=3)
    frozen = next(iter(dict(learner.encoder.named_parameters())))
    learner.encoder.get_parameter(frozen).requires_grad_(False)
    state = learner.adapt(task(VECTORS).support)
    assert frozen not in state
    assert len(state) == len(list(learner.encoder.parameters()))


def test_images_are_distorted_and_texts_lose_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    learner = built(TEXTS, inner_steps=1)
    hook = lambda module, args: seen.append(args[0])  # noqa: E731
    learner.encoder.register_forward_pre_hook(hook)
    x = task(TEXTS).support.x
    learner.adapt(task(TEXTS).support)
    original, copies = seen[0].chunk(2)
    kept = copies == original
    assert bool((copies[~kept] == 0).all())
    assert 0.5 < float(kept.double().mean()) < 1
    assert original.sort(0).values.equal(x.sort(0).values)
    calls: list[tuple[int, ...]] = []
    plain = Warp.__call__

    def warp(self: Warp, images: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(tuple(images.shape))
        return plain(self, images, generator)

    monkeypatch.setattr(Warp, "__call__", warp)
    support = task(IMAGES).support
    built(IMAGES, inner_steps=2).adapt(support)
    assert calls == [tuple(support.x.shape)] * 2
