"""Learned update rules against references that share no code with them."""

import copy
import math
import os
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop import (
    L2O,
    Examples,
    LearnedOptimizer,
    MetaLSTM,
    ProtoNet,
    Task,
    TaskSpec,
    meta_test,
    meta_train,
)
from innerloop.nets.learned_update_rules import LSTMRule, MLPRule, STARRule
from innerloop.tasks import mlp_digits, mlp_omniglot, quadratics
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def built(spec: TaskSpec = SPEC, **given: object) -> L2O:
    torch.manual_seed(0)
    learner = L2O.build(spec, **given).double()
    list(learner.change.parameters())[-2].data *= 30  # larger steps
    return learner


def task(spec: TaskSpec = SPEC) -> Task:
    support, query = Blobs(spec).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def test_the_lstm_rule_is_torchs_cell_on_preprocessed_gradients() -> None:
    torch.manual_seed(0)
    rule, cells = (
        LSTMRule(hidden=5).double(),
        [nn.LSTMCell(2, 5).double(), nn.LSTMCell(5, 5).double()],
    )
    for ours, theirs in zip(rule.cells, cells, strict=True):
        into = theirs.weight_ih.shape[1]
        gates = ours.gates  # pyright: ignore[reportAttributeAccessIssue]
        # input, forget, cell, output, as in torch
        order = torch.cat(
            [torch.arange(20)[part * 5 : part * 5 + 5] for part in (0, 1, 2, 3)]
        )
        theirs.weight_ih.data, theirs.weight_hh.data = (
            gates.weight.data[order, :into],
            gates.weight.data[order, into:],
        )
        theirs.bias_ih.data, theirs.bias_hh.data = (
            gates.bias.data[order].clone(),
            torch.zeros(20).double(),
        )
        theirs.bias_ih.data[5:10] += 1  # the forget gate starts open
    gradients = [
        torch.tensor([[0.3, -2.0], [1e-6, 0.0]], dtype=torch.float64),
        torch.tensor([[-0.1, 4.0], [0.7, -1e-5]], dtype=torch.float64),
    ]
    memory, states = rule.start({"w": gradients[0]}), [None, None]
    for g in gradients:
        change, memory = rule({"w": g}, {"w": g * 0}, memory)
        x = torch.stack(
            [
                torch.tensor(
                    [math.log(abs(v)) / 10, math.copysign(1, v)]
                    if abs(v) >= math.exp(-10)
                    else [-1.0, math.exp(10) * v]
                )
                for v in g.flatten()
            ]
        ).double()
        for i, cell in enumerate(cells):
            states[i] = cell(x, states[i])
            x = states[i][0]  # pyright: ignore[reportOptionalSubscript]
        torch.testing.assert_close(
            change["w"].flatten(),
            0.1 * F.linear(x, rule.out.weight, rule.out.bias)[:, 0],
            atol=1e-7,
            rtol=1e-6,
        )


@pytest.mark.parametrize("kind", [MLPRule, STARRule])
def test_the_perceptron_reads_moving_averages_of_the_gradient(
    kind: type[MLPRule],
) -> None:
    torch.manual_seed(0)
    rule = kind(hidden=6).double()
    rng = np.random.default_rng(0)
    w, averages, squares = rng.normal(size=5), np.zeros((3, 5)), np.zeros(5)
    memory = rule.start({"w": torch.tensor(w)})
    layers = [m for m in rule.net if isinstance(m, nn.Linear)]
    for step in (1, 2, 3):
        g = rng.normal(size=5)
        change, memory = rule({"w": torch.tensor(g)}, {"w": torch.tensor(w)}, memory)
        decays = np.array([[0.5], [0.9], [0.99]])
        averages, squares = (
            decays * averages + (1 - decays) * g,
            0.99 * squares + 0.01 * g**2,
        )
        root, size = np.sqrt(squares / (1 - 0.99**step)), np.sqrt((g**2).mean())
        means = averages / (1 - decays**step)
        seen = np.stack(
            [g / size, w, np.log(root) / 7, g / root, *means / root, *means / size],
            -1,
        )
        x = np.concatenate(
            [seen.clip(-10, 10), np.tile(np.tanh([step / 10, step / 100]), (5, 1))], -1
        )
        for i, layer in enumerate(layers):
            x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            x = np.maximum(x, 0) if i < 2 else x
        expected = 0.01 * x[:, 0] * np.exp(x[:, 1])
        if kind is STARRule:
            expected = expected - 0.03 * np.exp(x[:, 2]) * means[1] / root
        np.testing.assert_allclose(change["w"].detach(), expected, rtol=1e-5)
        w = w + change["w"].detach().numpy()


