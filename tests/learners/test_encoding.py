"""Encoder-decoder learners against references that share no code with them."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ExpSineSquared, Matern
from torch import Tensor, nn

from innerloop import (
    ANP,
    CNP,
    NP,
    EncoderDecoder,
    Examples,
    Gaussian,
    Learner,
    Task,
    TaskSpec,
    meta_test,
    meta_train,
)
from innerloop.learners.neural_processes.layers import (
    divergence,
    moment_matched,
    unsoftplus,
)
from innerloop.tasks import completion, gp_curves
from innerloop.tasks.gp_curves import LENGTH, NOISE, PERIOD, Kernel
from innerloop.testing import Blobs

SPEC = TaskSpec("reals", (2,), 1)


def built(learner: type[Learner], **build_args: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(SPEC, width=8, **build_args).double()


def task(seed: int = 0) -> Task:
    support, query = (
        Blobs(SPEC).sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    )
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def normal(outputs: Tensor) -> torch.distributions.Normal:
    mean, raw = outputs.chunk(2, -1)
    return torch.distributions.Normal(mean, 0.01 + 0.99 * torch.log1p(raw.exp()))


def through(net: nn.Module, x: Tensor) -> Tensor:
    """A perceptron, layer by layer."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        x = (x @ layer.weight.T + layer.bias).clamp_min(0)
    return x @ layers[-1].weight.T + layers[-1].bias


def pairs(examples: Examples) -> Tensor:
    return torch.cat([examples.x, examples.y], -1)


def test_cnp_is_a_loop_over_examples() -> None:
    learner, some = built(CNP), task()
    r = torch.stack(
        [through(learner.pairs, pair) for pair in pairs(some.support)]
    ).mean(0)  # pyright: ignore[reportArgumentType]
    outputs = torch.stack(
        [through(learner.decoder, torch.cat([x, r])) for x in some.query.x]
    )  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), outputs
    )
    torch.testing.assert_close(
        learner.loss(some)[0], -normal(outputs).log_prob(some.query.y).mean()
    )


def latent(learner: Learner, examples: Examples) -> torch.distributions.Normal:
    inner = learner.posterior  # pyright: ignore[reportAttributeAccessIssue]
    mean, raw = through(
        inner.moments, through(inner.pairs, pairs(examples)).mean(0)
    ).chunk(2)  # pyright: ignore
    return torch.distributions.Normal(mean, 0.1 + 0.9 / (1 + torch.exp(-raw)))


def attended(learner: Learner, support: Examples, x: Tensor) -> Tensor:
    """r(x) of an ANP, by torch's attention."""
    block = learner.self_attention  # pyright: ignore[reportAttributeAccessIssue]
    reference = nn.MultiheadAttention(8, 2).double()
    reference.in_proj_weight.data, reference.in_proj_bias.data = (
        block.projections.weight.data,
        block.projections.bias.data,
    )  # pyright: ignore
    reference.out_proj.load_state_dict(block.out.state_dict())  # pyright: ignore
    values = through(learner.pairs, pairs(support))  # pyright: ignore[reportArgumentType]
    normed = block.before_attention(values)  # pyright: ignore[reportCallIssue]
    values = values + reference(normed, normed, normed)[0]
    values = values + block.mlp(block.before_mlp(values))  # pyright: ignore[reportCallIssue]
    q, k = through(learner.keys, x), through(learner.keys, support.x)  # pyright: ignore[reportArgumentType]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q[None, :, half], k[None, :, half], values[None, :, half]
        )[0]
        for half in (slice(0, 4), slice(4, 8))
    ]
    return torch.cat(parts, -1)


@pytest.mark.parametrize("kind", [NP, ANP])
def test_neural_processes_are_the_papers_equations(kind: type[Learner]) -> None:
    learner, some = (
        built(kind, latent=3, samples=5, **({"heads": 2} if kind is ANP else {})),
        task(),
    )
    both = Examples(
        torch.cat([some.support.x, some.query.x]),
        torch.cat([some.support.y, some.query.y]),
    )

    def r(x: Tensor) -> Tensor:
        if kind is ANP:
            return attended(learner, some.support, x)
        return through(learner.pairs, pairs(some.support)).mean(0).expand(len(x), -1)  # pyright: ignore[reportArgumentType]

    def decoded(x: Tensor, z: Tensor) -> torch.distributions.Normal:
        return normal(
            through(learner.decoder, torch.cat([x, r(x), z.expand(len(x), -1)], -1))
        )  # pyright: ignore[reportArgumentType]

    q, prior, noise = (
        latent(learner, both),
        latent(learner, some.support),
        learner.get_buffer("noise"),
    )
    bound = decoded(both.x, q.mean + q.stddev * noise[0]).log_prob(both.y).mean()
    expected = -bound + torch.distributions.kl_divergence(q, prior).sum() / len(both.y)
    torch.testing.assert_close(learner.loss(some)[0], expected)
    draws = [decoded(some.query.x, prior.mean + prior.stddev * one) for one in noise]
    found = normal(learner.predict(learner.adapt(some.support), some.query.x))
    mean = torch.stack([d.mean for d in draws]).mean(0)
    second = torch.stack([d.variance + d.mean.square() for d in draws]).mean(0)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.variance, second - mean.square())


