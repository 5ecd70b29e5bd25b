"""OML against a loop of torch.optim.SGD through the stream, and extended states."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from innerloop import OML, FineTune
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (6,), 3)


def task(seed: int = 0) -> Task:
    found = Blobs(SPEC).sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    return Task(*(Examples(part.x.double(), part.y.double()) for part in found))


def test_oml_is_online_gradient_descent_of_a_head() -> None:
    torch.manual_seed(0)
    learner, some = OML.build(SPEC, inner_lr=0.7, width=50).double(), task()
    head = nn.Linear(50, 3, bias=False).double()
    nn.init.zeros_(head.weight)
    optimizer, occurred = (
        torch.optim.SGD(head.parameters(), lr=0.7),
        torch.zeros(3, dtype=torch.bool),
    )
    z = learner.embed(some.support.x).detach()
    for features, label in zip(z, some.support.y.argmax(-1), strict=True):
        occurred[label] = True
        optimizer.zero_grad()
        F.cross_entropy(
            head(features)[None, occurred], occurred[:label].sum()[None]
        ).backward()
        optimizer.step()
    torch.testing.assert_close(learner.adapt(some.support)[0], head.weight.detach())
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x),
        head(learner.embed(some.query.x)),
    )


def test_the_meta_gradient_of_oml_goes_through_every_step_of_a_stream_by_class() -> (
    None
):
    torch.manual_seed(0)
    learner, some = OML.build(SPEC, inner_lr=0.7, width=20).double(), task(1)
    theta = [p for p in learner.parameters() if p.requires_grad]
    order = torch.cat([(some.support.y[:, k] > 0).nonzero()[:, 0] for k in range(3)])
    weight, labels = (
        torch.zeros(3, 20, dtype=torch.float64, requires_grad=True),
        some.support.y.argmax(-1),
    )
    for i in order:
        k = int(labels[i]) + 1  # classes come one after the other
        loss = F.cross_entropy(
            learner.embed(some.support.x[i : i + 1]) @ weight[:k].T, labels[i : i + 1]
        )
        weight = (
            weight
            - learner.log_rate.exp()
            * torch.autograd.grad(loss, weight, create_graph=True)[0]
        )
    expected = F.cross_entropy(
        learner.embed(some.query.x) @ weight.T, some.query.y.argmax(-1)
    )
    found = learner.loss(some)[0]
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, theta),
        torch.autograd.grad(expected, theta),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("learner", [OML, FineTune])
def test_extending_a_state_class_by_class_is_adapting_at_once(
    learner: type[OML | FineTune],
) -> None:
    """For OML, and for FineTune without steps, all classes at once and one after the
    other give the same state.
    """
    torch.manual_seed(0)
    some = task(2).support
    order = some.y.argmax(-1).argsort(stable=True)
    x, y = some.x[order], some.y[order]
    one = learner.build(
        SPEC, **({"inner_steps": 0} if learner is FineTune else {})
    ).double()
    state = None
    for k in range(3):
        rows = slice(2 * k, 2 * k + 2)
        state = one.extend(state, Examples(x[rows], y[rows, : k + 1]))
    torch.testing.assert_close(
        one.predict(state, x), one.predict(one.adapt(Examples(x, y)), x)
    )  # pyright: ignore[reportArgumentType]


def test_finetune_extends_its_state() -> None:
    torch.manual_seed(0)
    learner, some = (
        FineTune.build(
            SPEC, adapted="all", inner_steps=3, inner_lr=0.3, encoder_lr=0.1
        ).double(),
        task().support,
    )
    first, second = (
        Examples(some.x[some.y[:, :k].any(1)], some.y[some.y[:, :k].any(1)][:, :k])
        for k in (2, 3)
    )
    state = learner.extend(learner.extend(None, first), second)
    encoder, head = copy.deepcopy(learner.encoder), nn.Linear(40, 3).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(
        [
            {"params": head.parameters(), "lr": 0.3},
            {"params": encoder.parameters(), "lr": 0.1},
        ]
    )
    for examples in (first, second):
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(
                head(encoder(examples.x))[:, : examples.y.shape[1]],
                examples.y.argmax(-1),
            ).backward()
            optimizer.step()
    torch.testing.assert_close(learner.predict(state, some.x), head(encoder(some.x)))
