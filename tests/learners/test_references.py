"""One numeric reference per algorithm, written out by hand in float64 and without the
library's own pieces.
"""

import copy
import math
from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call

from innerloop import (
    CAVIA,
    IMAML,
    MAML,
    CentreLossNet,
    Examples,
    FineTune,
    Gaussian,
    Learner,
    MatchingNet,
    MetaSGD,
    ProtoNet,
    RelationNet,
    Scratch,
    SiameseNet,
    Task,
    TaskSpec,
    TripletNet,
    backprop,
    es,
    implicit,
    reptile,
)
from innerloop.engine.norm_stats import use_batch, use_stored
from innerloop.nets import BatchNorm, Headed, LSTMCell

Array = NDArray[np.float64]
WAYS, FEATURES, HIDDEN = 3, 4, 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def class_tasks(n: int = 3, shots: int = 2, queries: int = 3, seed: int = 0) -> Task:
    parts = []
    for part, per_class in enumerate((shots, queries)):
        labels = torch.arange(WAYS).repeat(per_class)
        y = F.one_hot(labels, WAYS).double().expand(n, -1, -1)
        parts.append(
            Examples(
                normal(n, len(labels), FEATURES, seed=seed + 10 * part)
                + y @ normal(n, WAYS, FEATURES, seed=seed + 99),
                y,
            )
        )
    return Task(*parts)


def linear_tasks(
    n: int = 3, rows: int = 12, features: int = FEATURES, seed: int = 0
) -> Task:
    x, expected = (
        normal(n, 2 * rows, features, seed=seed),
        normal(n, features, 1, seed=seed + 1),
    )
    y = x @ expected + 0.1 * normal(n, 2 * rows, 1, seed=seed + 2)
    return Task(Examples(x[:, :rows], y[:, :rows]), Examples(x[:, rows:], y[:, rows:]))


def first(tasks: Task) -> Task:
    return tasks.unbind()[0]


def two_layers(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Headed(
        nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh()), HIDDEN, WAYS
    ).double()


def linear(inputs: int, outputs: int, seed: int = 0, bias: bool = True) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).double()


def arr(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def close(
    found: Tensor | Array | float,
    expected: Tensor | Array | float,
    tolerance: float = 1e-9,
) -> None:
    left, right = (
        np.asarray(arr(v) if isinstance(v, Tensor) else v, dtype=np.float64)
        for v in (found, expected)
    )
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def forward(w: list[Tensor], x: Tensor) -> Tensor:
    return torch.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3]


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.logsumexp(-1) - (outputs * y).sum(-1)).mean()


def unrolled(
    theta: list[Tensor],
    rates: list[Tensor] | float,
    tasks: Task,
    steps: int,
    *,
    moving: Iterable[int] = range(4),
    detached: bool = False,
    prototypes: bool = False,
    by_step: bool = False,
) -> Tensor:
    moving, losses = list(moving), []
    for xs, ys, xq, yq in zip(*tasks.support, *tasks.query, strict=True):
        weights = list(theta)
        if prototypes:
            z = torch.tanh(xs @ theta[0].T + theta[1])
            c = torch.stack([z[ys[:, k] == 1].mean(0) for k in range(WAYS)])
            weights[2:] = [2 * c, -(c**2).sum(1)]
        for step in range(steps):
            at = [w.clone() for w in weights]
            grads = torch.autograd.grad(
                cross_entropy(forward(at, xs), ys),
                [at[i] for i in moving],
                create_graph=True,
            )
            for i, g in zip(moving, grads, strict=True):
                rate = (
                    rates
                    if isinstance(rates, float)
                    else rates[i][step]
                    if by_step
                    else rates[i]
                )
                weights[i] = weights[i] - rate * (g.detach() if detached else g)
        losses.append(cross_entropy(forward(weights, xq), yq))
    return torch.stack(losses).mean()


def same_meta_gradient(
    learner: Learner, tasks: Task, loss: Tensor, theta: list[Tensor]
) -> None:
    grads, metrics = backprop(learner, tasks)
    close(metrics["loss"], loss)
    expected = torch.autograd.grad(loss, theta, allow_unused=True)
    for name, found, by_hand in zip(grads, grads.values(), expected, strict=True):
        assert (
            (found is None or not found.any()) if by_hand is None else found is not None
        ), name
        if by_hand is not None and found is not None:
            assert float(by_hand.abs().max()) > 1e-6, name
            close(found, by_hand)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_maml_is_the_loop_by_hand(
    n: int, steps: int, detached: bool, adapted: str
) -> None:
    learner = MAML(
        two_layers(), 0.3, inner_steps=steps, first_order=detached, adapted=adapted
    )
    theta, tasks = list(learner.net.parameters()), class_tasks(n)
    moving = range(4) if adapted == "all" else (2, 3)
    same_meta_gradient(
        learner,
        tasks,
        unrolled(theta, 0.3, tasks, steps, moving=moving, detached=detached),
        theta,
    )