def test_encoder_decoder_reconstructs_and_predicts() -> None:
    learner, some = built(EncoderDecoder, code=3, reconstruction=0.5), task()
    code = through(
        learner.bottleneck, through(learner.pairs, pairs(some.support)).mean(0)
    )  # pyright: ignore[reportArgumentType]
    errors = []
    for part in (some.query, some.support):
        answers = through(
            learner.decoder, torch.cat([part.x, code.expand(len(part.x), -1)], -1)
        )  # pyright: ignore[reportArgumentType]
        errors.append((answers - part.y).square().mean())
    torch.testing.assert_close(learner.loss(some)[0], errors[0] + 0.5 * errors[1])


def test_neural_processes_refuse_other_likelihoods() -> None:
    with pytest.raises(ValueError, match=r"NP predicts a mean and a scale"):
        NP.build(SPEC, likelihood=Gaussian())
    with pytest.raises(ValueError, match="width must be a multiple of heads"):
        ANP.build(SPEC, width=6, heads=4)


def test_divergence_is_torchs() -> None:
    a, b = (
        (
            torch.randn(4, 3, dtype=torch.float64),
            torch.rand(4, 3, dtype=torch.float64) + 0.1,
        )
        for _ in range(2)
    )
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(*a), torch.distributions.Normal(*b)
    ).sum(-1)
    torch.testing.assert_close(divergence(a, b), expected)


def test_a_mixture_of_one_is_itself() -> None:
    outputs = torch.randn(1, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(moment_matched(outputs), outputs[0])
    y = torch.rand(5, dtype=torch.float64) * 10
    torch.testing.assert_close(torch.nn.functional.softplus(unsoftplus(y)), y)


@pytest.mark.parametrize("kernel", ["rbf", "matern", "periodic"])
def test_the_posterior_is_scikit_learns(kernel: Kernel) -> None:
    reference = {
        "rbf": RBF(LENGTH),
        "matern": Matern(LENGTH, nu=2.5),
        "periodic": ExpSineSquared(2 * LENGTH, PERIOD),
    }[kernel]
    tasks = gp_curves("test", shots=7, queries=20, kernel=kernel).sample(
        3, torch.Generator().manual_seed(0)
    )
    mean, sd = gp_curves("test", kernel=kernel).posterior(tasks.support, tasks.query.x)
    for i, one in enumerate(tasks.unbind()):
        process = GaussianProcessRegressor(
            reference, alpha=NOISE**2, optimizer=None
        ).fit(one.support.x.numpy(), one.support.y.numpy()[:, 0])
        found = process.predict(one.query.x.numpy(), return_std=True)
        np.testing.assert_allclose(mean[i, :, 0], found[0], atol=2e-4)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(
            sd[i, :, 0] ** 2, found[1] ** 2 + NOISE**2, atol=2e-4
        )  # pyright: ignore[reportOperatorIssue, reportArgumentType]


@pytest.mark.parametrize("kernel", ["rbf", "matern", "periodic"])
def test_curves_have_the_covariance_of_their_kernel(kernel: Kernel) -> None:
    tasks = gp_curves("test", shots=1, queries=1, kernel=kernel).sample(
        40_000, torch.Generator().manual_seed(0)
    )
    gap, product = (
        (tasks.support.x - tasks.query.x).abs().flatten(),
        (tasks.support.y * tasks.query.y).flatten(),
    )
    near = (gap > 0.18) & (gap < 0.22)
    reference = {
        "rbf": RBF(LENGTH),
        "matern": Matern(LENGTH, nu=2.5),
        "periodic": ExpSineSquared(2 * LENGTH, PERIOD),
    }[kernel]
    expected = float(reference(np.array([[0.0]]), np.array([[0.2]]))[0, 0])  # pyright: ignore[reportIndexIssue]
    assert float(product[near].mean()) == pytest.approx(expected, abs=0.08)
    assert float(tasks.support.y.var()) == pytest.approx(1 + NOISE**2, abs=0.03)


def test_pixels_to_complete_are_those_of_the_drawing() -> None:
    tasks = completion("test", shots=400, queries=384)
    some = tasks.sample(2, torch.Generator().manual_seed(0))
    x, y = (
        torch.cat([some.support.x, some.query.x], 1),
        torch.cat([some.support.y, some.query.y], 1),
    )
    place = ((x + 1) / 2 * 27).round().long()
    assert all(len({tuple(p) for p in one.tolist()}) == 784 for one in place)
    image = torch.zeros(28, 28)
    image[place[0, :, 0], place[0, :, 1]] = y[0, :, 0]
    assert torch.equal(
        image,
        tasks.characters.sample(2, torch.Generator().manual_seed(0)).support.x[0, 0, 0],
    )
    lengths = {
        len(
            completion("train", shots=9, queries=1)
            .sample(1, torch.Generator().manual_seed(s))
            .support.x[0]
        )
        for s in range(60)
    }
    assert lengths == set(range(1, 10))


@pytest.mark.slow
def test_a_neural_process_comes_near_the_exact_posterior_and_not_beyond() -> None:
    torch.manual_seed(0)
    learner = ANP.build(gp_curves().spec)
    optimizer = torch.optim.Adam(learner.parameters(), lr=5e-4)
    for _ in meta_train(learner, gp_curves(), steps=6000, optimizer=optimizer):
        pass
    tasks = gp_curves("test", shots=10)
    loss = meta_test(learner, tasks, n=1000).metrics["loss"].mean
    exact = float(
        tasks.best_loss(tasks.sample(1000, torch.Generator().manual_seed(0))).mean()
    )
    assert -0.05 < loss - exact < 0.5