def test_star_is_adam_where_the_perceptron_puts_out_nothing() -> None:
    rule, generator = STARRule().double(), torch.Generator().manual_seed(0)
    for p in rule.net[-1].parameters():
        p.data.zero_()
    w = torch.randn(7, generator=generator, dtype=torch.float64)
    theirs = nn.Parameter(w.clone())
    adam = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99), eps=1e-12)
    memory = rule.start({"w": w})
    for _ in range(5):
        g = torch.randn(7, generator=generator, dtype=torch.float64)
        theirs.grad = g.clone()
        adam.step()
        change, memory = rule({"w": g}, {"w": w}, memory)
        w = w + change["w"].detach()
        torch.testing.assert_close(w, theirs.detach(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("rule", ["lstm", "mlp", "star"])
def test_the_objective_is_the_mean_over_a_training(rule: str) -> None:
    learner, some = built(rule=rule, inner_steps=4, unroll=2), task()
    weights = {name: p.detach().clone() for name, p in learner.net.named_parameters()}
    memory, losses = learner.change.start(weights), []
    for i in range(4):
        if i == 2:
            weights, memory = (
                {n: w.detach() for n, w in weights.items()},
                [m.detach() for m in memory],
            )
        at = {name: w.detach().requires_grad_() for name, w in weights.items()}
        loss = F.cross_entropy(
            torch.func.functional_call(learner.net, at, (some.support.x,)),
            some.support.y,
        )
        grads = dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))
        changes, memory = learner.change(grads, weights, memory)
        weights = {name: w + changes[name] for name, w in weights.items()}
        losses.append(
            F.cross_entropy(
                torch.func.functional_call(learner.net, weights, (some.query.x,)),
                some.query.y,
            )
        )
    expected = torch.stack(losses).mean()
    found = learner.loss(some)[0]
    torch.testing.assert_close(found, expected)
    parameters = list(learner.change.parameters())
    for a, b in zip(
        torch.autograd.grad(found, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert losses[0] != losses[3]


def test_a_minibatch_goes_through_the_support_set_in_order() -> None:
    learner, some = built(minibatch=4), task()  # 6 examples
    seen = [learner.part(some.support, torch.tensor(float(i))).x for i in range(3)]
    x = some.support.x
    assert torch.equal(seen[0], x[:4])
    assert torch.equal(seen[1], x[[4, 5, 0, 1]])
    assert torch.equal(seen[2], x[2:6])


def test_training_starts_from_other_weights_each_time_and_testing_from_the_same() -> (
    None
):
    learner, some = built(), task()
    assert torch.equal(learner.init(some.support)["1.weight"], learner.net[1].weight)  # pyright: ignore[reportIndexIssue]
    learner.train()
    first, second = (learner.init(some.support)["1.weight"] for _ in range(2))
    assert not torch.equal(first, second)
    magnitudes: list[Tensor] = [
        w.detach().abs().flatten().sort().values
        for w in (first, second, learner.net[1].weight)
    ]  # pyright: ignore
    assert all(torch.equal(m, magnitudes[0]) for m in magnitudes)


@pytest.mark.parametrize("rule", ["lstm", "mlp"])
def test_the_optimizer_takes_the_steps_of_the_learner(rule: str) -> None:
    learner, some = built(rule=rule, inner_steps=3), task()
    expected = learner.adapt(some.support)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 20), nn.Sigmoid(), nn.Linear(20, 3)
    ).double()
    module.load_state_dict(learner.net.state_dict())
    optimizer = LearnedOptimizer(module.parameters(), learner)
    for i in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(some.support.x), some.support.y).backward()
        optimizer.step()
        if i == 0:  # stopped and taken up again
            state = optimizer.state_dict()
            optimizer = LearnedOptimizer(module.parameters(), learner)
            optimizer.load_state_dict(state)
    for name, p in module.named_parameters():
        torch.testing.assert_close(p, expected[name])


def test_an_optimizer_needs_a_learned_rule() -> None:
    with pytest.raises(TypeError, match="learned by L2O; got a ProtoNet"):
        LearnedOptimizer([nn.Parameter(torch.zeros(1))], ProtoNet.build(SPEC))  # pyright: ignore[reportArgumentType]