def test_first_order_differs_from_second_order() -> None:
    second, first_order = (
        backprop(MAML(two_layers(), 0.3, first_order=f), class_tasks())[0][
            "net.encoder.0.weight"
        ]
        for f in (False, True)
    )
    assert second is not None
    assert first_order is not None
    assert not torch.allclose(second, first_order, rtol=1e-2)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_maml_is_the_closed_form_on_quadratics(steps: int, first_order: bool) -> None:
    rate, tasks = 0.1, linear_tasks(2)
    learner = MAML(
        linear(FEATURES, 1, bias=False),
        rate,
        inner_steps=steps,
        first_order=first_order,
        likelihood=Gaussian(),
    )
    w, expected = arr(learner.net.weight)[0], np.zeros(FEATURES)
    for task in tasks.unbind():
        xs, ys, xq, yq = (arr(t) for part in task for t in part)
        path = np.linalg.matrix_power(
            np.eye(FEATURES) - rate * 2 / len(xs) * xs.T @ xs, steps
        )
        best = np.linalg.solve(xs.T @ xs, xs.T @ ys[:, 0])
        adapted = best + path @ (w - best)
        slope = 2 / len(xq) * xq.T @ (xq @ adapted - yq[:, 0])
        expected += (slope if first_order else path @ slope) / 2
    found = backprop(learner, tasks)[0]["net.weight"]
    assert found is not None
    close(found[0], expected)


def test_loss_before_adds_the_loss_of_the_start() -> None:
    tasks = class_tasks()
    learner = MAML(two_layers(), 0.3, loss_before=0.5)
    theta = list(learner.net.parameters())
    same_meta_gradient(
        learner,
        tasks,
        unrolled(theta, 0.3, tasks, 1) + 0.5 * unrolled(theta, 0.3, tasks, 0),
        theta,
    )


def test_proto_maml_starts_as_a_prototypical_network() -> None:
    task = first(class_tasks())
    learner = MAML(two_layers(), 0.3, head="prototype")
    start = next(iter(learner.trajectory(task.support, 0)))
    z, zq = (
        np.tanh(affine(learner.net.encoder[0], x))
        for x in (task.support.x, task.query.x)
    )
    c = np.stack([z[arr(task.support.y)[:, k] == 1].mean(0) for k in range(WAYS)])
    offset = arr(learner.predict(start, task.query.x)) + ((zq[:, None] - c) ** 2).sum(
        -1
    )
    close(offset, np.repeat((zq**2).sum(-1)[:, None], WAYS, 1))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_proto_maml_is_the_loop_by_hand(n: int, adapted: str) -> None:
    learner = MAML(two_layers(), 0.3, inner_steps=2, head="prototype", adapted=adapted)
    theta, tasks = list(learner.net.parameters()), class_tasks(n)
    moving = range(4) if adapted == "all" else (2, 3)
    same_meta_gradient(
        learner,
        tasks,
        unrolled(theta, 0.3, tasks, 2, moving=moving, prototypes=True),
        theta,
    )


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_sgd_is_the_loop_by_hand(n: int, steps: int) -> None:
    learner, tasks = MetaSGD(two_layers(), 0.2, inner_steps=steps), class_tasks(n)
    for i, rate in enumerate(learner.alpha.values()):
        rate.data += 0.05 * normal(*rate.shape, seed=i)
    weights = {
        name: p for name, p in learner.named_parameters() if name.startswith("net.")
    }
    rates = [
        dict(learner.alpha.items())[name.removeprefix("net.").replace(".", "/")]
        for name in weights
    ]
    same_meta_gradient(
        learner,
        tasks,
        unrolled(list(weights.values()), list(rates), tasks, steps),
        list(learner.parameters()),
    )
    close(
        MetaSGD(two_layers(), 0.2).loss(first(tasks))[0],
        MAML(two_layers(), 0.2).loss(first(tasks))[0],
    )


