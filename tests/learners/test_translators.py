"""Learners that translate: their equations once more, and how they write."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners import LEARNERS
from innerloop.learners.memory.meta_seq2seq import MetaSeq2Seq
from innerloop.learners.memory.mlc import MLC
from innerloop.learners.memory.translator import Translator
from innerloop.metagrad import meta_train
from innerloop.nets.context_block import Context, ContextBlock, Marks
from innerloop.nets.recurrent import LSTMCell
from innerloop.testing import Blobs

SPEC = TaskSpec("tokens", (3,), 4, vocabulary=8)


def some_task() -> Task:
    return Blobs(SPEC).sample(1, torch.Generator().manual_seed(0)).unbind()[0]


def translators() -> list[Translator]:
    torch.manual_seed(0)
    return [
        MLC.build(SPEC, width=8, heads=2).double(),
        MetaSeq2Seq.build(SPEC, width=6).double(),
    ]


@pytest.mark.parametrize("learner", translators(), ids=lambda x: type(x).__name__)
def test_the_loss_is_that_of_tokens_written_one_by_one(learner: Translator) -> None:
    task = some_task()
    task.query.y[0, 0] = 1  # an unknown token does not count
    state = learner.adapt(task.support)
    losses = []
    for part in task:
        for x, y in zip(*part, strict=True):
            written: list[int] = []
            for token in [*(n for n in y.long().tolist() if n), 0][: len(y)]:
                prefix = torch.tensor([[*written, 0]])
                logits = learner.logits(learner.read(state, x[None]), prefix)[0, -1]
                if token != 1:
                    losses.append(-logits.log_softmax(-1)[token])
                written.append(token)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(learner.loss(task)[0], expected)


@pytest.mark.parametrize("learner", translators(), ids=lambda x: type(x).__name__)
def test_it_writes_the_likeliest_token_until_the_end(learner: Translator) -> None:
    task = some_task()
    state = learner.adapt(task.support)
    for x, row in zip(task.query.x, learner.predict(state, task.query.x), strict=True):
        written: list[int] = []
        while len(written) < SPEC.y_dim and (not written or written[-1]):
            prefix = torch.tensor([[*written, 0]])
            logits = learner.logits(learner.read(state, x[None]), prefix)[0, -1]
            written.append(int(logits.argmax()))
        expected = written + [0] * (SPEC.y_dim - len(written))
        assert row.long().tolist() == expected
        assert 1 not in expected


@pytest.mark.parametrize("learner", translators(), ids=lambda x: type(x).__name__)
def test_empty_columns_are_left_out_without_effect(learner: Translator) -> None:
    short = some_task()
    for part in short:
        part.x[:, 1:], part.y[:, 1:] = 0, 0
    batch = learner.trim(Task(*(Examples(p.x[None], p.y[None]) for p in short)))
    assert batch.query.x.shape == (1, 12, 1)
    assert batch.query.y.shape == (1, 12, 2)
    torch.testing.assert_close(learner(batch)[0], learner.loss(short)[0])


def test_meta_training_reads_no_empty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Blobs):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            tasks = super().sample(n, generator)
            for part in tasks:
                part.x[..., 1:], part.y[..., 1:] = 0, 0
            return tasks

    learner, lengths = MetaSeq2Seq.build(SPEC, width=6), []
    loss = learner.loss
    monkeypatch.setattr(
        learner, "loss", lambda t: (lengths.append(t.query.x.shape[-1]), loss(t))[1]
    )
    for _ in meta_train(learner, Short(SPEC), steps=2, batch=2):
        pass
    assert {*lengths} == {1}


def test_attention_is_over_own_tokens_and_contexts_at_once() -> None:
    torch.manual_seed(0)
    block = ContextBlock(6, 2).double()
    x = torch.randn(2, 3, 6).double()
    marks = Marks(torch.tensor([[3, 4, 0], [5, 5, 3]]), torch.arange(3).expand(2, 3))
    theirs = Marks(torch.tensor([3, 0, 5, 7]), torch.tensor([0, 1, 2, 3]))
    shared = Context(torch.randn(4, 6).double(), theirs)
    theirs = Marks(torch.tensor([[4, 3], [0, 5]]), torch.tensor([[0, 1], [0, 1]]))
    own = Context(torch.randn(2, 2, 6).double(), theirs)
    visible = torch.ones(3, 3, dtype=torch.bool).tril()
    found, seen = block(x, marks, visible, block.seen(shared), block.seen(own))
    assert torch.equal(seen.marks.numbers, marks.numbers)
    for r in range(2):
        q, k, v = block.projections(block.before_attention(x[r])).chunk(3, -1)
        others = torch.cat([shared.tokens, own.tokens[r]])
        context = block.of_context(others).chunk(2, -1)
        k, v = torch.cat([k, context[0]]), torch.cat([v, context[1]])
        those = torch.cat([shared.marks.numbers, own.marks.numbers[r]])
        mask = torch.cat([visible, (those > 0).expand(3, -1)], 1)
        equal, near = (
            mark[r][:, None] == torch.cat([mark[r], of_shared, of_own[r]])
            for mark, of_shared, of_own in zip(
                marks, shared.marks, own.marks, strict=True
            )
        )
        heads = []
        for h in range(2):
            bias = equal * block.same_number[h] + near * block.same_place[h]
            bias = bias.masked_fill(~mask, -1e30)
            part = slice(3 * h, 3 * h + 3)
            sides = (side[None, :, part] for side in (q, k, v))
            heads.append(
                F.scaled_dot_product_attention(*sides, attn_mask=bias.detach())[0]
            )
        hidden = x[r] + block.out(torch.cat(heads, -1))
        expected = hidden + block.mlp(block.before_mlp(hidden))
        torch.testing.assert_close(found[r], expected)


def lstm(cell: LSTMCell, rows: np.ndarray, h: np.ndarray, c: np.ndarray):
    """Hidden states after each row, and the last cell state, by numpy."""
    weight, bias = (p.detach().numpy() for p in cell.gates.parameters())

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    states = []
    for x in rows:
        i, f, g, o = np.split(weight @ np.concatenate([x, h]) + bias, 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states), c


def test_the_memory_network_is_that_of_the_paper() -> None:
    torch.manual_seed(1)
    learner, task = MetaSeq2Seq.build(SPEC, width=5).double(), some_task()
    zero = np.zeros(5)

    def array(tensor: Tensor) -> np.ndarray:
        return tensor.detach().numpy()

    def encoded(encoder, table, numbers: Tensor) -> tuple[np.ndarray, np.ndarray]:
        rows = array(table.weight)[[int(n) for n in numbers if n]]
        ahead, _ = lstm(encoder.ahead[0], rows, zero, zero)
        back, _ = lstm(encoder.back[0], rows[::-1], zero, zero)
        return ahead + back[::-1], ahead[-1] + back[-1]

    def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
        return x @ array(layer.weight).T + array(layer.bias)

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    keys, values = (
        np.stack([encoded(encoder, table, row)[1] for row in rows])
        for encoder, table, rows in (
            (learner.source_encoder, learner.sources, task.support.x),
            (learner.target_encoder, learner.targets, task.support.y),
        )
    )
    state = learner.adapt(task.support)
    np.testing.assert_allclose(array(state.keys), keys, atol=1e-12)
    np.testing.assert_allclose(array(state.values), values, atol=1e-12)
    for x in task.query.x:
        q, _ = encoded(learner.source_encoder, learner.sources, x)
        found = softmax(q @ keys.T / np.sqrt(5)) @ values
        context = np.tanh(linear(learner.context, np.concatenate([q, found], -1)))
        token = array(learner.outputs.weight)[0]
        h, _ = lstm(learner.decoder[0], token[None], context[-1], context[-1])
        look = softmax(h @ context.T / np.sqrt(5)) @ context
        both = np.tanh(linear(learner.combined, np.concatenate([h, look], -1)))
        logits = linear(learner.head, both)[0]
        out = learner.logits(learner.read(state, x[None]), torch.tensor([[2]]))
        np.testing.assert_allclose(
            np.delete(array(out)[0, 0], 1), np.delete(logits, 1), atol=1e-12
        )


def test_without_memory_the_examples_do_not_matter() -> None:
    torch.manual_seed(0)
    learner, task = MetaSeq2Seq.build(SPEC, width=6, memory=False), some_task()
    other = Examples(task.support.x.flip(1), task.support.y)
    x = task.query.x
    assert torch.equal(
        learner.predict(learner.adapt(task.support), x),
        learner.predict(learner.adapt(other), x),
    )


@pytest.mark.parametrize("name", ["mlc", "metaseq2seq"])
def test_the_values_of_the_paper_can_be_built(name: str) -> None:
    learner: type[Learner] = LEARNERS[name]
    built = learner.build(SPEC, **learner.paper()["fields"])
    assert sum(p.numel() for p in built.parameters()) > 10**6
