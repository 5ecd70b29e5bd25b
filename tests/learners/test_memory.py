"""Memory learners against references that share no code with them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from innerloop import (
    LSTM,
    MANN,
    NTM,
    PEARL,
    RL2,
    Examples,
    InContext,
    Learner,
    MetaNet,
    MetaTrainConfig,
    Streaming,
    Task,
    TaskSpec,
    meta_test,
    meta_train,
)
from innerloop.engine.norm_stats import use_batch
from innerloop.nets.learned_update_rules import preprocessed
from innerloop.nets.recurrent import GRUCell
from innerloop.tasks import associative_recall, copy, repeat_copy
from innerloop.testing import Blobs

Array = NDArray[np.float64]
SPEC = TaskSpec("classes", (4,), 3)


def built(learner: type[Learner], **build_args: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(SPEC, **build_args).double()


def task(seed: int = 0) -> Task:
    support, query = (
        Blobs(SPEC).sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    )
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def inputs_of(some: Task) -> list[Array]:
    """Each support input with the label before it, then the first query with the last
    label.
    """
    x, y = array(some.support.x), array(some.support.y)
    late = np.concatenate([np.zeros((1, 3)), y])
    return [
        np.concatenate(pair)
        for pair in zip([*x, array(some.query.x)[0]], late, strict=True)
    ]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def lstm_cell(gates: nn.Linear, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(
        array(gates.weight) @ np.concatenate([x, h]) + array(gates.bias), 4
    )
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def linear(layer: nn.Linear, x: Array) -> Array:
    return array(layer.weight) @ x + array(layer.bias)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b) + 1e-4))


def test_lstm_is_torchs() -> None:
    learner, some = built(LSTM, hidden=6, layers=2), task()
    assert isinstance(learner, LSTM)
    reference = nn.LSTM(7, 6, 2).double()
    for i, cell in enumerate(learner.cells):
        weight, bias = cell.gates.weight, cell.gates.bias.clone()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        bias.data[6:12] += 1
        size = weight.shape[1] - 6
        for name, value in (
            ("weight_ih", weight[:, :size]),
            ("weight_hh", weight[:, size:]),
            ("bias_ih", bias),
            ("bias_hh", 0 * bias),
        ):
            getattr(reference, f"{name}_l{i}").data.copy_(value)
    outputs = learner.head(reference(torch.tensor(np.stack(inputs_of(some))))[0])
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x)[0], outputs[-1]
    )
    torch.testing.assert_close(learner.scan(some.support)[1], outputs[:-1])


def test_rl2_is_torchs_gru() -> None:
    spec = TaskSpec("reals", (4,), 3)
    torch.manual_seed(0)
    learner, reference = RL2.build(spec, hidden=6).double(), nn.GRUCell(7, 6).double()
    for own, theirs in (
        ("read.weight", "weight_ih"),
        ("read.bias", "bias_ih"),
        ("recall.weight", "weight_hh"),
        ("recall.bias", "bias_hh"),
    ):
        getattr(reference, theirs).data.copy_(learner.cell.get_parameter(own))
    x, y = torch.randn(3, 5, 4).double(), torch.randn(3, 5, 3).double()
    late, h, answers = (
        torch.cat([torch.zeros(3, 1, 3).double(), y[:, :-1]], 1),
        torch.zeros(3, 6).double(),
        [],
    )
    for t in range(5):
        h = reference(torch.cat([x[:, t], late[:, t]], -1), h)
        answers.append(learner.head(h))
    expected = torch.stack(answers, 1)
    torch.testing.assert_close(learner.scan_batch(Examples(x, y)), expected)
    torch.testing.assert_close(
        torch.vmap(lambda x, y: learner.scan(Examples(x, y))[1])(x, y), expected
    )


def test_pearl_s_posterior_is_the_product_of_densities_on_a_grid() -> None:
    """The normalized product of the prior and the factors' densities, by numbers."""
    torch.manual_seed(0)
    learner = PEARL.build(TaskSpec("reals", (2,), 3), hidden=8, latent=1).double()
    x, y = torch.randn(5, 2).double(), torch.randn(5, 3).double()
    state = learner.init()
    for one, label in zip(x[:4], y[:4], strict=True):
        state = learner.observe(state, one, label)
    heard = []
    learner.actor.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    learner.step(state[0], torch.cat([x[4], state[1]]))
    transitions = torch.cat([x[:-1], y[:-1], x[1:]], 1)
    mu, raw = learner.factor(transitions).detach().numpy().T
    variance = 1e-3 + np.log1p(np.exp(raw))
    z = np.linspace(-8, 8, 200_001)
    density = np.exp(-(z**2) / 2)
    for m, v in zip(mu, variance, strict=True):
        density *= np.exp(-((z - m) ** 2) / (2 * v))
    density /= density.sum()
    mean = (z * density).sum()
    std = np.sqrt(((z - mean) ** 2 * density).sum())
    expected = torch.tensor([*x[4].tolist(), mean, std], dtype=torch.float64)
    torch.testing.assert_close(heard[0], expected, atol=1e-6, rtol=1e-6)
    # all steps at once, and one after the other
    at_once = learner.scan_batch(Examples(x[None], y[None]))
    torch.testing.assert_close(at_once[0], learner.scan(Examples(x, y))[1])


