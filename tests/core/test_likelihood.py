"""Likelihoods against torch's own losses and distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    widened,
)
from innerloop.engine.scores import roc_auc


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def one_hot(*labels: int) -> Tensor:
    return F.one_hot(torch.tensor(labels), 3).double()


def test_categorical_is_cross_entropy_in_nats() -> None:
    outputs, y = draw(4, 3), one_hot(0, 2, 1, 1)
    assert float(Categorical().nll(outputs, y)) == pytest.approx(
        float(F.cross_entropy(outputs, y.argmax(1)))
    )
    soft = draw(4, 3, seed=1).softmax(-1)
    assert float(Categorical().nll(outputs, soft)) == pytest.approx(
        float(F.cross_entropy(outputs, soft))
    )
    assert float(Categorical().nll(torch.zeros(4, 3), y.float())) == pytest.approx(
        math.log(3)
    )


def test_categorical_counts_right_answers_and_gives_probabilities() -> None:
    outputs = torch.tensor([[2.0, 0, 0], [0, 3, 1], [0, 0, 1], [5, 0, 0]])
    assert float(Categorical().metrics(outputs, one_hot(0, 2, 2, 1))["accuracy"]) == 0.5
    torch.testing.assert_close(
        Categorical().mean(outputs), outputs.exp() / outputs.exp().sum(1, keepdim=True)
    )


def test_gaussian_is_the_squared_error_summed_over_dimensions() -> None:
    outputs, y = draw(5, 2), draw(5, 2, seed=1)
    by_hand = sum(
        float((outputs[i, j] - y[i, j]) ** 2) for i in range(5) for j in range(2)
    )
    assert float(Gaussian().nll(outputs, y)) == pytest.approx(by_hand / 5)
    assert float(Gaussian().metrics(outputs, y)["mse"]) == pytest.approx(by_hand / 10)
    assert torch.equal(Gaussian().mean(outputs), outputs)


def test_gaussian_with_learned_scale_is_the_normal_density() -> None:
    outputs, y = draw(5, 4), draw(5, 2, seed=1)
    scale = 0.01 + 0.99 * F.softplus(outputs[:, 2:])
    density = torch.distributions.Normal(outputs[:, :2], scale).log_prob(y)
    learned = Gaussian(learned_scale=True)
    assert float(learned.nll(outputs, y)) == pytest.approx(
        -float(density.sum(1).mean())
    )
    assert float(learned.metrics(outputs, y)["mse"]) == pytest.approx(
        float(F.mse_loss(outputs[:, :2], y))
    )
    assert torch.equal(learned.mean(outputs), outputs[:, :2])
    assert bool((learned.moments(torch.full((1, 4), -1e3))[1] >= 0.01).all())


def test_bernoulli_is_binary_cross_entropy() -> None:
    outputs, y = 3 * draw(5, 2), (draw(5, 2, seed=1) > 0).double()
    wanted = (
        F.binary_cross_entropy_with_logits(outputs, y, reduction="none").sum(1).mean()
    )
    assert float(Bernoulli().nll(outputs, y)) == pytest.approx(float(wanted))
    assert float(Bernoulli().metrics(outputs, y)["accuracy"]) == pytest.approx(
        float(((outputs > 0) == (y > 0)).double().mean())
    )
    torch.testing.assert_close(Bernoulli().mean(outputs), 1 / (1 + (-outputs).exp()))


@pytest.mark.parametrize(
    ("likelihood", "wanted"),
    [
        (Categorical(), 3),
        (Gaussian(), 3),
        (Gaussian(learned_scale=True), 6),
        (Bernoulli(), 3),
    ],
)
def test_out_dim_is_what_a_learner_must_give(
    likelihood: Likelihood, wanted: int
) -> None:
    assert likelihood.out_dim(3) == wanted
    outputs, y = draw(4, wanted), one_hot(0, 1, 2, 0)
    assert likelihood.nll(outputs, y).shape == ()
    assert likelihood.mean(outputs).shape == y.shape
    assert likelihood.score in likelihood.metrics(outputs, y)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()])
def test_extreme_logits_stay_finite(likelihood: Likelihood) -> None:
    outputs = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = likelihood.nll(outputs, torch.tensor([[0.0, 1.0, 0.0]]))
    (slope,) = torch.autograd.grad(loss, outputs)
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize(
    "likelihood", [Categorical(), Gaussian(), Gaussian(learned_scale=True), Bernoulli()]
)
def test_metrics_are_detached_scalars(likelihood: Likelihood) -> None:
    outputs = draw(2, likelihood.out_dim(3)).requires_grad_()
    for value in likelihood.metrics(outputs, one_hot(0, 1)).values():
        assert value.shape == ()
        assert not value.requires_grad


def test_direction_of_scores() -> None:
    assert [
        one.higher_is_better for one in (Categorical(), Gaussian(), Bernoulli())
    ] == [True, False, True]


def test_widened_lifts_half_precision_alone() -> None:
    dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    assert [widened(torch.zeros(1, dtype=dtype)).dtype for dtype in dtypes] == [
        torch.float32,
        torch.float32,
        torch.float32,
        torch.float64,
    ]


@pytest.mark.parametrize(
    "likelihood", [Categorical(), Gaussian(), Gaussian(learned_scale=True), Bernoulli()]
)
def test_half_precision_outputs_are_scored_in_single_precision(
    likelihood: Likelihood,
) -> None:
    outputs, y = (
        (3 * draw(50, likelihood.out_dim(2))).bfloat16(),
        (draw(50, 2, seed=1) > 0).float(),
    )
    found = likelihood.nll(outputs, y)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(
        float(likelihood.nll(outputs.float(), y)), rel=1e-6
    )


def pairwise(scores: Tensor, positive: Tensor) -> Tensor:
    """The area by its definition, over all pairs."""
    pairs = positive[:, None] * (1 - positive)
    gap = scores[:, None] - scores
    won = (pairs * ((gap > 0).double() + 0.5 * (gap == 0))).sum()
    return won / pairs.sum()


@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_curve_is_the_share_of_ordered_pairs(seed: int) -> None:
    scores = (3 * draw(40, seed=seed)).round()  # with ties
    positive = (draw(40, seed=seed + 10) > 0.5).double()
    torch.testing.assert_close(roc_auc(scores, positive), pairwise(scores, positive))
    soft = draw(40, seed=seed).sigmoid()
    torch.testing.assert_close(roc_auc(scores, soft), pairwise(scores, soft))
    order = torch.randperm(40)
    assert torch.equal(
        roc_auc(scores, positive), roc_auc(scores[order], positive[order])
    )


def test_area_under_the_curve_crosses_vmap() -> None:
    scores, positive = draw(3, 20), (draw(3, 20, seed=1) > 0).double()
    each = [roc_auc(s, p) for s, p in zip(scores, positive, strict=True)]
    assert torch.equal(torch.vmap(roc_auc)(scores, positive), torch.stack(each))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_area_under_the_curve_is_one_half_with_one_class(label: float) -> None:
    assert float(roc_auc(draw(5), torch.full((5,), label))) == 0.5


def test_area_under_the_curve_of_many_examples_fits_in_memory() -> None:
    m = 200_000  # all pairs would take 160 GB
    scores, positive = draw(m).float(), (draw(m, seed=1) > 0).float()
    assert float(roc_auc(scores, positive)) == pytest.approx(0.5, abs=0.01)
    assert float(roc_auc(scores + 100 * positive, positive)) == 1.0
