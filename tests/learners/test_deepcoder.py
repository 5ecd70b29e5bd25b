"""DeepCoder against references that share no code with it, and every check, on list
programs.
"""

import pytest
import torch
import torch.nn.functional as F

from innerloop import (
    DeepCoder,
    Examples,
    Task,
    TaskSpec,
    meta_test,
    meta_train,
    testing,
)
from innerloop.programs import lists
from innerloop.programs.lists import ATTRIBUTES, SLOT
from innerloop.tasks import list_programs
from innerloop.testing import CHECKS


def built(**build_args: object) -> DeepCoder:
    torch.manual_seed(0)
    small = {"width": 24, "embedding": 4, "seconds": 60.0}
    return DeepCoder.build(list_programs().spec, **{**small, **build_args})


def some_tasks(n: int = 2, seed: int = 3) -> Task:
    return list_programs("val", shots=3, queries=2).sample(
        n, torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("check", CHECKS)
def test_check(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "CALLS", 1)  # every call is a search

    class Short(type(list_programs())):
        """Tasks of one line, because the checks adapt often."""

        def draw(self, n: int, random: object) -> list[lists.ListTask]:
            return [
                lists.list_task(random, self.shots + self.queries, 1, 1)
                for _ in range(n)
            ]  # pyright: ignore[reportArgumentType]

    CHECKS[check](built(), Short("val", 3, 2))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_attributes() -> None:
    learner = built()
    for task in some_tasks().unbind():
        numbers = [number for number in task.query.y[0, SLOT:].long().tolist()]
        lines = [lists.OPERATIONS[number] for number in numbers[::3] if number >= 0]
        has = {name for name, _ in lines} | {
            f"{lists.FUNCTIONS[name].lambdas} {lambda_}"
            for name, lambda_ in lines
            if lambda_
        }
        features = []
        for x, y in zip(
            task.support.x.long().tolist(), task.support.y.long().tolist(), strict=True
        ):
            parts = []
            for slot in (x[:SLOT], x[SLOT:], y[:SLOT]):
                value = lists.value_of(slot)
                integers = (
                    []
                    if value is None
                    else [value]
                    if isinstance(value, int)
                    else list(value)
                )
                parts.append(
                    learner.net.kind.weight[
                        0 if value is None else 1 if isinstance(value, int) else 2
                    ]
                )
                parts += [
                    learner.net.integers.weight[
                        integers[i] + 255 if i < len(integers) else 511
                    ]
                    for i in range(10)
                ]
            features.append(learner.net.body(torch.cat(parts)).clamp_min(0))
        logits = learner.net.head(torch.stack(features).mean(0))
        expected = -sum(
            F.logsigmoid(logit if name in has else -logit)
            for name, logit in zip(ATTRIBUTES, logits, strict=True)
        ) / len(ATTRIBUTES)
        torch.testing.assert_close(learner.loss(task)[0], expected)


def test_a_state_is_a_program_and_predicting_runs_it() -> None:
    learner = built()
    rows = [
        [lists.numbered(value) for value in row]
        for row in (((5, -2, 8), 2), ((1, 4), 1), ((), 0))
    ]
    x = torch.tensor(rows).flatten(1).float()
    state = torch.tensor(
        [
            *lists.encode(lists.parse("a = take(y, x); sum(a)", ("list", "int"))),
            *[-1] * 6,
        ]
    ).float()
    assert [
        lists.value_of(row)
        for row in learner.predict(state, x)[:, :SLOT].long().tolist()
    ] == [3, 1, 0]
    assert not learner.predict(torch.full((12,), -1.0), x)[:, :SLOT].any()


def test_adapt_finds_a_program_that_fits_without_reading_the_solution() -> None:
    learner, task = built(), some_tasks(1, seed=4).unbind()[0]
    state = learner.adapt(task.support)
    outputs = learner.predict(state, task.support.x)
    assert bool(learner.likelihood.metrics(outputs, task.support.y)["solved"])
    other = Examples(
        task.support.x, torch.cat([task.support.y[:, :SLOT], torch.ones(3, 12)], 1)
    )
    assert torch.equal(learner.adapt(other), state)
    mixed = Examples(
        torch.cat([task.support.x, torch.zeros(1, 24)]),
        torch.cat([task.support.y, torch.zeros(1, 24)]),
    )
    assert bool((learner.adapt(mixed) == -1).all())


def test_other_specs_and_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="as list-programs encodes them"):
        DeepCoder.build(TaskSpec("programs", (4,), 3))
    with pytest.raises(ValueError, match="least of DeepCoder must be greater than 0"):
        built(least=0.0)


@pytest.mark.slow
def test_a_minute_of_training_solves_more_than_enumeration() -> None:
    tasks = list_programs("train")
    learner = built(width=256, embedding=20, seconds=0.3)
    for _ in meta_train(learner, tasks, seconds=60, batch=100, clip=1.0):
        pass
    found = {how: 0 for how in ("guided", "pruned")}
    for task in (
        list_programs("val").sample(60, torch.Generator().manual_seed(0)).unbind()
    ):
        for how in found:
            state = learner.search(task.support, how, 0.3)
            found[how] += bool(
                learner.likelihood.metrics(
                    learner.predict(state, task.query.x), task.query.y
                )["solved"]
            )
    assert found["guided"] > found["pruned"] + 3
    assert meta_test(learner, list_programs("val"), n=10).score == "solved"
