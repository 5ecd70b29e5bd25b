"""C code that replays a recording has its bits."""

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from innerloop.engine import graph_cache, replay
from innerloop.engine.recording import Recording, same_bits
from innerloop.engine.replay.arrangement import arranged
from innerloop.engine.replay.plan import Code, Step, View
from innerloop.learners.optimization.maml import MAML
from innerloop.metagrad.backprop import loss_and_gradient
from innerloop.tasks import sinusoid

pytestmark = pytest.mark.skipif(
    not (replay._Library.is_known(120) and replay._Library.code),
    reason="no C compiler, or another library of products",
)

Function = Callable[..., Tensor]


def recording(function: Function, inputs: Sequence[Tensor]) -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make_fx(lambda *x: [function(*x)], tracing_mode="fake")(*inputs)
    return Recording(module)


def replayed(function: Function, inputs: Sequence[Tensor]) -> replay._Replay:
    recorded, code = recording(function, inputs), replay._Library.code
    assert code is not None
    return replay._Replay(code, recorded, inputs)


def drawn(shapes: Sequence[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


NUMBERS: dict[str, tuple[Function, list[tuple[int, ...]]]] = {
    "add": (lambda a, b: a + b, [(7, 5), (7, 5)]),
    "add, broadcast": (lambda a, b: a + b, [(6, 1, 5), (4, 1)]),
    "add, scaled": (lambda a, b: torch.add(a, b, alpha=0.3), [(9, 33), (33,)]),
    "subtract, scaled": (lambda a, b: torch.sub(a, b, alpha=0.01), [(40,), (32, 40)]),
    "multiply": (lambda a, b: a * b.transpose(0, 1), [(7, 5), (5, 7)]),
    "multiply by a number": (lambda a: a * 0.1, [(3, 4, 5)]),
    "divide": (lambda a, b: a / b, [(30, 30), (30, 1)]),
    "divide by a number": (lambda a: a / 3, [(3, 41)]),
    "powers": (lambda a: a**2 + a**1 + a**0, [(12, 3)]),
    "negate": (lambda a: -a.transpose(1, 2), [(4, 5, 6)]),
    "relu": (torch.relu, [(200,)]),
    "constants": (lambda a: torch.ones_like(a) + torch.full_like(a, 0.7), [(4, 3)]),
    "views": (
        lambda a: a[1:, ::2].t().unsqueeze(1).expand(2, 5, 3) * 2.0,
        [(4, 4)],
    ),
    "one number": (lambda a: a * 2.0, [()]),
    "an input itself": (lambda a: a.detach().t(), [(4, 3)]),
    "from a number": (lambda a: 1 - a, [(9, 20)]),
    "cat": (lambda a, b: torch.cat([a, b.t(), a], 1) * 2, [(6, 2), (3, 6)]),
    "cat, rows": (lambda a, b: torch.cat([a, b, a]) + 1, [(6, 2), (3, 2)]),
    "stack": (lambda a, b: torch.stack([a, b], -1) + 1, [(6, 2), (6, 2)]),
    "derivative of a slice": (
        torch.func.grad(lambda x: x[:, 1:-1:2].square().sum()),
        [(4, 9)],
    ),
    "derivative of a row": (torch.func.grad(lambda x: x[-2].square().sum()), [(4, 9)]),
    "a layer": (torch.addmm, [(40,), (15, 64), (64, 40)]),
}
SUMS = [
    ((320, 40), (0,)),
    ((32, 10, 40), (1,)),
    ((32, 10, 40), (0, 1)),
    ((32, 10, 40), (0, 2)),
    ((6, 5, 4, 3), (1, 3)),
    ((7, 100), (1,)),
    ((7, 1000), (1,)),
    ((3000, 5), (0,)),
    ((3, 2, 37), (2,)),
    ((9, 70), None),
    ((5, 1, 9), (1,)),
]
PRODUCTS = [
    ((320, 40), (40, 40)),
    ((320, 1), (1, 40)),
    ((320, 40), (40, 1)),
    ((40, 320), (320, 40)),
    ((1, 320), (320, 40)),
    ((5, 64), (64, 5)),
    ((512, 48), (48, 192)),
    ((32, 10, 40), (32, 40, 40)),
    ((32, 40, 10), (32, 10, 40)),
    ((32, 10, 40), (32, 40, 1)),
    ((32, 1, 10), (32, 10, 40)),
    ((3, 15, 64), (3, 64, 5)),
]


def assert_same(function: Function, shapes: Sequence[tuple[int, ...]]) -> None:
    compiled = replayed(function, drawn(shapes, 0))
    for seed in range(1, 6):
        inputs = drawn(shapes, seed)
        expected = function(*inputs)
        assert same_bits(compiled(inputs), [expected])
        expected.zero_()  # results are not kept
        assert same_bits(compiled(inputs), [function(*inputs)])


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    assert_same(*NUMBERS[name])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("shape", "dims"), SUMS)
def test_sums(
    shape: tuple[int, ...], dims: tuple[int, ...] | None, turned: bool
) -> None:
    def total(x: Tensor) -> Tensor:
        x = x.transpose(0, 1).contiguous().transpose(0, 1) if turned else x
        return x.sum(dims) + 0 * x.mean(dims) if dims else x.sum()

    assert_same(total, [shape])


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize(("a", "b"), PRODUCTS)
def test_products(a: tuple[int, ...], b: tuple[int, ...], turned: str) -> None:
    def product(x: Tensor, y: Tensor) -> Tensor:
        x = x.mT.contiguous().mT if "a" in turned else x
        y = y.mT.contiguous().mT if "b" in turned else y
        return x @ y

    assert_same(product, [a, b])


def test_a_derivative() -> None:
    def loss(w: Tensor, x: Tensor) -> Tensor:
        hidden = torch.relu(x @ w)
        return hidden.square().sum(-1).mean()

    def gradient(w: Tensor, x: Tensor) -> Tensor:
        return torch.func.grad(loss)(w, x)

    assert_same(gradient, [(8, 6), (20, 8)])


def test_numbers_that_are_not_finite() -> None:
    compiled = replayed(lambda a, b: torch.relu(a / b) + a, drawn([(8,), (8,)], 0))
    a = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-45])
    for b in (a, a.flip(0), torch.zeros(8), -torch.zeros(8)):
        assert same_bits(compiled([a, b]), [torch.relu(a / b) + a])


