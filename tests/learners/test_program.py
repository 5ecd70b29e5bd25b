"""Amortized learners against references that share no code with them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop import CNAPs, Examples, Learner, Modular, Task, TaskSpec, Versa
from innerloop.nets import BatchNorm
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def built(learner: type[Learner], **build_args: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(SPEC, **build_args).double()


def task() -> Task:
    support, query = Blobs(SPEC).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def through(net: nn.Module, x: Tensor) -> Tensor:
    """A perceptron, layer by layer."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        x = (x @ layer.weight.T + layer.bias).clamp_min(0)
    return x @ layers[-1].weight.T + layers[-1].bias


def class_means(z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([z[y[:, k] == 1].mean(0) for k in range(y.shape[1])])


def test_versa_generates_a_distribution_of_weights() -> None:
    learner, some = built(Versa, encoder="flatten", width=6), task()
    z, query = some.support.x / 2, some.query.x / 2  # the root of 4 features
    mean, raw = through(learner.generator, class_means(z, some.support.y)).chunk(2, -1)  # pyright: ignore[reportArgumentType]
    scale = 0.1 * F.softplus(raw - 2)
    query = torch.cat([query, torch.ones(len(query), 1)], 1)
    variance = torch.stack([((query * s) ** 2).sum(1) for s in scale], 1)
    expected = query @ mean.T / torch.sqrt(1 + math.pi * variance / 8)
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), expected
    )


def test_versa_averages_probabilities_over_samples() -> None:
    learner, some = built(Versa, encoder="flatten", width=6, samples=20_000), task()
    state = learner.adapt(some.support)
    wide = state[0], 5 + state[1]  # far from certain
    generator = torch.Generator().manual_seed(0)
    W = wide[0] + wide[1] * torch.randn(
        20_000, *wide[0].shape, generator=generator, dtype=torch.float64
    )
    query = torch.cat([some.query.x / 2, torch.ones(len(some.query.x), 1)], 1)
    expected = (query @ W.mT).softmax(-1).mean(0)
    learner.train()
    torch.manual_seed(1)
    torch.testing.assert_close(
        learner.predict(wide, some.query.x).exp(), expected, atol=0.015, rtol=0
    )


def test_cnaps_conditions_every_layer() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 5), BatchNorm(5), nn.ReLU(), nn.Linear(5, 2))
    learner, some = built(CNAPs, encoder=encoder, width=6), task()
    norm = encoder[1]
    assert isinstance(norm, BatchNorm)
    norm.mean.copy_(torch.randn(5))
    norm.var.copy_(torch.rand(5) + 0.5)
    film = learner.film
    assert isinstance(film, nn.Sequential)
    film[-1].weight.data *= 10  # pyright: ignore  # conditions that can be numbers from none
    numbers = through(film, learner.set_encoder(some.support.x).mean(0))  # pyright: ignore[reportCallIssue]
    a, b, end_scale, end_shift = numbers.split([5, 5, 2, 2])

    def features(x: Tensor) -> Tensor:
        h = (x @ encoder[0].weight.T + encoder[0].bias - norm.mean) / (
            norm.var + 1e-5
        ).sqrt()  # pyright: ignore
        h = (h * norm.weight * (1 + a) + norm.bias + b).clamp_min(0)
        z = h @ encoder[3].weight.T + encoder[3].bias  # pyright: ignore
        return (z * (1 + end_scale) + end_shift) / 2**0.5

    weights = through(
        learner.generator, class_means(features(some.support.x), some.support.y)
    )  # pyright: ignore[reportArgumentType]
    expected = features(some.query.x) @ weights[:, :2].T + weights[:, 2]
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), expected
    )
    torch.testing.assert_close(
        learner.loss(some)[0], F.cross_entropy(expected, some.query.y)
    )
    assert float(a.abs().max()) > 0.01


def module(learner: Modular, k: int, z: Tensor) -> Tensor:
    h = (z @ learner.hidden[k, :-1] + learner.hidden[k, -1]).clamp_min(0)
    return h @ learner.output[k, :-1] + learner.output[k, -1]


@pytest.mark.parametrize("compose", ["sum", "chain"])
def test_modular_finds_the_structure_that_fits_the_support_set(compose: str) -> None:
    torch.manual_seed(0)
    learner, some = (
        Modular.build(
            SPEC, compose=compose, library=3, width=5, temperature=2.0
        ).double(),
        task(),
    )
    structures = [
        (i, j) for i in range(3) for j in range(3) if compose == "chain" or i <= j
    ]
    assert [tuple(s) for s in learner.structures.tolist()] == structures  # pyright: ignore
    losses, queries, outputs = [], [], []
    for i, j in structures:

        def features(x: Tensor) -> Tensor:
            first = module(learner, i, x)  # noqa: B023
            return x + (
                module(learner, j, first)  # noqa: B023
                if compose == "chain"
                else first + module(learner, j, x)  # noqa: B023
            )

        means = class_means(features(some.support.x), some.support.y)
        scores = [
            -0.1 * ((features(part.x)[:, None] - means) ** 2).sum(-1) for part in some
        ]
        losses.append(F.cross_entropy(scores[0], some.support.y))
        queries.append(F.cross_entropy(scores[1], some.query.y))
        outputs.append(scores[1])
    best = int(torch.stack(losses).argmin())
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), outputs[best]
    )
    share = (-len(some.support.y) * torch.stack(losses) / 2.0).softmax(0)
    torch.testing.assert_close(
        learner.loss(some)[0], (share * torch.stack(queries)).sum()
    )
    learner.on_progress(0.5)
    share = (-len(some.support.y) * torch.stack(losses) / 0.2).softmax(0)
    torch.testing.assert_close(
        learner.loss(some)[0], (share * torch.stack(queries)).sum()
    )


def test_modules_predict_reals_directly() -> None:
    torch.manual_seed(0)
    learner = Modular.build(TaskSpec("reals", (2,), 1), library=2).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    wanted = module(learner, 0, x) + module(learner, 1, x)
    state = learner.adapt(Examples(x, wanted))
    torch.testing.assert_close(
        learner.predict(state, 2 * x),
        module(learner, 0, 2 * x) + module(learner, 1, 2 * x),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"library": 20, "slots": 4}, r"at most 4096.*got 20 \*\* 4"),
        ({"compose": "chain"}, 'use compose="sum"'),
        ({"temperature": 0.0}, "temperature of Modular must be greater than 0"),
        ({"scale": float("nan")}, "scale of Modular must be greater than 0"),
        ({"slots": 0}, "slots of Modular must be at least 1"),
    ],
)
def test_bad_structures_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modular.build(TaskSpec("reals", (2,), 1), **fields)
