"""Learned update rules against references that share no code with them."""

import math
import os

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
from innerloop.nets.learned_update_rules import LSTMRule, MLPRule
from innerloop.tasks import mlp_digits, mlp_omniglot, quadratics
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def built(spec: TaskSpec = SPEC, **given: object) -> L2O:
    torch.manual_seed(0)
    learner = L2O.build(spec, **given).double()
    list(learner.change.parameters())[-2].data *= 30  # steps that can be told from none
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


def test_the_mlp_rule_sees_averages_of_the_gradient() -> None:
    torch.manual_seed(0)
    rule = MLPRule(hidden=6).double()
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
        settled = averages / (1 - decays**step)
        seen = np.stack(
            [g / size, w, np.log(root) / 7, g / root, *settled / root, *settled / size],
            -1,
        )
        x = np.concatenate(
            [seen.clip(-10, 10), np.tile(np.tanh([step / 10, step / 100]), (5, 1))], -1
        )
        for i, layer in enumerate(layers):
            x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            x = np.maximum(x, 0) if i < 2 else x
        np.testing.assert_allclose(
            change["w"].detach(), 0.01 * x[:, 0] * np.exp(x[:, 1]), rtol=1e-5
        )
        w = w + change["w"].detach().numpy()


@pytest.mark.parametrize("rule", ["lstm", "mlp"])
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
    with pytest.raises(TypeError, match="learned by L2O, and this is a ProtoNet"):
        LearnedOptimizer([nn.Parameter(torch.zeros(1))], ProtoNet.build(SPEC))  # pyright: ignore[reportArgumentType]


def test_quadratics_are_sums_of_squares() -> None:
    some = quadratics("test").sample(2, torch.Generator().manual_seed(0))
    w = torch.randn(10, generator=torch.Generator().manual_seed(1))
    W, b = some.support.x / 10**0.5, some.support.y[..., 0] / 10**0.5
    torch.testing.assert_close(
        (some.support.x @ w - some.support.y[..., 0]).square().mean(-1),
        (W @ w - b).square().sum(-1),
    )
    assert W.std() == pytest.approx(1, abs=0.15)


def test_digits_have_parts_of_their_own() -> None:
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

    def told(v: np.ndarray) -> np.ndarray:
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
                    [told(gradient), np.tile(told(np.array(loss)), (15, 1)), h], 1
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
    with pytest.raises(ValueError, match="between 0 and 1"):
        MetaLSTM.build(SPEC, **given)
