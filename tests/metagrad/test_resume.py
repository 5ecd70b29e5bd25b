"""A training that is stopped and continued equals one that is not, bit for bit."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from innerloop import IMAML, MAML, NEAT, RL2, Examples, Learner, Task, TaskSpec
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.metagrad import META_GRADIENTS, MetaGradient, meta_train
from innerloop.rl import META_GRADIENTS as ACTING
from innerloop.rl import Bandits, Navigation

RULES = {**META_GRADIENTS, **ACTING}


class Planes(TaskDistribution):
    """Random linear maps of two inputs."""

    spec = TaskSpec("reals", (2,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 8, 2, generator=generator)
        y = x @ torch.randn(n, 2, 1, generator=generator)
        return Task(Examples(x[:, :4], y[:, :4]), Examples(x[:, 4:], y[:, 4:]))


PAIRS: list[tuple[Callable[..., Learner], TaskDistribution, dict[str, Any]]] = [
    (MAML.build, Planes(), {"net": nn.Linear(2, 1)}),
    (IMAML.build, Planes(), {"net": nn.Linear(2, 1)}),
    (NEAT.build, Planes(), {"hidden": 4}),
    (NEAT.build, Bandits(2, 4), {"hidden": 4}),
    (RL2.build, Bandits(2, 4), {"hidden": 4}),
    (MAML.build, Navigation(4, 3), {}),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "neat": {"population": 10, "add_node": 0.5, "add_link": 0.5},
    "policy-gradient": {"uses": 3},
}


def built(name: str, pair: int) -> tuple[Learner, TaskDistribution, MetaGradient]:
    """A learner and tasks, and a meta-gradient to train them.

    Raises InnerloopError where it cannot.
    """
    build, tasks, fields = PAIRS[pair]
    rule = RULES[name](**OPTIONS.get(name, {}))
    reason = rule.supports(build.__self__, tasks)  # pyright: ignore[reportFunctionMemberAccess]
    if reason is not None:
        raise InnerloopError(reason)
    likelihood = rule.likelihood(tasks)
    extra = {"likelihood": likelihood} if likelihood else {}
    torch.manual_seed(0)
    learner = build(tasks.spec, **copy.deepcopy(fields), **extra)
    rule.check(learner, tasks)
    return learner, tasks, rule


def fits(name: str, pair: int) -> bool:
    try:
        built(name, pair)
    except InnerloopError:
        return False
    return True


CASES = [(n, pair) for n in RULES for pair in range(len(PAIRS)) if fits(n, pair)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "pair"), CASES)
def test_a_stopped_training_continues_bit_for_bit(name: str, pair: int) -> None:
    def train(stop: int, steps: int, saved: bytes | None) -> tuple[Any, bytes]:
        learner, tasks, rule = built(name, pair)
        generator, noise = seeded(1), seeded(2)
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
        rule.prepare(learner, tasks, noise)
        start = 0
        if saved is not None:
            # as in a new process: nothing but what was saved
            noise.manual_seed(77)
            state = torch.load(io.BytesIO(saved), weights_only=True)
            learner.load_state_dict(state["learner"])
            optimizer.load_state_dict(state["optimizer"])
            rule.load_state_dict(state["rule"])
            generator.set_state(state["generator"])
            start = stop
        losses, memory = [], io.BytesIO()
        for step in meta_train(
            learner,
            tasks,
            steps=steps,
            batch=6,
            meta_gradient=rule,
            optimizer=optimizer,
            generator=generator,
            start=start,
        ):
            losses.append(float(step.metrics["loss"]))
            if step.number + 1 == stop and saved is None:
                state = {
                    "learner": learner.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rule": rule.state_dict(),
                    "generator": generator.get_state(),
                }
                torch.save(state, memory)
        return (losses, learner.state_dict()), memory.getvalue()

    (losses, whole), saved = train(5, 9, None)
    (rest, continued), _ = train(5, 9, saved)
    assert rest == losses[5:]
    assert all(torch.equal(whole[key], continued[key]) for key in whole)


def test_every_meta_gradient_is_tried() -> None:
    assert {name for name, _ in CASES} == set(RULES)
    assert {pair for name, pair in CASES if name == "cma-es"} == {0, 1, 2, 3, 4}