def test_the_gru_s_derivative_along_sequences_is_autograds() -> None:
    cell = GRUCell(3, 4).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(cell.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: cell.along(x), (x, *parameters))


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_ntm_is_the_papers_equations_in_numpy(controller: str) -> None:
    learner, some = (
        built(
            NTM, hidden=6, slots=5, width=3, readers=2, writers=2, controller=controller
        ),
        task(),
    )
    assert isinstance(learner, NTM)
    M = np.full((5, 3), 1e-6)
    w = np.stack([softmax(row) for row in array(learner.attention)])
    r, h, c = array(learner.reads), np.zeros(6), np.zeros(6)
    for x in inputs_of(some):
        x = np.concatenate([x, r.flatten()])
        if controller == "lstm":
            h, c = lstm_cell(learner.cell.gates, x, h, c)  # pyright: ignore[reportArgumentType]
        else:
            h = np.tanh(linear(learner.cell[0], x))  # pyright: ignore[reportIndexIssue, reportArgumentType]
        heads = linear(learner.heads, h)
        after = []
        for head in range(4):
            own = heads[head * 9 : head * 9 + 9]
            k, beta, g, s, gamma = np.split(own, [3, 4, 5, 8])
            k, beta, g, s, gamma = (
                np.tanh(k),
                np.log1p(np.exp(beta)),
                sigmoid(g),
                softmax(s),
                1 + np.log1p(np.exp(gamma)),
            )
            # eq. (5), (6)
            content = softmax(beta * np.array([cosine(k, row) for row in M]))
            gated = g * content + (1 - g) * w[head]  # eq. (7)
            weight = dict(zip((-1, 0, 1), s, strict=True))
            # eq. (8)
            moved = np.array(
                [
                    sum(
                        gated[j] * weight.get((i - j + 2) % 5 - 2, 0.0)
                        for j in range(5)
                    )
                    for i in range(5)
                ]
            )
            sharp = (moved + 1e-12) ** gamma  # eq. (9)
            after.append(sharp / sharp.sum())
        w = np.stack(after)
        for head in range(2):
            erase, add = np.split(heads[36 + head * 6 : 42 + head * 6], 2)
            # eq. (3), (4)
            M = M * (1 - np.outer(w[head], sigmoid(erase))) + np.outer(
                w[head], np.tanh(add)
            )
        r = w[2:] @ M  # eq. (2)
    expected = linear(learner.head, np.concatenate([h, r.flatten()]))
    np.testing.assert_allclose(
        array(learner.predict(learner.adapt(some.support), some.query.x)[0]),
        expected,
        rtol=1e-6,
    )


def test_mann_is_the_papers_equations_in_numpy() -> None:
    learner, some = built(MANN, hidden=6, slots=5, width=3, readers=2), task()
    assert isinstance(learner, MANN)
    M, usage, read, r = (
        np.full((5, 3), 1e-6),
        np.zeros(5),
        np.zeros((2, 5)),
        np.zeros((2, 3)),
    )
    h, c = np.zeros(6), np.zeros(6)
    for x in inputs_of(some):
        h, c = lstm_cell(learner.cell.gates, np.concatenate([x, r.flatten()]), h, c)
        heads = linear(learner.heads, np.concatenate([h, x])).reshape(2, 4)
        keys, gate = np.tanh(heads[:, :3]), sigmoid(heads[:, 3:])
        order = np.argsort(usage, kind="stable")
        unused = np.isin(np.arange(5), order[:2]).astype(float)  # eq. (6)
        write = gate * read + (1 - gate) * unused  # eq. (7)
        # eq. (2), (3)
        read = np.stack(
            [
                softmax(learner.strength * np.array([cosine(k, row) for row in M]))
                for k in keys
            ]
        )
        r = read @ M  # eq. (4), before it is written to
        M = M * (np.arange(5) != order[0])[:, None]
        for head in range(2):
            M = M + np.outer(write[head], keys[head])  # eq. (8)
        usage = learner.usage_decay * usage + read.sum(0) + write.sum(0)  # eq. (5)
    expected = linear(learner.head, np.concatenate([h, r.flatten()]))
    np.testing.assert_allclose(
        array(learner.predict(learner.adapt(some.support), some.query.x)[0]),
        expected,
        rtol=1e-5,
    )