def optimized(
    p: Tensor, gradients: list[Tensor], learner: L2O, **options: Any
) -> Tensor:
    """A parameter after a step with each of the gradients."""
    parameter = nn.Parameter(p.clone())
    optimizer = LearnedOptimizer([parameter], learner, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    assert parameter.dtype == p.dtype
    return parameter.detach()


@pytest.mark.parametrize("rule", ["lstm", "mlp"])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
def test_parameters_of_every_precision(rule: str, dtype: torch.dtype) -> None:
    learner = built(rule=rule).float()
    torch.manual_seed(0)
    p, *gradients = (torch.randn(5, 3).to(dtype) for _ in range(3))
    expected = optimized(p.float(), [g.float() for g in gradients], learner)
    found = optimized(p, gradients, learner)
    assert not torch.equal(found, p)
    tolerance = 1e-6 if dtype.itemsize > 2 else 0.02
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_complex_parameters_are_pairs_of_reals() -> None:
    learner = built().float()
    torch.manual_seed(0)
    p, *gradients = (torch.randn(4, dtype=torch.complex64) for _ in range(3))
    found = optimized(p, gradients, learner)
    expected = optimized(
        torch.view_as_real(p), [torch.view_as_real(g) for g in gradients], learner
    )
    torch.testing.assert_close(torch.view_as_real(found), expected)


def test_sparse_embeddings_move_as_dense_ones() -> None:
    learner, tables = built().float(), []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse)
        optimizer = LearnedOptimizer(table.parameters(), learner)
        for rows in ([0, 2, 2], [1, 2, 5]):
            optimizer.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
        tables.append(table.weight.detach())
    torch.testing.assert_close(*tables)


def test_the_learning_rate_is_a_factor_in_each_group() -> None:
    learner = built()
    torch.manual_seed(0)
    starts = [torch.randn(3, dtype=torch.float64) for _ in range(3)]
    ones, halves, added = (nn.Parameter(p.clone()) for p in starts)
    optimizer = LearnedOptimizer(
        [{"params": [ones]}, {"params": [halves], "lr": 0.5}], learner
    )
    optimizer.add_param_group({"params": [added], "lr": torch.tensor(2.0)})
    for p in (ones, halves, added):
        p.grad = torch.ones_like(p)
    optimizer.step()
    moves = [
        p.detach() - start
        for p, start in zip((ones, halves, added), starts, strict=True)
    ]
    assert bool((moves[0] != 0).all())
    torch.testing.assert_close(moves[1], 0.5 * moves[0])
    torch.testing.assert_close(moves[2], 2 * moves[0])
    assert LearnedOptimizer([ones], learner, lr=0.1).param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("lr", [-1.0, math.inf, math.nan])
def test_bad_learning_rates_are_refused(lr: float) -> None:
    p, learner = nn.Parameter(torch.zeros(2)), built()
    for groups, options in (([p], {"lr": lr}), ([{"params": [p], "lr": lr}], {})):
        with pytest.raises(ValueError, match="lr of LearnedOptimizer must be"):
            LearnedOptimizer(groups, learner, **options)
    optimizer = LearnedOptimizer([nn.Parameter(torch.zeros(2))], learner)
    with pytest.raises(ValueError, match="lr of LearnedOptimizer must be"):
        optimizer.add_param_group({"params": [p], "lr": lr})


def test_a_scheduler_changes_the_learning_rate() -> None:
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = LearnedOptimizer([p], built())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    sizes = []
    for _ in range(2):
        before = p.detach().clone()
        p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
        sizes.append((p.detach() - before).abs().max())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert sizes[1] < 0.5 * sizes[0]


