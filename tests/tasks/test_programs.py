"""Tasks that a program solves: what they hold, their splits, and their evaluation."""

from random import Random

import pytest
import torch

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Likelihood
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import options
from innerloop.evaluation.program_search import ProgramSearch
from innerloop.learners.synthesis import DeepCoder, RobustFill, robustfill
from innerloop.measurements import Report, TestPlan
from innerloop.programs import lists, strings
from innerloop.programs.likelihood import Exact
from innerloop.tasks.programs import (
    LONGEST,
    SYMBOLS,
    list_programs,
    split_of_program,
    string_programs,
)

SPLITS = pytest.mark.parametrize("split", ["train", "val", "test"])


@SPLITS
def test_a_string_task_holds_its_solution(split: str) -> None:
    tasks = string_programs(split, shots=3, queries=2)
    drawn = tasks.sample(5, torch.Generator().manual_seed(0))
    assert drawn.query.y.shape == (5, 2, LONGEST + SYMBOLS)
    assert drawn.support.x.shape[1] == 3 or split == "train"
    for task in drawn.unbind():
        support, query = (
            (part.x.long().tolist(), part.y.long().tolist()) for part in task
        )
        assert query[1][0][LONGEST:] == query[1][1][LONGEST:]
        symbols = [number for number in query[1][0][LONGEST:] if number >= 0]
        program = strings.GRAMMAR.decode(symbols)
        assert split_of_program(strings.show(program)) == split
        for x, y in [*zip(*support, strict=True), *zip(*query, strict=True)]:
            output = strings.text_of(y[:LONGEST])
            assert strings.run(program, strings.text_of(x)) == output
        for x, y in zip(*support, strict=True):
            expected, written = [], 0
            for expression in program:
                expected += [written] * len(strings.GRAMMAR.encode((expression,)))
                written += len(str(strings.evaluate(expression, strings.text_of(x))))
            assert y[LONGEST:] == expected + [-1] * (SYMBOLS - len(expected))


@SPLITS
def test_a_list_task_holds_its_solution(split: str) -> None:
    tasks = list_programs(split, shots=3, queries=2)
    for task in tasks.sample(5, torch.Generator().manual_seed(0)).unbind():
        rows = torch.cat([task.support.x, task.query.x]).long().tolist()
        outputs = torch.cat([task.support.y, task.query.y]).long().tolist()
        assert all(set(y[lists.SLOT :]) == {-1} for y in outputs[:3])
        numbers = [number for number in outputs[3][lists.SLOT :]]
        while numbers[-3:] == [-1, -1, -1]:
            numbers = numbers[:-3]
        for x, y in zip(rows, outputs, strict=True):
            slots = [lists.value_of(x[i : i + lists.SLOT]) for i in (0, lists.SLOT)]
            values = [value for value in slots if value is not None]
            kinds = tuple(lists.kind_of(value) for value in values)
            program = lists.decode(numbers, kinds)  # pyright: ignore[reportArgumentType]
            assert lists.run(program, values) == lists.value_of(y)


@pytest.mark.parametrize("source", [string_programs, list_programs])
def test_a_seed_fixes_the_tasks(source: object) -> None:
    a, b, c = (
        source("train").sample(3, torch.Generator().manual_seed(seed))  # pyright: ignore[reportCallIssue]
        for seed in (4, 4, 5)
    )
    assert torch.equal(a.query.y, b.query.y)
    assert not torch.equal(a.query.y[..., :4], c.query.y[..., :4])


def test_splits_share_no_program() -> None:
    train, test = (
        {
            strings.show(task.program)
            for task in string_programs(split).random_tasks(150, 4, Random(0))
        }
        for split in ("train", "test")
    )
    assert not train & test
    assert {split_of_program(program) for program in train} == {"train"}


