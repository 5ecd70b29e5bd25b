"""Closed-form heads against solvers that share no code with them."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from innerloop import (
    DKT,
    LRD2,
    R2D2,
    ALPaCA,
    Examples,
    Gaussian,
    Learner,
    MetaOptNet,
    Task,
    TaskSpec,
)
from innerloop.engine.errors import InnerloopError
from innerloop.engine.solvers import logistic, ridge, support_vectors
from innerloop.testing import Blobs

WAYS = 3
SPEC = TaskSpec("classes", (6,), WAYS)


def built(learner: type[Learner], spec: TaskSpec = SPEC, **fields: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(spec, **fields).double()


def task(spec: TaskSpec = SPEC, shots: int = 2) -> Task:
    support, query = (
        Blobs(spec, shots=shots).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    )
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def problem(n: int, d: int, ways: int = WAYS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (n, d) of classes that overlap, and their one-hot labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.eye(ways, dtype=torch.float64).repeat(n // ways, 1)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64) + y @ torch.randn(
        ways, d, generator=generator, dtype=torch.float64
    )
    return z / d**0.5, y


@pytest.mark.parametrize(("n", "d"), [(6, 10), (12, 4)])
def test_ridge_is_least_squares_with_rows_added(n: int, d: int) -> None:
    z, y = problem(n, d)
    for share in (
        torch.ones(n, dtype=torch.float64),
        torch.linspace(0.5, 2, n, dtype=torch.float64),
    ):
        rows = torch.cat(
            [share.sqrt()[:, None] * z, 0.3**0.5 * torch.eye(d, dtype=torch.float64)]
        )
        targets = torch.cat(
            [share.sqrt()[:, None] * y, torch.zeros(d, WAYS, dtype=torch.float64)]
        )
        expected = np.linalg.lstsq(rows.numpy(), targets.numpy(), rcond=None)[0].T
        np.testing.assert_allclose(
            ridge(z, y, torch.tensor(0.3, dtype=torch.float64), share),
            expected,
            atol=1e-10,
        )


@pytest.mark.parametrize(("n", "d"), [(6, 10), (12, 4)])
def test_logistic_is_scikit_learns(n: int, d: int) -> None:
    z, y = problem(n, d)
    found = logistic(z, y, torch.tensor(0.3, dtype=torch.float64), steps=12)
    for k in range(WAYS):
        model = LogisticRegression(
            C=1 / 0.3, fit_intercept=False, tol=1e-12, max_iter=10_000
        ).fit(z, y[:, k])
        np.testing.assert_allclose(found[k], model.coef_[0], atol=1e-6)


@pytest.mark.parametrize(
    ("n", "ways", "d", "C"),
    [(25, 5, 64, 1.0), (25, 5, 3, 0.1), (60, 20, 16, 1.0), (15, 3, 8, 10.0)],
)
def test_support_vectors_are_those_of_liblinear(
    n: int, ways: int, d: int, C: float
) -> None:
    z, y = problem(n, d, ways)
    found = support_vectors(z @ z.T, y, C, steps=25).T @ z
    model = LinearSVC(
        C=C,
        multi_class="crammer_singer",
        fit_intercept=False,
        tol=1e-10,
        max_iter=1_000_000,
    ).fit(z, y.argmax(1))
    np.testing.assert_allclose(found, model.coef_, atol=1e-6)


def test_the_gradient_through_the_machine_is_that_of_the_solved_problem() -> None:
    z, y = problem(15, 4)
    direction = torch.randn(
        z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def first_weight(z: Tensor) -> Tensor:
        return (support_vectors(z @ z.T, y, 1.0, steps=25).T @ z).square().sum()

    def solved(z: Tensor) -> float:
        model = LinearSVC(
            C=1.0,
            multi_class="crammer_singer",
            fit_intercept=False,
            tol=1e-12,
            max_iter=10_000_000,
        ).fit(z, y.argmax(1))
        return float(np.square(model.coef_).sum())

    slope = (solved(z + 1e-4 * direction) - solved(z - 1e-4 * direction)) / 2e-4
    assert float((torch.func.grad(first_weight)(z) * direction).sum()) == pytest.approx(
        slope, abs=1e-4
    )


@pytest.mark.parametrize("head", ["ridge", "logistic", "machine"])
def test_gradients_are_those_of_a_convex_optimization_layer(head: str) -> None:
    cp = pytest.importorskip("cvxpy", reason="not installed: pip install cvxpylayers")
    layers = pytest.importorskip(
        "cvxpylayers.torch",
        reason="not installed: pip install cvxpylayers",
    )
    z, y = problem(9, 4)
    W, inputs = cp.Variable((WAYS, 4)), cp.Parameter((9, 4))
    scores = inputs @ W.T  # (n, ways)
    if head == "ridge":
        cost = cp.sum_squares(scores - y.numpy()) + 0.3 * cp.sum_squares(W)
    elif head == "logistic":
        cost = (
            cp.sum(cp.logistic(scores))
            - cp.sum(cp.multiply(y.numpy(), scores))
            + 0.15 * cp.sum_squares(W)
        )
    else:
        own = cp.sum(cp.multiply(y.numpy(), scores), axis=1)
        margins = [scores[:, k] - own + 1 - y[:, k].numpy() for k in range(WAYS)]
        cost = 0.5 * cp.sum_squares(W) + cp.sum(cp.max(cp.vstack(margins), axis=0))
    layer = layers.CvxpyLayer(
        cp.Problem(cp.Minimize(cost)), parameters=[inputs], variables=[W]
    )
    ours = {
        "ridge": lambda z: ridge(z, y, torch.tensor(0.3, dtype=torch.float64)),
        "logistic": lambda z: logistic(
            z, y, torch.tensor(0.3, dtype=torch.float64), 15
        ),
        "machine": lambda z: support_vectors(z @ z.T, y, 1.0, 25).T @ z,
    }[head]
    weight = torch.randn(
        WAYS, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    results = []
    for solve in (ours, lambda z: layer(z)[0]):
        at = z.clone().requires_grad_()
        found = solve(at)
        results.append(
            (found.detach(), torch.autograd.grad((found * weight).sum(), at)[0])
        )
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=0)


def features(learner: Learner, x: Tensor) -> Tensor:
    z = learner.encoder(x)  # pyright: ignore[reportCallIssue]
    return torch.cat([z / z.shape[1] ** 0.5, torch.ones(len(z), 1, dtype=z.dtype)], 1)


@pytest.mark.parametrize("learner", [R2D2, LRD2, MetaOptNet])
def test_a_closed_form_head_predicts_by_its_solution(learner: type[Learner]) -> None:
    built_learner, some = built(learner), task()
    z, y = features(built_learner, some.support.x).detach(), some.support.y
    if learner is R2D2:
        a = z.numpy()
        W = np.linalg.solve(a.T @ a + 0.1 * np.eye(a.shape[1]), a.T @ y.numpy()).T
    elif learner is LRD2:
        model = LogisticRegression(
            C=10.0, fit_intercept=False, tol=1e-12, max_iter=10_000
        )
        W = np.stack([model.fit(z, y[:, k]).coef_[0] for k in range(WAYS)])
    else:
        W = (
            LinearSVC(
                C=1.0,
                multi_class="crammer_singer",
                fit_intercept=False,
                tol=1e-10,
                max_iter=1_000_000,
            )
            .fit(z, y.argmax(1))
            .coef_
        )
    expected = (
        built_learner.scale
        * features(built_learner, some.query.x).detach().numpy()
        @ W.T
    )  # pyright: ignore[reportOperatorIssue]
    outputs = built_learner.predict(built_learner.adapt(some.support), some.query.x)
    np.testing.assert_allclose(
        outputs.detach(), expected, atol=2e-3 if learner is LRD2 else 1e-5
    )


def test_deep_kernels_are_scikit_learns_gaussian_process() -> None:
    spec = TaskSpec("reals", (2,), 1)
    learner, some = built(DKT, spec, noise=0.2, bandwidth=0.7), task(spec)
    z, query_z = (learner.embed(part.x).detach() for part in some)  # pyright: ignore[reportCallIssue]
    process = GaussianProcessRegressor(
        ConstantKernel(1.0) * RBF(0.7) + WhiteKernel(0.2 + 1e-5),
        optimizer=None,
        alpha=0,
    )
    mean, scale = process.fit(z, some.support.y[:, 0]).predict(query_z, return_std=True)
    outputs = learner.predict(learner.adapt(some.support), some.query.x).detach()
    likelihood = learner.likelihood
    assert isinstance(likelihood, Gaussian)
    found, spread = likelihood.moments(outputs)
    np.testing.assert_allclose(found[:, 0], mean, atol=1e-8)
    np.testing.assert_allclose(spread[:, 0], scale, atol=1e-4)
    everything = process.fit(
        torch.cat([z, query_z]), torch.cat([part.y for part in some])[:, 0]
    )
    loss = learner.loss(some)[0].detach()
    np.testing.assert_allclose(
        loss,
        -everything.log_marginal_likelihood_value_ / len(everything.X_train_),
        atol=1e-8,
    )


def test_deep_kernels_predict_the_log_odds_of_every_class() -> None:
    learner, some = built(DKT, similarity="linear", noise=0.3), task()
    z, query_z = (learner.embed(part.x).detach() for part in some)  # pyright: ignore[reportCallIssue]
    K = z @ z.T + (0.3 + 1e-5) * torch.eye(len(z))
    k = query_z @ z.T
    mean = k @ torch.linalg.solve(K, 2 * some.support.y - 1)
    variance = query_z.square().sum(1) - (k * torch.linalg.solve(K, k.T).T).sum(1) + 0.3
    normal = torch.distributions.Normal(mean, variance.sqrt()[:, None])
    odds = normal.log_prob(torch.tensor(1.0)) - normal.log_prob(torch.tensor(-1.0))
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x).detach(),
        odds,
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("learner", "fields"),
    [
        (R2D2, {"strength": 0.0}),
        (LRD2, {"strength": -1.0}),
        (MetaOptNet, {"C": 0.0}),
        (DKT, {"noise": 0.0}),
    ],
)
def test_options_without_a_solution_are_refused(
    learner: type[Learner], fields: dict[str, float]
) -> None:
    with pytest.raises(InnerloopError, match="must be greater than 0"):
        learner.build(SPEC, **fields)


def test_alpaca_is_bayesian_linear_regression_around_its_prior() -> None:
    spec = TaskSpec("reals", (3,), 2)
    learner = built(ALPaCA, spec, encoder="mlp")
    assert isinstance(learner, ALPaCA)
    torch.nn.init.normal_(learner.prior)
    torch.nn.init.normal_(learner.log_precision)
    learner.log_noise.data.fill_(-1.0)
    support, query = task(spec, shots=4)
    z, query_z = (learner.embed(x).detach().numpy() for x in (support.x, query.x))
    # as many rows of the prior as of the data: least squares on both
    root = np.diag(learner.log_precision.detach().exp().sqrt().numpy())
    prior = learner.prior.detach().numpy()
    rows = np.concatenate([z, root])
    targets = np.concatenate([support.y.numpy(), root @ prior])
    K, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    outputs = learner.predict(learner.adapt(support), query.x).detach()
    np.testing.assert_allclose(learner.likelihood.mean(outputs), query_z @ K, atol=1e-8)
    # the variance is that of sums over many draws of weights, exactly: noise (1 + z'Cz)
    C = np.linalg.pinv(rows) @ np.linalg.pinv(rows).T
    variance = np.exp(-1.0) * (1 + np.einsum("ij,jk,ik->i", query_z, C, query_z))
    std = learner.likelihood.std(outputs)
    assert std is not None
    np.testing.assert_allclose(std[:, 0], variance**0.5, rtol=1e-6)