def test_in_context_is_torchs_attention() -> None:
    learner, some = built(InContext, width=8, heads=2, layers=2), task()
    assert isinstance(learner, InContext)
    examples = learner.tokens(some.support.x) + learner.labels(some.support.y)
    tokens = torch.cat([examples, learner.tokens(some.query.x[:1]) + learner.no_label])
    hidden = ~torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    for block in learner.blocks:
        reference = nn.MultiheadAttention(8, 2).double()
        reference.in_proj_weight.data, reference.in_proj_bias.data = (
            block.projections.weight.data,
            block.projections.bias.data,
        )  # pyright: ignore
        reference.out_proj.load_state_dict(block.out.state_dict())  # pyright: ignore
        normed = block.before_attention(tokens)  # pyright: ignore[reportCallIssue]
        tokens = tokens + reference(normed, normed, normed, attn_mask=hidden)[0]
        tokens = tokens + block.mlp(block.before_mlp(tokens))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x)[0],
        learner.head(tokens[-1]),
    )


def test_meta_networks_are_algorithm_1_example_by_example() -> None:
    learner, some = built(MetaNet, hidden=5, encoder=nn.Flatten()), task()
    assert isinstance(learner, MetaNet)

    def slow(layer: Tensor, head: Tensor, z: Tensor) -> Tensor:
        return head @ (layer @ z).clamp_min(0)

    gradients, kept = [], []
    for z, y in zip(some.support.x, some.support.y, strict=True):
        Q = learner.embedding.detach().requires_grad_()
        gradients.append(
            torch.autograd.grad(
                F.cross_entropy(slow(Q, learner.embedding_head, z), y), Q
            )[0]
        )
        W = [
            learner.layer.detach().requires_grad_(),
            learner.head.detach().requires_grad_(),
        ]
        grads = torch.autograd.grad(F.cross_entropy(slow(*W, z), y), W)
        kept.append(
            torch.cat([learner.coder(preprocessed(g))[..., 0].flatten() for g in grads])
        )
    h = c = np.zeros((20, 20))
    for g in gradients:
        rows = [
            lstm_cell(learner.lstm.gates, x, a, b)
            for x, a, b in zip(array(preprocessed(g)).reshape(-1, 2), h, c, strict=True)
        ]
        h, c = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    fast = torch.tensor(
        h @ array(learner.read.weight)[0] + array(learner.read.bias)
    ).view(5, 4)

    def key(z: Tensor) -> Tensor:
        return (learner.embedding @ z).clamp_min(0) + (fast @ z).clamp_min(0)

    for x, found in zip(
        some.query.x,
        learner.predict(learner.adapt(some.support), some.query.x),
        strict=True,
    ):
        similar = torch.stack(
            [F.cosine_similarity(key(x), key(z), dim=0) for z in some.support.x]
        )
        own = (torch.softmax(10.0 * similar, 0)[:, None] * torch.stack(kept)).sum(0)
        layer, head = own[:20].view(5, 4), own[20:].view(3, 5)
        hidden = (learner.layer @ x).clamp_min(0) + (layer @ x).clamp_min(0)
        torch.testing.assert_close(found, (learner.head + head) @ hidden)