def test_meta_train_can_use_a_learned_optimizer() -> None:
    torch.manual_seed(0)
    student = ProtoNet.build(SPEC)
    before = copy.deepcopy(student.state_dict())
    optimizer = LearnedOptimizer(student.parameters(), built().float())
    schedule: list[float] = []

    def half(step: int, progress: float) -> float:
        schedule.append(optimizer.param_groups[0]["lr"])
        return 0.5

    for _ in meta_train(
        student, Blobs(SPEC), steps=2, batch=2, optimizer=optimizer, schedule=half
    ):
        pass
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert any(not torch.equal(p, before[n]) for n, p in student.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_memory_survives_saving_and_copying(dtype: torch.dtype) -> None:
    learner = built().float()
    torch.manual_seed(0)
    p, *gradients = (torch.randn(4).to(dtype) for _ in range(5))
    expected = optimized(p, gradients, learner)
    parameter = nn.Parameter(p.clone())
    optimizer = LearnedOptimizer([parameter], learner, lr=1.0)
    for i, gradient in enumerate(gradients):
        parameter.grad = gradient.clone()
        optimizer.step()
        state = copy.deepcopy(optimizer.state_dict())
        if i % 2:
            optimizer = LearnedOptimizer([parameter], learner, lr=9.0)
            optimizer.load_state_dict(state)
        else:
            [group] = (twin := copy.deepcopy(optimizer)).param_groups
            [parameter], optimizer = group["params"], twin
    torch.testing.assert_close(parameter.detach(), expected, atol=0, rtol=0)
    assert all(t.dtype == torch.float32 for t in optimizer.state[parameter]["memory"])


def test_a_closure_is_evaluated_with_gradients() -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = LearnedOptimizer([p], built())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert not torch.equal(p.detach(), torch.ones(2, dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(2))  # without a gradient
    LearnedOptimizer([frozen], built()).step()
    assert torch.equal(frozen.detach(), torch.ones(2))


@pytest.mark.parametrize("name", ["inner_steps", "unroll"])
def test_a_training_has_at_least_one_step(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of L2O must be at least 1; got 0"):
        L2O.build(SPEC, **{name: 0})


def test_quadratics_are_sums_of_squares() -> None:
    some = quadratics("test").sample(2, torch.Generator().manual_seed(0))
    w = torch.randn(10, generator=torch.Generator().manual_seed(1))
    W, b = some.support.x / 10**0.5, some.support.y[..., 0] / 10**0.5
    torch.testing.assert_close(
        (some.support.x @ w - some.support.y[..., 0]).square().mean(-1),
        (W @ w - b).square().sum(-1),
    )
    assert W.std() == pytest.approx(1, abs=0.15)


def test_sizes_of_the_splits_of_digits() -> None:
    parts = [mlp_digits(part) for part in ("train", "val", "test")]
    assert [len(part.y) for part in parts] == [1000, 400, 397]
    some = parts[0].sample(2, torch.Generator().manual_seed(0))
    assert some.support.x.shape == (2, 256, 64)
    assert some.query.y.shape == (2, 64, 10)
    with pytest.raises(ValueError, match="at most 397"):
        mlp_digits("test", shots=390, queries=10)


@pytest.mark.skipif(
    "INNERLOOP_DATA" not in os.environ,
    reason="INNERLOOP_DATA is not set: Omniglot is not there",
)
def test_small_omniglot_is_small() -> None:
    assert mlp_omniglot("test").spec.x_shape == (1, 14, 14)


def test_a_rule_learns_to_lower_quadratics() -> None:
    torch.manual_seed(0)
    tasks = quadratics("train")
    learner = L2O.build(tasks.spec, inner_steps=20)
    before = meta_test(learner, quadratics("test"), n=20).metrics["mse"].mean
    optimizer = torch.optim.Adam(
        [p for p in learner.parameters() if p.requires_grad], lr=1e-2
    )
    for _ in meta_train(
        learner, tasks, steps=60, batch=16, optimizer=optimizer, clip=1.0
    ):
        pass
    assert (
        meta_test(learner, quadratics("test"), n=20).metrics["mse"].mean < 0.5 * before
    )


@pytest.mark.parametrize("first_order", [True, False])
def test_meta_lstm_is_a_cell_whose_state_is_the_weights(first_order: bool) -> None:
    torch.manual_seed(0)
    learner, some = (
        MetaLSTM.build(
            SPEC, hidden=3, inner_steps=2, net="flatten", first_order=first_order
        ).double(),
        task(),
    )
    W, b = (
        learner.net.head.weight.detach().numpy(),
        learner.net.head.bias.detach().numpy(),
    )  # pyright: ignore
    weights = np.concatenate([W.flatten(), b])
    h, c, i, f = np.zeros((15, 3)), np.zeros((15, 3)), np.zeros(15), np.ones(15)
    x, y = some.support.x.numpy(), some.support.y.numpy()

    def linear(layer: nn.Module, a: np.ndarray) -> np.ndarray:
        return a @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()  # pyright: ignore

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    def preprocess(v: np.ndarray) -> np.ndarray:
        big = np.abs(v) >= np.exp(-10)
        return np.stack(
            [
                np.where(big, np.log(np.abs(np.where(big, v, 1))) / 10, -1),
                np.where(big, np.sign(v), np.exp(10) * v),
            ],
            -1,
        )

    for _ in range(2):
        logits = x @ weights[:12].reshape(3, 4).T + weights[12:]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log((p * y).sum(1)).mean()
        gradient = np.concatenate([((p - y).T @ x / len(x)).flatten(), (p - y).mean(0)])
        a, b_, g, o = np.split(
            linear(
                learner.lstm.gates,
                np.concatenate(
                    [
                        preprocess(gradient),
                        np.tile(preprocess(np.array(loss)), (15, 1)),
                        h,
                    ],
                    1,
                ),
            ),
            4,
            1,
        )
        c = sigmoid(b_ + 1) * c + sigmoid(a) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        i = sigmoid(
            linear(
                learner.gates[0], np.concatenate([h, weights[:, None], i[:, None]], 1)
            )[:, 0]
        )
        f = sigmoid(
            linear(
                learner.gates[1], np.concatenate([h, weights[:, None], f[:, None]], 1)
            )[:, 0]
        )
        weights = f * weights - i * gradient  # eq. (2)
    found = learner.adapt(some.support)
    np.testing.assert_allclose(
        torch.cat([found["head.weight"].flatten(), found["head.bias"]]).detach(),
        weights,
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("given", [{"initial_rate": 0.0}, {"initial_decay": 1.0}])
def test_gates_begin_inside(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="greater than 0 and less than 1"):
        MetaLSTM.build(SPEC, **given)