CALLS: dict[str, tuple[Function, list[tuple[int, ...]]]] = {
    "no code": (lambda x: torch.erfinv(x * 0.1) + 1, [(5, 6)]),
    "a power": (lambda x: x**3 + x, [(5, 6)]),
    "parts": (lambda x: torch.cat([p * 2 for p in x.split(2, 1)][::-1], 1), [(5, 6)]),
    "several results": (lambda x: x.sort(0)[0] + x.max(1, True)[0], [(5, 6)]),
    "other types": (lambda x: x[x.argmax(0)].double().sum(1) * 2, [(5, 5)]),
    "bits": (lambda x, y: torch.where(x > y, x, y) + 1, [(5, 6), (5, 6)]),
    "factors": (
        lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(5)) * 2,
        [(3, 5, 5)],
    ),
    "no numbers": (lambda x: torch.cat([x[:0] + 1, x * 2]), [(5, 6)]),
    "functions": (lambda x: (x.tanh() + x.exp()).sigmoid() * 2, [(7, 45)]),
    "their derivatives": (
        torch.func.grad(lambda x: (x.tanh() * x.sigmoid()).sum()),
        [(9, 20)],
    ),
    "softmax": (lambda x, w: (x @ w).softmax(-1) @ w.mT, [(4, 5, 6), (4, 6, 6)]),
}


def test_numbers_need_no_call_of_torch() -> None:
    for function, shapes in NUMBERS.values():
        groups = replayed(function, drawn(shapes, 0)).groups
        assert all(isinstance(step, Step) for group in groups for step in group)


@pytest.mark.parametrize("name", CALLS)
def test_what_has_no_code_is_called(name: str) -> None:
    assert_same(*CALLS[name])


@pytest.mark.parametrize(
    "function",
    [lambda x: x.clone().add_(1), lambda x: x.expand(1000, 1000, 100) + 1],
)
def test_what_cannot_be_replayed_by_steps(function: Function) -> None:
    inputs = drawn([(100,)], 0)
    recorded = recording(function, inputs)
    assert replay.faster(recorded, inputs) is recorded


def test_steps_that_are_slower_or_differ_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = drawn([(10, 10)], 0)
    recorded = recording(lambda x: (x + 1) * x, inputs)
    assert replay.faster(recorded, inputs) is not recorded
    with monkeypatch.context() as patch:
        patch.setattr(
            replay, "arranged", lambda steps: [g[::-1] for g in arranged(steps)]
        )
        assert replay.faster(recorded, inputs) is recorded
    monkeypatch.setattr(replay, "_seconds", lambda way, _: 1.0 - (way is recorded))
    assert replay.faster(recorded, inputs) is recorded