@pytest.mark.parametrize("source", [string_programs, list_programs])
def test_options_are_typed_and_described(source: object) -> None:
    found = options(source)  # pyright: ignore[reportArgumentType]
    assert set(found) == {"shots", "queries"}
    assert all(option.help and option.range is not None for option in found.values())
    with pytest.raises(ValueError, match="split"):
        source("all")  # pyright: ignore[reportCallIssue]
    with pytest.raises(InnerloopError, match="at least 1; got 0"):
        source(shots=0)  # pyright: ignore[reportCallIssue]


class Known(DeepCoder):
    """A learner that has found the right program, or none, before it searches.

    State: the program's numbers.
    """

    def search(self, support: Examples, method: str, seconds: float) -> torch.Tensor:
        state = ANSWERS[float(support.x.sum())]
        return state if method == "guided" else torch.full_like(state, -1.0)


ANSWERS: dict[float, torch.Tensor] = {}


def table(report: Report) -> dict[str | int | float | None, dict[str, float]]:
    return {
        row.labels["search"]: {value.name: value.mean for value in row.values}
        for row in report.tables[0].rows
    }


def test_evaluation_counts_solved_tasks() -> None:
    tasks = list_programs("val", shots=2, queries=3)
    learner = Known.build(tasks.spec, width=4, embedding=2)
    plan = TestPlan(n=6, seed=3, labels={"shots": 2})

    class Drawn(type(tasks)):
        """Tasks that are noted down with their solutions, every third of them wrong."""

        def sample(self, n: int, generator: torch.Generator) -> Task:
            batch = super().sample(n, generator)
            for i, task in enumerate(batch.unbind()):
                state = task.query.y[0, lists.SLOT :]
                nothing = torch.full_like(state, -1.0)
                ANSWERS[float(task.support.x.sum())] = state if i % 3 else nothing
            return batch

    report = Drawn("val", 2, 3).evaluate(learner, plan)
    found = table(report)
    assert found["guided"]["solved"] == pytest.approx(4 / 6)
    assert found["guided"]["fits the rows shown"] == pytest.approx(4 / 6)
    assert found["enumeration, plain"]["solved"] == 0
    assert list(found) == ["guided", "enumeration, pruned", "enumeration, plain"]
    assert report.tables[0].rows[0].labels["shots"] == 2
    assert Report.from_dict(report.as_dict()).tables[0].rows[0].labels == {
        "shots": 2,
        "search": "guided",
    }
    assert report.context["seconds"] == 1.0


def test_evaluation_without_enumeration_and_with_a_limit() -> None:
    tasks = list_programs("val", shots=2, queries=3)
    learner = DeepCoder.build(tasks.spec, width=4, embedding=2)
    found = ProgramSearch(seconds=1e-9, compare=False)(learner, tasks, TestPlan(n=3))
    assert table(found)["guided"]["solved"] == 0
    assert table(found)["guided"]["fits the rows shown"] == 0
    assert list(table(found)) == ["guided"]
    with pytest.raises(
        InnerloopError, match="seconds of ProgramSearch must be greater"
    ):
        ProgramSearch(seconds=0.0)


def test_string_enumeration_is_prepared_before_the_clock_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robustfill, "READY", 2000)
    tasks = string_programs("val", shots=2, queries=2)
    small = {"width": 8, "heads": 2, "layers": 1, "hidden": 8, "beam": 4}
    learner = RobustFill.build(tasks.spec, **small)
    learner.prepare("pruned")
    assert len(robustfill.enumerated(strings.GRAMMAR).made) >= 2000
    found = ProgramSearch(seconds=0.2)(learner, tasks, TestPlan(n=2))
    assert len(table(found)) == 3


class Reader(Learner):
    """A learner of programs that does not search: it repeats the input."""

    likelihood: Likelihood = Exact(LONGEST)

    kinds = ("programs",)

    def adapt(self, support: Examples) -> torch.Tensor:
        return support.x.new_zeros(1)

    def predict(self, state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 1)


def test_other_learners_are_not_searched_with() -> None:
    tasks = string_programs("val", shots=2, queries=2)
    with pytest.raises(InnerloopTypeError, match="searches for programs"):
        ProgramSearch()(Reader(), tasks, TestPlan(n=2))
