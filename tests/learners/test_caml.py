"""CAML against references that share no code with it."""

import pytest
import torch
from torch import Tensor, nn

from innerloop import CAML, Examples, InnerloopError, Task, TaskSpec
from innerloop.learners.memory.caml import equiangular
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def built(**build_args: object) -> CAML:
    torch.manual_seed(0)
    build_args = {"width": 12, "heads": 2, "layers": 2, "most": 6, **build_args}
    return CAML.build(SPEC, **build_args).double()


def task(ways: int = 3, seed: int = 0) -> Task:
    spec = TaskSpec("classes", (4,), ways)
    batch = Blobs(spec).sample(1, torch.Generator().manual_seed(seed))
    return Task(*(Examples(x[0].double(), y[0].double()) for x, y in batch))


def test_codes_are_the_corners_of_a_regular_simplex() -> None:
    for count in (2, 5, 32):
        codes = equiangular(count).double()
        gram = torch.full((count, count), -1 / (count - 1)).double()
        torch.testing.assert_close(codes @ codes.T, gram.fill_diagonal_(1))


def full_attention(learner: CAML, tokens: Tensor, hidden: Tensor) -> Tensor:
    """Tokens (n, width) after all layers, with the attention of torch."""
    for block in learner.blocks:
        reference = nn.MultiheadAttention(12, 2).double()
        reference.in_proj_weight.data = block.projections.weight.data  # pyright: ignore
        reference.in_proj_bias.data = block.projections.bias.data  # pyright: ignore
        reference.out_proj.load_state_dict(block.out.state_dict())  # pyright: ignore
        normed = block.before_attention(tokens)  # pyright: ignore[reportCallIssue]
        tokens = tokens + reference(normed, normed, normed, attn_mask=hidden)[0]
        tokens = tokens + block.mlp(block.before_mlp(tokens))  # pyright: ignore[reportCallIssue]
    return tokens


def test_a_query_and_the_support_set_are_one_sequence() -> None:
    learner, some = built(), task()
    z = learner.tokens(some.support.x)
    # the first codes belong to the classes in the order of their first features
    means = torch.stack([z[some.support.y[:, k] > 0].mean(0) for k in range(3)])
    order = sorted(range(3), key=lambda k: means[k, 0].item())
    codes = torch.stack([learner.codes[order.index(k)] for k in range(3)])
    labels = 6**0.5 * torch.stack([codes[k] for k in some.support.y.argmax(1)])
    examples = torch.cat([z, labels], 1)
    hidden = torch.zeros(len(z) + 1, len(z) + 1, dtype=torch.bool)
    hidden[:-1, -1] = True  # examples do not attend to the query
    learner.unknown.data.normal_()
    outputs = learner.predict(learner.adapt(some.support), some.query.x)
    for x, output in zip(some.query.x, outputs, strict=True):
        query = torch.cat([learner.tokens(x), learner.unknown])
        h = full_attention(learner, torch.cat([examples, query[None]]), hidden)[-1]
        expected = torch.stack([learner.head(h) @ code for code in codes])
        torch.testing.assert_close(output, expected)


def test_the_order_of_examples_and_labels_does_not_matter() -> None:
    learner, some = built(), task()
    expected = learner.predict(learner.adapt(some.support), some.query.x)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(len(some.support.x), generator=generator)
    labels = torch.tensor([2, 0, 1])
    support = Examples(some.support.x[rows], some.support.y[rows][:, labels])
    outputs = learner.predict(learner.adapt(support), some.query.x)
    torch.testing.assert_close(outputs, expected[:, labels])


def test_the_number_of_ways_is_free_up_to_the_number_of_codes() -> None:
    learner = built()
    for ways in (2, 6):
        some = task(ways)
        outputs = learner.predict(learner.adapt(some.support), some.query.x)
        assert outputs.shape == (len(some.query.x), ways)
    with pytest.raises(InnerloopError, match="at most 6 classes; got 7"):
        learner.adapt(task(7).support)
    with pytest.raises(InnerloopError, match="raise most"):
        CAML.build(TaskSpec("classes", (4,), 33))


def test_training_uses_all_codes() -> None:
    learner, some = built(), task()
    learner.train()
    torch.manual_seed(0)
    used = {
        int(code)
        for _ in range(30)
        for code in learner.adapt(some.support)[0].argmax(1)
    }
    assert used == set(range(6))