def test_gradients_are_preprocessed_as_in_the_appendix() -> None:
    g = torch.tensor([0.5, -2.0, 1e-4, 0.0], dtype=torch.float64)
    expected = [
        [math.log(0.5) / 7, 1],
        [math.log(2) / 7, -1],
        [-1, math.exp(7) * 1e-4],
        [-1, 0],
    ]
    torch.testing.assert_close(
        preprocessed(g), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("learner", [LSTM, NTM, MANN, InContext])
def test_every_prediction_counts_toward_the_loss(learner: type[Learner]) -> None:
    student, some = built(learner), task()
    assert isinstance(student, Streaming)
    outputs = torch.cat(
        [
            student.scan(some.support)[1],
            student.predict(student.adapt(some.support), some.query.x),
        ]
    )
    expected = F.cross_entropy(outputs, torch.cat([some.support.y, some.query.y]))
    torch.testing.assert_close(student.loss(some)[0], expected)


@pytest.mark.parametrize("learner", [LSTM, MetaNet, InContext])
def test_tasks_are_normalized_together(learner: type[Learner]) -> None:
    spec = TaskSpec("classes", (1, 8, 8), 3)
    torch.manual_seed(0)
    student, tasks = (
        learner.build(spec).train(),
        Blobs(spec).sample(4, torch.Generator().manual_seed(0)),
    )
    with use_batch(student) as notes:
        loss = student(tasks)[0]
    for name, moments in notes.moments().items():
        student.get_buffer(name).copy_(moments)
    student.eval()
    torch.testing.assert_close(student(tasks)[0], loss, atol=1e-5, rtol=1e-5)
    student.calibrate(tasks)
    torch.testing.assert_close(student(tasks)[0], loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        student(tasks)[0],
        torch.stack([student.loss(task)[0] for task in tasks.unbind()]).mean(),
    )


class Parrot(Streaming):
    """Answers with the label that it has seen last, 2000. State: that label,
    counted.
    """

    defaults = MetaTrainConfig()

    def __init__(self) -> None:
        self.likelihood = LSTM.likelihood

    def init(self) -> Tensor:
        return torch.zeros(3)

    def observe(self, state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return y

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return state.expand(len(x), -1)


def test_accuracy_by_instance() -> None:
    # labels 0, 1, 2, 0, 1, 2, ...: the last label is never the next, and class 0 is the
    # guess at the start
    tasks = Blobs(SPEC, shots=3)
    result = meta_test(Parrot(), tasks, n=4)
    assert [round(e.mean, 4) for e in result.instances] == [round(1 / 3, 4), 0.0, 0.0]
    assert len(result.as_dict()["instances"]) == 3


def test_copying_is_scored_on_the_sequence_shown() -> None:
    support, query = copy("train", length=5, bits=3).sample(
        4, torch.Generator().manual_seed(0)
    )
    length = query.x.shape[1]
    assert 1 <= length <= 5
    assert support.x.shape == (4, length + 1, 5)
    assert torch.equal(support.x[:, :length, :3], query.y)
    assert torch.equal(support.x[0, length], torch.tensor([0.0, 0, 0, 1, 0]))
    assert not query.x.any()
    assert not support.y.any()
    assert copy("test", length=5).sample(1, torch.Generator()).query.x.shape[1] == 5


def test_repeated_copying_ends_with_a_sign() -> None:
    tasks = repeat_copy("test", length=3, bits=2, repeats=4)
    support, query = tasks.sample(2, torch.Generator().manual_seed(0))
    assert query.y.shape == (2, 13, 3)
    assert torch.equal(query.y[:, :3, :2], query.y[:, 9:12, :2])
    assert torch.equal(query.y[:, :3, :2], support.x[:, :3, :2])
    assert torch.equal(query.y[0, :, 2], F.one_hot(torch.tensor(12), 13).float())
    lengths = {
        tuple(
            repeat_copy("train", length=3, repeats=4)
            .sample(1, torch.Generator().manual_seed(s))
            .query.x.shape
        )
        for s in range(40)
    }
    assert len(lengths) > 6


def test_associative_recall_asks_for_the_item_after() -> None:
    support, query = associative_recall("test", length=4, bits=5).sample(
        6, torch.Generator().manual_seed(0)
    )
    assert support.x.shape == (6, 21, 7)
    items = support.x[:, :20].unflatten(1, (5, 4))
    assert torch.equal(items[:, :4, 0, 5], torch.ones(6, 4))
    assert torch.equal(items[:, 4, 0, 6], torch.ones(6))
    for i in range(6):
        place = next(
            k for k in range(4) if torch.equal(items[i, k, 1:, :5], items[i, 4, 1:, :5])
        )
        assert torch.equal(items[i, place + 1, 1:, :5], query.y[i])


@pytest.mark.slow
def test_ntm_learns_to_copy_short_sequences() -> None:
    torch.manual_seed(0)
    tasks = copy("train", length=4, bits=3)
    learner = NTM.build(tasks.spec, slots=16)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for _ in meta_train(
        learner, tasks, steps=4000, batch=16, optimizer=optimizer, clip=10.0
    ):
        pass
    assert (
        meta_test(learner, copy("test", length=6, bits=3), n=200)
        .metrics["accuracy"]
        .mean
        > 0.97
    )


@pytest.mark.parametrize("size", [28, 42])
def test_features_of_an_image_enter_with_length_2(size: int) -> None:
    torch.manual_seed(0)
    spec = TaskSpec("classes", (1, size, size), 5)
    learner = LSTM.build(spec, encoder="conv4-strided")
    lengths = learner.normal(3 + torch.randn(6, learner.features)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full((6,), 2.0), atol=1e-3, rtol=0)