def test_rates_of_every_tensor_and_step_are_the_loop_by_hand() -> None:
    learner, tasks = (
        MetaSGD(two_layers(), 0.2, inner_steps=3, rates="tensor"),
        class_tasks(),
    )
    for i, rate in enumerate(learner.alpha.values()):
        rate.data += 0.05 * normal(*rate.shape, seed=i)
    names = [name for name, _ in learner.net.named_parameters()]
    rates = [learner.alpha[name.replace(".", "/")] for name in names]
    theta = list(learner.net.parameters())
    loss = unrolled(theta, rates, tasks, 3, by_step=True)
    same_meta_gradient(learner, tasks, loss, list(learner.parameters()))
    *_, third, fourth = learner.trajectory(first(tasks).support, 4)
    gradient = learner.gradient(third, first(tasks).support)
    # a step beyond the last takes its rate
    for name, rate in zip(names, rates, strict=True):
        close(fourth[name], third[name] - rate[2] * gradient[name])


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.35, 0.7])
def test_maml_weighs_its_steps_and_the_second_order_by_progress(
    progress: float,
) -> None:
    learner, tasks = (
        MAML(two_layers(), 0.2, inner_steps=3, multi_step=0.5, second_order_after=0.3),
        class_tasks(),
    )
    learner.on_progress(progress)
    theta, detached = list(learner.net.parameters()), progress < 0.3
    after = [
        unrolled(theta, 0.2, tasks, steps, detached=detached) for steps in (1, 2, 3)
    ]
    alike = max(0.0, 1 - progress / 0.5)
    same_meta_gradient(
        learner, tasks, alike * sum(after) / 3 + (1 - alike) * after[2], theta
    )  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("steps", "before"), [(0, 0.0), (0, 0.5), (2, 0.5)])
def test_the_steps_of_multi_step_can_be_none_and_loss_before_is_added(
    steps: int, before: float
) -> None:
    net, tasks = two_layers(), class_tasks()
    learner = MAML(net, 0.2, inner_steps=steps, multi_step=0.5, loss_before=before)
    learner.on_progress(0.0)
    theta: list[Tensor] = list(net.parameters())
    start, *after = [unrolled(theta, 0.2, tasks, n) for n in range(steps + 1)]
    objective = sum(after) / steps if steps else start
    same_meta_gradient(learner, tasks, objective + before * start, theta)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("detached", [False, True])
def test_cavia_is_the_loop_by_hand(detached: bool) -> None:
    torch.manual_seed(0)
    spec = TaskSpec("classes", (FEATURES,), WAYS)
    learner, tasks = (
        CAVIA.build(
            spec, contexts=2, width=6, inner_lr=0.7, first_order=detached
        ).double(),
        class_tasks(),
    )
    theta = [
        p
        for layer in (0, 2, 4)
        for p in (learner.net.mixed[layer].weight, learner.net.mixed[layer].bias)
    ]  # pyright: ignore
    losses = []
    for xs, ys, xq, yq in zip(*tasks.support, *tasks.query, strict=True):

        def outputs(x: Tensor, context: Tensor) -> Tensor:
            h = torch.relu(
                torch.cat([x, context.expand(len(x), 2)], 1) @ theta[0].T + theta[1]
            )
            return torch.relu(h @ theta[2].T + theta[3]) @ theta[4].T + theta[5]

        context = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        for _ in range(2):
            (g,) = torch.autograd.grad(
                cross_entropy(outputs(xs, context), ys), [context], create_graph=True
            )
            context = context - 0.7 * (g.detach() if detached else g)
        losses.append(cross_entropy(outputs(xq, context), yq))
    same_meta_gradient(learner, tasks, torch.stack(losses).mean(), theta)


def test_cavia_needs_a_context() -> None:
    with pytest.raises(ValueError, match="this net has none"):
        CAVIA(two_layers())


def imaml(proximal: float = 2.0) -> IMAML:
    return IMAML(
        linear(FEATURES, 1, bias=False),
        0.15,
        proximal,
        inner_steps=300,
        likelihood=Gaussian(),
    )


def test_imaml_adapts_to_the_regularized_minimum() -> None:
    learner, task = imaml(), first(linear_tasks())
    xs, ys, theta = arr(task.support.x), arr(task.support.y), arr(learner.net.weight)[0]
    hessian = 2 / len(xs) * xs.T @ xs
    close(
        learner.adapt(task.support)["weight"][0],
        np.linalg.solve(
            hessian + 2 * np.eye(FEATURES), 2 / len(xs) * xs.T @ ys[:, 0] + 2 * theta
        ),
    )