def test_nobody_waits_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn([(10, 10)], 0)
    recorded = recording(lambda x: (x + 1) * x, inputs)
    built = threading.Event()

    def load(_: object) -> None:
        built.wait(60)

    monkeypatch.setattr(replay.native_code, "load", load)
    monkeypatch.setattr(replay._Library, "_building", None)
    monkeypatch.setattr(replay._Library, "code", None)
    assert replay.faster(recorded, inputs) is None
    built.set()
    assert replay._Library.is_known(60)
    assert replay.faster(recorded, inputs) is recorded  # there is no compiler


def test_threads_do_not_disturb_each_other() -> None:
    shapes = [(32, 40, 40), (32, 40, 40)]

    def function(a: Tensor, b: Tensor) -> Tensor:
        return torch.relu(a @ b) @ a + b

    compiled = replayed(function, drawn(shapes, 0))

    def agrees(seed: int) -> bool:
        inputs = drawn(shapes, seed)
        expected = [function(*inputs)]
        return all(same_bits(compiled(inputs), expected) for _ in range(100))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(agrees, range(4)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(count: int) -> None:
    shapes = [(32, 10, 40), (40, 40)]
    compiled = replayed(lambda x, w: torch.relu(x @ w).sum(1), drawn(shapes, 0))
    compiled.threads = count
    inputs = drawn(shapes, 1)
    assert any(step.tiled for group in compiled.groups for step in group)
    assert same_bits(compiled(inputs), [torch.relu(inputs[0] @ inputs[1]).sum(1)])


def test_tiles_that_need_others_come_later() -> None:
    def step(out: View, *read: View) -> Step:
        return Step(Code.COPY, (out, *read), tiled=True)

    rows = [View(i, 0, (4, 3), (3, 1)) for i in range(3)]
    turned = View(1, 0, (4, 3), (1, 4))  # every tile reads from all of them
    groups = arranged([step(rows[1], rows[0]), step(rows[2], turned)])
    assert [[s.views[0] for s in group] for group in groups] == [[rows[1]], [rows[2]]]
    (group,) = arranged([step(rows[1], rows[0]), step(rows[2], rows[1])])
    assert [s.views[0] for s in group] == [rows[1], rows[2]]


def layers(x: Tensor, *weights: Tensor) -> Tensor:
    for w in weights:
        x = torch.relu(x @ w)
    return x


def codes(compiled: replay._Replay) -> list[Code | None]:
    steps = [step for group in compiled.groups for step in group]
    return [step.code if isinstance(step, Step) else None for step in steps]


def test_operations_of_one_kind_are_compared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    has_bits = replay._Replay.has_bits

    def counted(*args: Any) -> bool:
        compared.append(args)
        return has_bits(*args)

    monkeypatch.setattr(replay._Replay, "choices", {})
    monkeypatch.setattr(replay._Replay, "has_bits", counted)
    inputs = drawn([(15, 40), *[(40, 40)] * 6], 0)
    assert same_bits(replayed(layers, inputs)(inputs), [layers(*inputs)])
    assert len(compared) < 2 * 6 + 3 * 6 * replay.ROUNDS
    compared.clear()
    assert same_bits(replayed(layers, inputs)(inputs), [layers(*inputs)])
    assert len(compared) <= 2 * 6


def test_a_choice_without_the_right_bits_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay._Replay, "choices", {})
    inputs = drawn([(15, 40), (40, 40)], 0)
    right = codes(replayed(torch.mm, inputs))
    ((kind, known),) = replay._Replay.choices.items()
    assert known == 0
    replay._Replay.choices[kind] = 1
    compiled = replayed(torch.mm, inputs)
    assert codes(compiled) == right
    assert same_bits(compiled(inputs), [torch.mm(*inputs)])


def test_the_gradient_of_maml_on_sinusoids_is_replayed() -> None:
    tasks = sinusoid(shots=10, queries=10)
    learner = MAML.build(tasks.spec).train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        batch = tasks.sample(8, generator)
        loss, _, gradient = loss_and_gradient(learner, batch)
        expected, _ = learner(batch)
        theta = list(learner.parameters())
        assert torch.equal(loss, expected.detach())
        assert same_bits(gradient, torch.autograd.grad(expected, theta))
        with torch.no_grad():
            for p, g in zip(theta, gradient, strict=True):
                assert g is not None
                p -= 0.01 * g
    (situation,) = graph_cache._situations[learner].values()
    assert isinstance(situation.recording, replay._Replay)
    # also of dimensions of size 1, by which PyTorch chooses how to multiply
    made = situation.recording
    with torch.no_grad():
        inputs = [made.tensor(view) for view in made.plan.inputs]
        values = replay._values(made.recording.module.graph, inputs)
    for operation in made.plan.operations:
        for node, view in operation.operands.items():
            assert view.strides == values[node].stride()
