"""Tasks that a program solves: what they hold, and that no program is in two parts."""

from random import Random

import pytest
import torch

from innerloop.programs import strings
from innerloop.tasks import string_programs
from innerloop.tasks.programs import LONGEST, SYMBOLS, part_of_program


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_task_holds_its_solution(part: str) -> None:
    tasks = string_programs(part, shots=3, queries=2)
    drawn = tasks.sample(5, torch.Generator().manual_seed(0))
    assert drawn.query.y.shape == (5, 2, LONGEST + SYMBOLS)
    assert drawn.support.x.shape[1] == 3 or part == "train"
    for task in drawn.unbind():
        assert torch.equal(task.query.y[0, LONGEST:], task.query.y[1, LONGEST:])
        numbers = [
            number
            for number in task.query.y[0, LONGEST:].long().tolist()
            if number >= 0
        ]
        program = strings.GRAMMAR.decode(numbers)
        assert part_of_program(strings.show(program)) == part
        for examples in task:
            for x, y in zip(
                examples.x.long().tolist(), examples.y.long().tolist(), strict=True
            ):
                assert strings.run(program, strings.text_of(x)) == strings.text_of(
                    y[:LONGEST]
                )
        for x, y in zip(
            task.support.x.long().tolist(), task.support.y.long().tolist(), strict=True
        ):
            expected, written = [], 0
            for expression in program:
                expected += [written] * len(strings.GRAMMAR.encode((expression,)))
                written += len(str(strings.evaluate(expression, strings.text_of(x))))
            assert y[LONGEST:] == expected + [-1] * (SYMBOLS - len(expected))


def test_a_seed_fixes_the_tasks() -> None:
    a, b = (
        string_programs("train").sample(3, torch.Generator().manual_seed(4))
        for _ in range(2)
    )
    assert torch.equal(a.query.y, b.query.y)


def test_parts_share_no_program() -> None:
    train, test = (
        {
            strings.show(task.program)
            for task in string_programs(part).draw(150, 4, Random(0))
        }
        for part in ("train", "test")
    )
    assert not train & test
    assert {part_of_program(program) for program in train} == {"train"}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="a part is one of"):
        string_programs("all")
    with pytest.raises(ValueError, match="at least 1"):
        string_programs(shots=0)