@pytest.mark.parametrize(("proximal", "damping"), [(0.5, 0.0), (2.0, 0.0), (2.0, 3.0)])
@pytest.mark.parametrize("n", [1, 3])
def test_implicit_solves_the_linear_system(
    n: int, proximal: float, damping: float
) -> None:
    learner, tasks, expected = (
        imaml(proximal),
        linear_tasks(n),
        torch.zeros(FEATURES, dtype=torch.float64),
    )
    for task in tasks.unbind():
        (xs, ys), (xq, yq) = task
        hessian = 2 / len(xs) * xs.T @ xs
        best = torch.linalg.solve(
            hessian + proximal * torch.eye(FEATURES),
            2 / len(xs) * xs.T @ ys[:, 0] + proximal * learner.net.weight[0].detach(),
        )
        slope = 2 / len(xq) * xq.T @ (xq @ best - yq[:, 0])
        expected += (
            torch.linalg.solve(
                torch.eye(FEATURES) + hessian / (proximal + damping), slope
            )
            / n
        )
    grads, _ = implicit(learner, tasks, cg_steps=12, damping=damping)
    found = grads["net.weight"]
    assert found is not None
    close(found[0], expected, 1e-7)


def test_implicit_is_the_gradient_through_a_long_unroll() -> None:
    learner, tasks = imaml(), linear_tasks()
    theta, losses = learner.net.weight.detach().clone().requires_grad_(), []
    for (xs, ys), (xq, yq) in tasks.unbind():
        w = theta
        for _ in range(200):
            slope = 2 / len(xs) * (w @ xs.T - ys.T) @ xs
            w = w - 0.15 * (slope + 2 * (w - theta))
        losses.append((w @ xq.T - yq.T).square().mean())
    loss = torch.stack(losses).mean()
    grads, metrics = implicit(learner, tasks, cg_steps=12)
    found = grads["net.weight"]
    assert found is not None
    close(found, torch.autograd.grad(loss, theta)[0], 1e-7)
    close(metrics["loss"], loss, 1e-7)


@pytest.mark.parametrize(("n", "parts"), [(1, 1), (3, 1), (3, 2)])
def test_reptile_is_the_mean_displacement(n: int, parts: int) -> None:
    learner, tasks = MAML(two_layers(), 0.3, inner_steps=3), class_tasks(n)
    expected = [torch.zeros_like(p) for p in learner.net.parameters()]
    for task in tasks.unbind():
        x, y = (
            torch.cat([task.support.x, task.query.x]),
            torch.cat([task.support.y, task.query.y]),
        )
        order = y.argmax(-1).argsort(stable=True)
        weights = [p.detach().clone() for p in learner.net.parameters()]
        for step in range(3):
            at = [w.clone().requires_grad_() for w in weights]
            part = order[step % parts :: parts]
            loss = cross_entropy(forward(at, x[part]), y[part])
            weights = [
                w - 0.3 * g
                for w, g in zip(
                    weights,
                    torch.autograd.grad(loss, at),
                    strict=True,
                )
            ]
        expected = [
            total + (p.detach() - w) / n
            for total, p, w in zip(
                expected, learner.net.parameters(), weights, strict=True
            )
        ]
    grads, _ = reptile(learner, tasks, parts=parts)
    assert list(grads) == [f"net.{name}" for name, _ in learner.net.named_parameters()]
    for found, by_hand in zip(grads.values(), expected, strict=True):
        assert found is not None
        close(found, by_hand)


class Quadratic(Learner):
    """A loss that is |w - 1|^2 times `factor`, raised to `power`; for tests."""

    factor: float = 1.0
    power: int = 1

    def __post_init__(self) -> None:
        self.w = nn.Parameter(torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64))
        super().__post_init__()

    def adapt(self, support: Examples) -> Tensor:
        return self.w

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ state[:, None]

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        return self.factor * (self.w - 1).square().sum() ** self.power, {}


def es_gradient(learner: Learner, pairs: int = 400, ranked: bool = False) -> Tensor:
    found = es(
        learner,
        linear_tasks(1),
        sigma=0.1,
        pairs=pairs,
        ranked=ranked,
        generator=seeded(5),
    )[0]["w"]
    assert found is not None
    return found


def test_es_is_the_gradient_of_a_quadratic_within_its_error() -> None:
    learner = Quadratic()
    slope = 2 * (learner.w.detach() - 1)
    error = ((slope.square().sum() + slope.square()) / 400).sqrt()
    assert bool(((es_gradient(learner) - slope).abs() < 4 * error).all())


def test_es_is_the_mean_of_slopes_along_its_noise() -> None:
    learner, generator = Quadratic(), seeded(5)
    slope = 2 * (learner.w.detach() - 1)
    noise = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    close(es_gradient(learner, 7), ((noise @ slope)[:, None] * noise).mean(0))


