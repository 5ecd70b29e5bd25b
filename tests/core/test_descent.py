"""Adaptation by gradient steps, beside what the checks of every learner show."""

import pytest
import torch
from torch import nn

from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.optimization.cavia import CAVIA
from innerloop.learners.optimization.maml import MAML

SPEC = TaskSpec("classes", (6,), 3)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("learner", [MAML, CAVIA])
def test_nothing_is_recorded_of_shared_weights(
    learner: type[MAML | CAVIA], first_order: bool
) -> None:
    """Only second-order gradients need the weights that do not move: recording them
    takes time, and threads that do it at once can block each other.
    """
    fields = {"adapted": "head"} if learner is MAML else {}
    chosen = learner.build(SPEC, inner_steps=2, first_order=first_order, **fields)
    first = next(m for m in chosen.net.modules() if isinstance(m, nn.Linear))
    assert first.weight.requires_grad
    recorded: list[bool] = []

    def note(module: nn.Module, args: object, kwargs: object = None) -> None:
        if torch.is_grad_enabled():
            recorded.append(module.weight.requires_grad)

    first.register_forward_pre_hook(note)
    support = Examples(torch.randn(9, 6), torch.eye(3).repeat(3, 1))
    with torch.no_grad():
        chosen.adapt(support)
    assert recorded
    assert not any(recorded)
    recorded.clear()
    chosen.adapt(support)
    assert any(recorded) != first_order
