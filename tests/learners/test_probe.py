"""Probe: heads and leave-one-out scores against references, calibration, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from innerloop import Examples, Probe, TaskSpec
from innerloop.learners.closed_form import (
    HEADS,
    Design,
    logistic,
    mahalanobis,
    nearest_mean,
    ridge,
    scores,
)

SIZES = {"dual": 40, "primal": 4}  # features; about 20 examples
COUNTS = ([5, 5, 5], [1, 9, 3], [2, 2, 2, 2])
SUPPORT = pytest.mark.parametrize("counts", COUNTS, ids=str)
FEATURES = pytest.mark.parametrize("d", SIZES.values(), ids=SIZES)


def support_of(counts: list[int], d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit-length features (n, d) and one-hot labels (n, ways), in double precision."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centers = torch.randn(len(counts), d, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    z = F.normalize(centers[labels] + 1.5 * noise, dim=-1)
    return z, F.one_hot(labels, len(counts)).double()


def class_weights(y: Tensor) -> np.ndarray:
    n, ways = y.shape
    return (n / ways / y.sum(0))[y.argmax(-1)].numpy()


def close(a: Tensor, b: np.ndarray | Tensor, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=0, atol=tolerance)


@SUPPORT
@FEATURES
def test_ridge_is_scikit_learns_and_so_is_every_left_out_score(
    counts: list[int], d: int
) -> None:
    z, y = support_of(counts, d)
    weights, fit = class_weights(y), ridge(Design(z, y), 0.7)

    def reference(rows: np.ndarray) -> Ridge:
        model = Ridge(alpha=0.7, fit_intercept=False)
        return model.fit(z.numpy()[rows], y.numpy()[rows], weights[rows])

    every = np.arange(len(y))
    close(fit.head["weight"], reference(every).coef_)
    loop = [reference(np.delete(every, i)).predict(z[i : i + 1])[0] for i in every]
    close(fit.loo, np.stack(loop))


@SUPPORT
@FEATURES
def test_nearest_mean_is_the_cosine_to_the_mean_of_the_others(
    counts: list[int], d: int
) -> None:
    z, y = support_of(counts, d)
    x, labels = z.numpy(), y.argmax(-1).numpy()
    fit = nearest_mean(Design(z, y), 1.0)
    for i in range(len(x)):
        for k in range(len(counts)):
            others = (labels == k) & (np.arange(len(x)) != i)
            if others.any():
                mean = x[others].mean(0)
                expected = x[i] @ mean / np.linalg.norm(mean)
                assert float(fit.loo[i, k]) == pytest.approx(expected, abs=1e-9)


@SUPPORT
@FEATURES
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_logistic_regression_is_scikit_learns(
    counts: list[int], d: int, strength: float
) -> None:
    z, y = support_of(counts, d)
    fit = logistic(Design(z, y), strength)
    model = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10)
    model.fit(z.numpy(), y.argmax(-1).numpy(), class_weights(y))
    p = scores(fit.head, z).softmax(-1)
    close(p, model.predict_proba(z.numpy()), 1e-3)


def test_left_out_scores_of_logistic_regression_are_near_those_of_refitting() -> None:
    """The weights of a class are spread over those of its examples that remain."""
    z, y = support_of([6, 6, 6], 40)
    fit = logistic(Design(z, y), 0.1)
    loop = []
    for i in range(len(y)):
        kept = [j for j in range(len(y)) if j != i]
        model = LogisticRegression(C=10, fit_intercept=False, tol=1e-10)
        weight = class_weights(y[kept]) * len(y) / len(kept)
        model.fit(z[kept].numpy(), y[kept].argmax(-1).numpy(), weight)
        loop.append(model.coef_ @ z[i].numpy())
    loop, own = np.stack(loop), (fit.loo * y).sum(-1).numpy()
    # an example has a lower score for its class if it is left out
    in_sample = (scores(fit.head, z) * y).sum(-1).numpy()
    truth = (loop * y.numpy()).sum(-1)
    assert np.abs(own - truth).mean() < 0.2 * np.abs(in_sample - truth).mean()
    assert np.corrcoef(fit.loo.numpy().ravel(), loop.ravel())[0, 1] > 0.98


@SUPPORT
@FEATURES
def test_mahalanobis_distances_and_left_out_ones_are_those_of_explicit_covariances(
    counts: list[int], d: int
) -> None:
    """The weight of every example in the covariances stays as it was."""
    z, y = support_of(counts, d)
    x, labels, n = z.numpy(), y.argmax(-1).numpy(), len(z)
    fit = mahalanobis(Design(z, y), 0.2)

    def reference(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        x_, l_ = x[rows], labels[rows]
        means = np.stack([x_[l_ == k].mean(0) for k in range(len(counts))])
        scatter = [
            (x_[l_ == k] - means[k]).T @ (x_[l_ == k] - means[k])
            for k in range(len(counts))
        ]
        found = []
        for k, count in enumerate(counts):
            share = count / (count + 1)
            covariance = share * scatter[k] / count + (1 - share) * sum(scatter) / n
            precision = np.linalg.inv(covariance + 0.2 * np.eye(d))
            found.append(-0.5 * (query - means[k]) @ precision @ (query - means[k]))
        return np.stack(found)

    every = np.arange(n)
    close(scores(fit.head, z), np.stack([reference(every, query) for query in x]), 1e-7)
    for i in every:
        if counts[labels[i]] > 1:
            close(fit.loo[i], reference(np.delete(every, i), x[i]), 1e-7)


@pytest.mark.parametrize("head", ["auto", *HEADS])
@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 10, 2]], ids=str)
def test_mapped_is_looped_with_uneven_classes(head: str, counts: list[int]) -> None:
    learner = Probe.build(TaskSpec("classes", (12,), 3), head=head)
    x, y = zip(*(support_of(counts, 12, seed) for seed in range(3)), strict=True)
    support = Examples(torch.stack(x).float(), torch.stack(y).float())
    query = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(1))

    def answers(support: Examples, x: Tensor) -> Tensor:
        return learner.predict(learner.adapt(support), x)

    mapped = torch.vmap(answers)(support, query)
    looped = [answers(Examples(support.x[i], support.y[i]), query[i]) for i in range(3)]
    assert bool(mapped.isfinite().all())
    close(mapped, torch.stack(looped), 1e-4)


def test_many_examples_of_many_classes_are_solved_in_float32_inputs() -> None:
    counts, d = [20] * 30, 64
    x, y = support_of(counts, d)
    learner = Probe.build(TaskSpec("classes", (d,), 30))
    state = learner.adapt(Examples(x.float(), y.float()))
    assert state["weight"].dtype == torch.float32
    assert state["weight"].shape == (30, d)
    assert bool((learner.predict(state, x.float()).argmax(-1) == y.argmax(-1)).all())


def test_features_are_invariant_to_shift_and_scale() -> None:
    x, y = support_of([3, 3, 3], 10)
    learner = Probe.build(TaskSpec("classes", (10,), 3))
    first = learner.predict(learner.adapt(Examples(x, y)), x)
    moved = 5 * x + 3
    close(learner.predict(learner.adapt(Examples(moved, y)), moved), first, 1e-6)


def blobs(
    noise: float, shots: int, seed: int, d: int = 30
) -> tuple[Examples, Examples]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(5, d, generator=generator)
    labels = torch.arange(5).repeat(shots + 20)
    x = centers[labels] + noise * torch.randn(len(labels), d, generator=generator)
    y = F.one_hot(labels, 5).float()
    return Examples(x[: 5 * shots], y[: 5 * shots]), Examples(
        x[5 * shots :], y[5 * shots :]
    )


@pytest.mark.parametrize("noise", [1.0, 2.5, 5.0])
def test_confidence_follows_accuracy_of_easy_and_hard_tasks(noise: float) -> None:
    learner = Probe.build(TaskSpec("classes", (30,), 5))
    confidence, accuracy = [], []
    for seed in range(40):
        support, query = blobs(noise, 10, seed)
        p = learner.predict(learner.adapt(support), query.x).softmax(-1)
        confidence.append(p.amax(-1).mean())
        accuracy.append((p.argmax(-1) == query.y.argmax(-1)).float().mean())
    gap = torch.stack(confidence).mean() - torch.stack(accuracy).mean()
    assert abs(float(gap)) < 0.07


def test_other_queries_help_a_transductive_probe_and_change_no_other() -> None:
    scores_of = {}
    for transductive in (False, True):
        learner = Probe.build(TaskSpec("classes", (30,), 5), transductive=transductive)
        assert learner.transductive is transductive
        correct = []
        for seed in range(30):
            support, query = blobs(1.5, 1, seed)
            outputs = learner.predict(learner.adapt(support), query.x)
            correct.append((outputs.argmax(-1) == query.y.argmax(-1)).float().mean())
        scores_of[transductive] = float(torch.stack(correct).mean())
    assert scores_of[True] > scores_of[False] + 0.03