def test_ranked_es_sees_the_order_of_losses_alone() -> None:
    plain, ranked = es_gradient(Quadratic()), es_gradient(Quadratic(), ranked=True)
    close(es_gradient(Quadratic(1000.0)), 1000 * plain)
    close(es_gradient(Quadratic(1000.0), ranked=True), ranked)
    close(es_gradient(Quadratic(power=3), ranked=True), ranked)
    assert float(F.cosine_similarity(plain, ranked, dim=0)) > 0.95


def affine(layer: nn.Module, x: Tensor) -> Array:
    return arr(x) @ arr(layer.weight).T + arr(layer.bias)


def distances(a: Array, b: Array, metric: str) -> Array:
    if metric == "cosine":
        return 1 - a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(
            b, axis=1
        )
    return (np.abs(a[:, None] - b) ** (2 if metric == "euclidean" else 1.5)).sum(-1)


def log_softmax(scores: Array) -> Array:
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "p-norm"])
def test_protonet_is_numpy(metric: str) -> None:
    task = first(class_tasks(shots=3))
    uneven = Task(Examples(task.support.x[:-2], task.support.y[:-2]), task.query)
    learner = ProtoNet(
        linear(FEATURES, HIDDEN), metric=metric, p=1.5, scale=0.7
    ).double()
    z, y, zq = (
        affine(learner.encoder, uneven.support.x),
        arr(uneven.support.y),
        affine(learner.encoder, uneven.query.x),
    )
    prototypes = np.stack([z[y[:, k] == 1].mean(0) for k in range(WAYS)])
    scores = -0.7 * distances(zq, prototypes, metric)
    close(learner.predict(learner.adapt(uneven.support), uneven.query.x), scores, 1e-6)
    learner.rotate_support = False
    close(
        learner.loss(uneven)[0],
        -(log_softmax(scores) * arr(uneven.query.y)).sum(-1).mean(),
        1e-6,
    )


def test_median_prototypes_minimize_the_summed_distance() -> None:
    task = first(class_tasks(shots=5))
    support = Examples(task.support.x[:-2], task.support.y[:-2])
    learner = ProtoNet(linear(FEATURES, HIDDEN), center="median").double()
    z, y = affine(learner.encoder, support.x), arr(support.y)
    expected = []
    for k in range(WAYS):
        own = z[y[:, k] == 1]
        summed = partial(lambda own, c: np.linalg.norm(own - c, axis=1).sum(), own)
        expected.append(minimize(summed, own.mean(0)).x)
    close(learner.adapt(support), np.stack(expected), 1e-2)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "p-norm"])
def test_weighted_prototypes_trust_a_label_as_far_as_medians_predict_it(
    metric: str,
) -> None:
    task = first(class_tasks(shots=5))
    y = task.support.y[:-1].clone()
    y[0] = y[0].roll(1)  # a wrong label
    support = Examples(task.support.x[:-1], y)
    body = linear(FEATURES, HIDDEN)
    options = {"metric": metric, "p": 1.5, "scale": 0.7}
    z, labels = affine(body, support.x), arr(y).argmax(1)
    medians = arr(ProtoNet(body, **options, center="median").double().adapt(support))
    p = np.exp(log_softmax(-0.7 * distances(z, medians, metric)))
    weights = p[np.arange(len(z)), labels]
    expected = [
        np.average(z[labels == k], 0, weights[labels == k]) for k in range(WAYS)
    ]
    found = ProtoNet(body, **options, center="weighted").double().adapt(support)
    close(found, np.stack(expected), 1e-6)
    assert weights[0] == weights.min()


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "p-norm"])
@pytest.mark.parametrize(("shots", "queries"), [(1, 4), (2, 5)])
def test_protonet_learns_from_every_rotation_of_the_support_set(
    metric: str, shots: int, queries: int
) -> None:
    learner = ProtoNet(
        linear(FEATURES, HIDDEN), metric=metric, p=1.5, scale=0.7
    ).double()
    # uneven: one query alone of the last class, so that it runs out
    for uneven, far in ((False, 1), (True, 1), (True, 300)):
        task = first(class_tasks(shots=shots, queries=queries))
        keep = torch.tensor(
            [
                not uneven or i < WAYS or i % WAYS < WAYS - 1
                for i in range(len(task.query.y))
            ]
        )
        task = Task(
            Examples(far * task.support.x, task.support.y),
            Examples(far * task.query.x[keep], task.query.y[keep]),
        )
        z = np.concatenate([affine(learner.encoder, part.x) for part in task])
        labels = np.concatenate([arr(part.y).argmax(1) for part in task])
        rank = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
        losses = []
        for turn in range(len(labels) // (shots * WAYS)):
            support = rank // shots == turn
            left = [k for k in range(WAYS) if (support & (labels == k)).any()]
            prototypes = np.stack([z[support & (labels == k)].mean(0) for k in left])
            in_query = ~support & np.isin(labels, left)
            scores = -0.7 * distances(z[in_query], prototypes, metric)
            scores = log_softmax(scores - scores.max(-1, keepdims=True))
            losses += [
                -row[left.index(label)]
                for row, label in zip(scores, labels[in_query], strict=True)
            ]
        close(learner.loss(task)[0], np.mean(losses), 1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "p-norm"])
@pytest.mark.parametrize("views", [2, 4, 8])
def test_protonet_averages_the_distances_of_its_views(metric: str, views: int) -> None:
    images = normal(7, 1, 4, 4)
    y = torch.eye(3).double()[[0, 0, 1, 2]]
    learner = ProtoNet(
        nn.Sequential(nn.Flatten(), linear(16, HIDDEN)),
        metric=metric,
        p=1.5,
        scale=0.7,
        views=views,
    ).double()
    turned = [np.rot90(arr(images), k, (2, 3)) for k in range(4 if views > 2 else 1)]
    turned += [np.flip(view, 3) for view in turned] if views != 4 else []
    apart = []
    for view in turned:
        z = affine(learner.encoder[1], torch.from_numpy(view.copy()).flatten(1))
        apart.append(distances(z[4:], np.stack([z[:2].mean(0), z[2], z[3]]), metric))
    close(
        learner.predict(learner.adapt(Examples(images[:4], y)), images[4:]),
        -0.7 * np.mean(apart, 0),
        1e-6,
    )
    with pytest.raises(
        ValueError, match="views of ProtoNet must be one of 1, 2, 4, 8; got 3"
    ):
        ProtoNet(nn.Flatten(), views=3)


@pytest.mark.parametrize("reals", [False, True])
def test_matching_net_is_attention_in_numpy(reals: bool) -> None:
    task = first(linear_tasks() if reals else class_tasks())
    learner = MatchingNet(
        linear(FEATURES, HIDDEN),
        HIDDEN,
        scale=3.0,
        **({"likelihood": Gaussian()} if reals else {}),
    ).double()
    similarity = 1 - distances(
        affine(learner.encoder, task.query.x),
        affine(learner.encoder, task.support.x),
        "cosine",
    )
    answers = np.exp(log_softmax(3.0 * similarity)) @ arr(task.support.y)
    close(
        learner.predict(learner.adapt(task.support), task.query.x),
        answers if reals else np.log(answers + 1e-6),
        1e-6,
    )


def torch_cell(cell: LSTMCell, inputs: int) -> nn.LSTMCell:
    twin = nn.LSTMCell(inputs, cell.hidden).double()
    with torch.no_grad():
        twin.weight_ih.copy_(cell.gates.weight[:, :inputs])
        twin.weight_hh.copy_(cell.gates.weight[:, inputs:])
        twin.bias_ih.copy_(cell.gates.bias)
        twin.bias_ih[cell.hidden : 2 * cell.hidden] += 1
        twin.bias_hh.zero_()
    return twin


def test_contextual_matching_net_is_a_loop_over_torch_cells() -> None:
    torch.manual_seed(1)
    task = first(class_tasks())
    learner = MatchingNet(
        linear(FEATURES, HIDDEN), HIDDEN, contextual=True, reads=3, scale=3.0
    ).double()
    z, zq = (
        F.linear(x, learner.encoder.weight, learner.encoder.bias)
        for x in (task.support.x, task.query.x)
    )
    zero = torch.zeros(1, HIDDEN, dtype=torch.float64)
    g = [row[None] for row in z]
    for cell, order in (
        (learner.forwards, range(len(z))),
        (learner.backwards, range(len(z) - 1, -1, -1)),
    ):
        twin, h, c = torch_cell(cell, HIDDEN), zero, zero
        for i in order:
            h, c = twin(z[i][None], (h, c))
            g[i] = g[i] + h
    context, twin, answers = torch.cat(g), torch_cell(learner.attending, 2 * HIDDEN), []
    for query in zq:
        h, c, read = zero, zero, zero
        for _ in range(3):
            h, c = twin(torch.cat([query[None], read], 1), (h, c))
            h = h + query
            weights = (context * h).sum(1).exp()
            read = (weights / weights.sum())[None] @ context
        similarity = 1 - distances(arr(h), arr(context), "cosine")
        answers.append(
            np.log(np.exp(log_softmax(3.0 * similarity)) @ arr(task.support.y) + 1e-6)[
                0
            ]
        )
    close(
        learner.predict(learner.adapt(task.support), task.query.x),
        np.stack(answers),
        1e-6,
    )


def test_relation_net_scores_pairs_and_squares_their_errors() -> None:
    task = first(class_tasks())
    learner = RelationNet(
        linear(FEATURES, HIDDEN),
        nn.Sequential(linear(2 * HIDDEN, 6, 1), nn.ReLU(), linear(6, 1, 2)),
    )
    outputs = learner.predict(learner.adapt(task.support), task.query.x)
    z, zq = learner.encoder(task.support.x), learner.encoder(task.query.x)
    for i, query in enumerate(zq):
        for k in range(WAYS):
            close(
                outputs[i, k],
                learner.relation(
                    torch.cat([z[task.support.y[:, k] == 1].mean(0), query])[None]
                )[0, 0],
            )
    close(
        learner.loss(task)[0],
        ((1 / (1 + np.exp(-arr(outputs))) - arr(task.query.y)) ** 2).sum(1).mean(),
    )


def embedded(learner: Learner, task: Task) -> tuple[Array, NDArray[np.int64]]:
    x, y = (torch.cat(pair) for pair in zip(*task, strict=True))
    return affine(learner.encoder, x), arr(y).argmax(1)


def test_siamese_loss_is_a_loop_over_pairs() -> None:
    task = first(class_tasks())
    learner = SiameseNet(linear(FEATURES, HIDDEN), margin=2.0)
    z, labels = embedded(learner, task)
    pull, push = [], []
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            d = math.sqrt(((z[i] - z[j]) ** 2).sum())
            if labels[i] == labels[j]:
                pull.append(d**2 / 2)
            else:
                push.append(max(0.0, 2.0 - d) ** 2 / 2)
    assert 0 < np.count_nonzero(push) < len(push)
    close(learner.loss(task)[0], np.mean(pull) + np.mean(push), 1e-6)


def test_siamese_answers_with_the_nearest_example() -> None:
    task = first(class_tasks())
    learner = SiameseNet(linear(FEATURES, HIDDEN))
    z, labels = embedded(learner, task)
    cut = len(task.support.x)
    away = distances(z[cut:], z[:cut], "euclidean")
    expected = np.stack([-away[:, labels[:cut] == k].min(1) for k in range(WAYS)], 1)
    close(learner.predict(learner.adapt(task.support), task.query.x), expected)


def test_triplet_loss_is_a_loop_over_semi_hard_triplets() -> None:
    task = first(class_tasks(queries=5))
    learner = TripletNet(linear(FEATURES, HIDDEN), margin=0.4)
    z, labels = embedded(learner, task)
    z = z / np.linalg.norm(z, axis=1)[:, None]
    losses, fallbacks = [], 0
    for a in range(len(z)):
        for p in range(len(z)):
            if a == p or labels[a] != labels[p]:
                continue
            positive = ((z[a] - z[p]) ** 2).sum()
            negatives = [
                ((z[a] - z[n]) ** 2).sum()
                for n in range(len(z))
                if labels[n] != labels[a]
            ]
            farther = [d for d in negatives if d > positive]
            fallbacks += not farther
            losses.append(
                max(0.0, positive - (min(farther) if farther else max(negatives)) + 0.4)
            )
    assert 0 < fallbacks < len(losses)
    assert np.count_nonzero(losses) > 0
    close(learner.loss(task)[0], np.mean(losses))


def test_center_loss_is_numpy() -> None:
    task = first(class_tasks())
    learner = CentreLossNet(
        linear(FEATURES, HIDDEN), linear(HIDDEN, WAYS, 1), strength=0.3
    ).double()
    learner.centers.data = normal(WAYS, HIDDEN, seed=3)
    z, y = affine(learner.encoder, task.query.x), arr(task.query.y)
    scores = affine(learner.base, torch.as_tensor(z))
    center = ((z - arr(learner.centers)[y.argmax(1)]) ** 2).sum(1) / 2
    close(
        learner.loss(task)[0], (-(log_softmax(scores) * y).sum(1) + 0.3 * center).mean()
    )


def test_finetune_is_softmax_regression_in_numpy() -> None:
    task = first(class_tasks())
    learner = FineTune(
        linear(FEATURES, HIDDEN), linear(HIDDEN, 7, 1), inner_lr=0.2, inner_steps=20
    )
    z, zq, y = (
        affine(learner.encoder, task.support.x),
        affine(learner.encoder, task.query.x),
        arr(task.support.y),
    )
    w, b = np.zeros((WAYS, HIDDEN)), np.zeros(WAYS)
    for _ in range(20):
        error = (np.exp(log_softmax(z @ w.T + b)) - y) / len(z)
        w, b = w - 0.2 * error.T @ z, b - 0.2 * error.sum(0)
    close(learner.predict(learner.adapt(task.support), task.query.x), zq @ w.T + b)


def test_finetune_with_cosine_head_is_a_torch_loop() -> None:
    task = first(class_tasks())
    learner = FineTune(
        linear(FEATURES, HIDDEN),
        linear(HIDDEN, 7, 1),
        head="cosine",
        inner_lr=0.2,
        inner_steps=20,
    )
    z, zq, labels = (
        learner.encoder(task.support.x).detach(),
        learner.encoder(task.query.x),
        task.support.y.argmax(1),
    )
    w = torch.stack([z[labels == k].mean(0) for k in range(WAYS)]).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.2)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(
            10 * F.cosine_similarity(z[:, None], w, dim=-1), labels
        ).backward()
        optimizer.step()
    close(
        learner.predict(learner.adapt(task.support), task.query.x),
        10 * F.cosine_similarity(zq[:, None], w, dim=-1),
    )


def test_finetune_trains_on_the_base_classes() -> None:
    task = first(class_tasks())
    learner = FineTune(linear(FEATURES, HIDDEN), linear(HIDDEN, WAYS, 1))
    close(
        learner.loss(task)[0],
        F.cross_entropy(
            learner.base(learner.encoder(task.query.x)), task.query.y.argmax(1)
        ),
    )


def test_scratch_is_plain_sgd() -> None:
    task = first(class_tasks())
    net = two_layers()
    copied = copy.deepcopy(net)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(copied(task.support.x), task.support.y.argmax(1)).backward()
        optimizer.step()
    learner = Scratch(net, 0.1, inner_steps=30)
    close(
        learner.predict(learner.adapt(task.support), task.query.x), copied(task.query.x)
    )


def norms(features: int = 3) -> tuple[BatchNorm, nn.BatchNorm2d]:
    ours, torchs = BatchNorm(features).double(), nn.BatchNorm2d(features).double()
    with torch.no_grad():
        for p, q in zip(ours.parameters(), torchs.parameters(), strict=True):
            p.copy_(normal(features, seed=7))
            q.copy_(p)
        ours.mean.copy_(normal(features, seed=8))
        ours.var.copy_(normal(features, seed=9).exp())
        torchs.running_mean.copy_(ours.mean)
        torchs.running_var.copy_(ours.var)
    return ours, torchs


def test_batch_norm_in_training_is_torchs() -> None:
    (ours, torchs), x = norms(), 2 + 3 * normal(6, 3, 4, 5)
    expected = torchs.train()(x)
    close(ours.train()(x), expected)
    with use_batch(ours.eval()):
        close(ours(x), expected)
    close(torch.vmap(ours.train())(x[None]), expected[None])


def test_batch_norm_in_evaluation_is_torchs() -> None:
    (ours, torchs), x = norms(), 2 + 3 * normal(6, 3, 4, 5)
    expected = torchs.eval()(x)
    close(ours.eval()(x), expected)
    with use_stored():
        close(ours.train()(x), expected)


def test_batch_norm_has_right_second_derivatives_under_vmap() -> None:
    torch.manual_seed(0)
    net = (
        nn.Sequential(
            nn.Conv2d(1, 2, 3),
            BatchNorm(2),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(8, 2),
        )
        .double()
        .train()
    )
    theta = {
        name: p.detach() + 0.3 * normal(*p.shape, seed=i)
        for i, (name, p) in enumerate(net.named_parameters())
    }
    x, y = normal(3, 10, 1, 4, 4, seed=1), normal(3, 10, 2, seed=2)

    def error(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return (functional_call(net, weights, (x,)) - y).square().mean()

    def adapted(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        grads = torch.func.grad(error)(weights, x[:5], y[:5])
        return error(
            {name: w - 0.5 * grads[name] for name, w in weights.items()}, x[5:], y[5:]
        )

    def mapped(weights: dict[str, Tensor]) -> Tensor:
        return torch.vmap(adapted, (None, 0, 0))(weights, x, y).mean()

    def looped(step: float) -> float:
        moved = {name: w + step * direction[name] for name, w in theta.items()}
        return float(
            torch.stack(
                [adapted(moved, *pair) for pair in zip(x, y, strict=True)]
            ).mean()
        )

    direction = {
        name: normal(*w.shape, seed=20 + i) for i, (name, w) in enumerate(theta.items())
    }
    grads = torch.func.grad(mapped)(theta)
    exact = sum(float((g * direction[name]).sum()) for name, g in grads.items())
    assert exact == pytest.approx((looped(1e-5) - looped(-1e-5)) / 2e-5, rel=1e-6)
