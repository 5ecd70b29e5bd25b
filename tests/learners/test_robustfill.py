"""RobustFill against references that share no code with it, and every check, on string
programs.
"""

import math
from itertools import islice

import pytest
import torch
from torch import Tensor

from innerloop import MAML, Examples, RobustFill, Task, TaskSpec, meta_test, meta_train
from innerloop.learners.synthesis.sampling import sample_programs
from innerloop.nets.string_pair_encoder import runs
from innerloop.programs import strings
from innerloop.programs.likelihood import Exact
from innerloop.programs.search import InputOutput, readable
from innerloop.tasks import string_programs
from innerloop.tasks.programs import LONGEST
from innerloop.testing import CHECKS

SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 1,
    "hidden": 24,
    "beam": 16,
    "positions": 40,
    "seconds": 60.0,
}


def built(**build_args: object) -> RobustFill:
    torch.manual_seed(0)
    return RobustFill.build(string_programs().spec, **{**SMALL, **build_args})


def some_tasks(n: int = 3, part: str = "val", seed: int = 0) -> Task:
    return string_programs(part).sample(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("check", CHECKS)
def test_check(check: str) -> None:
    CHECKS[check](built(reinforce=0.0), string_programs("val", shots=3, queries=2))


def texts(rows: Tensor) -> list[str]:
    return [strings.text_of(row) for row in rows[:, :LONGEST].long().tolist()]


def by_hand(
    learner: RobustFill, support: Examples, program: tuple[tuple[str | int, ...], ...]
) -> float:
    """The log probability of a program, symbol by symbol, each from the texts that are
    left, read anew.
    """
    inputs, outputs, total = texts(support.x), texts(support.y), 0.0
    for expression in program:
        x, y = (
            torch.tensor([strings.numbered(text, LONGEST) for text in some])
            for some in (inputs, outputs)
        )
        left = learner.encoder(x, y)[:, 0]  # (shots, width)
        numbers = strings.GRAMMAR.encode((expression,))
        for i, number in enumerate(numbers):
            hidden = (
                left @ learner.decoder.examples.weight.T + learner.decoder.examples.bias
            )
            for j, before in enumerate(numbers[:i]):
                hidden = hidden + learner.decoder.before.weight[j * 153 + before]
            z = (
                hidden.clamp_min(0) @ learner.decoder.each.weight.T
                + learner.decoder.each.bias
            ).clamp_min(0)
            logits = learner.decoder.out(torch.cat([z.max(0).values, z.mean(0)]))
            total += float(logits[number] - logits.logsumexp(0))
        outputs = [
            y.removeprefix(str(strings.evaluate(expression, x)))
            for x, y in zip(inputs, outputs, strict=True)
        ]
    return total


@torch.no_grad()
def test_the_loss_is_the_negative_log_likelihood_of_the_solution() -> None:
    learner, tasks = built(), some_tasks(4)
    for task in tasks.unbind():
        numbers = [
            number
            for number in task.query.y[0, LONGEST:].long().tolist()
            if number >= 0
        ]
        expected = by_hand(learner, task.support, strings.GRAMMAR.decode(numbers))
        assert float(learner.loss(task)[0]) == pytest.approx(-expected, rel=1e-4)
    assert float(learner(tasks)[0]) == pytest.approx(
        sum(float(learner.loss(task)[0]) for task in tasks.unbind()) / 4, rel=1e-4
    )


@torch.no_grad()
def test_programs_found_have_the_sum_of_the_scores_of_their_symbols() -> None:
    learner = built(beam=400)
    inputs = ["ab-cd", "xy-zz", "q-rst"]
    outputs = ["cd:ab", "zz:xy", "rst:q"]
    rows = [
        torch.tensor([strings.numbered(text, LONGEST) for text in some]).float()
        for some in (inputs, outputs)
    ]
    found = list(
        islice(learner.version_space(inputs, outputs, 60.0, wanted=3).programs(), 3)
    )
    assert len(found) == 3
    for program, log_p in found:
        assert [strings.run(program, text) for text in inputs] == outputs
        assert log_p == pytest.approx(
            by_hand(learner, Examples(*rows), program), rel=1e-4
        )
    assert [one.log_p for one in found] == sorted(
        (one.log_p for one in found), reverse=True
    )


@torch.no_grad()
def test_proposals_have_the_sum_of_the_scores_of_their_symbols() -> None:
    learner = built()
    left = torch.randn(1, 2, 16)
    proposed = {
        expression: p for p, expression in learner.decoder.propose(left, 300)[0]
    }
    assert {(character,) for character in strings.CHARACTERS} < set(proposed)
    assert {len(expression) for expression in proposed} > {1, 2, 3}
    for expression in proposed:
        numbers = torch.tensor(strings.GRAMMAR.encode((expression,)))
        steps = len(numbers)
        score = learner.decoder.score(
            left[0, :, None].expand(-1, steps, -1),
            numbers,
            torch.arange(steps),
            torch.ones(steps, steps),
        )
        assert proposed[expression] == pytest.approx(float(score.sum()), rel=1e-4)
    assert sum(map(math.exp, proposed.values())) < 1 + 1e-4


def test_runs_of_equal_characters() -> None:
    same = torch.tensor([[a == b for b in "xabcab"] for a in "abca"])
    run, end = runs(same)
    assert run.tolist() == [
        [0, 4, 0, 0, 2, 0],
        [0, 0, 3, 0, 0, 1],
        [0, 0, 0, 2, 0, 0],
        [0, 1, 0, 0, 1, 0],
    ]
    assert end[0].tolist() == [0, 0, 0, 0, 4, 2]  # abca from 1 on, ab from 4 on


def test_features_of_the_rest_depend_on_nothing_before_it() -> None:
    learner = built()
    x = torch.tensor([strings.numbered("one two", 8)])
    a, b = (
        learner.encoder(x, torch.tensor([strings.numbered(text, 8)]))
        for text in ("xy two", "?! two")
    )
    torch.testing.assert_close(a[:, 2:6], b[:, 2:6])
    assert not torch.allclose(a[:, :2], b[:, :2])


def test_adapt_does_not_read_the_solution() -> None:
    learner, task = built(), some_tasks(1).unbind()[0]
    bare = task.support.y.clone()
    bare[:, LONGEST:] = -1
    assert torch.equal(
        learner.adapt(task.support), learner.adapt(Examples(task.support.x, bare))
    )


def test_a_state_is_a_program_and_predicting_runs_it() -> None:
    learner, task = built(), some_tasks(1).unbind()[0]
    program = strings.parse('"<" + x.upper().first(3) + ">"')
    numbers = strings.GRAMMAR.encode(program)
    state = torch.tensor([*numbers, *[-1] * (32 - len(numbers))]).float()
    outputs = learner.predict(state, task.query.x)
    assert texts(outputs) == [
        f"<{text.upper()[:3]}>" if len(text) > 2 else "" for text in texts(task.query.x)
    ]
    nothing = learner.predict(torch.full((32,), -1.0), task.query.x)
    assert texts(nothing) == [""] * 6


def test_exact_answers_are_right_or_wrong() -> None:
    y = torch.tensor([[1.0, 2, 9], [3, 4, 9]])
    outputs = torch.tensor([[1.0, 2, 0], [3, 5, 0]])
    likelihood = Exact(2)
    assert float(likelihood.nll(outputs, y)) == 0.5
    assert {
        name: float(value) for name, value in likelihood.metrics(outputs, y).items()
    } == {"solved": 0, "rows": 0.5}
    assert float(likelihood.metrics(y, y)["solved"]) == 1


def test_sampled_programs_have_the_frequency_of_their_probability() -> None:
    learner = built()
    inputs, outputs = ["b", "c"], ["b", "c"]
    rows = [
        torch.tensor([strings.numbered(text, LONGEST) for text in some])
        for some in (inputs, outputs)
    ]
    torch.manual_seed(0)
    with torch.no_grad():
        programs, log_p = sample_programs(
            learner.decoder,
            learner.encoder(*rows)[None],
            [InputOutput(strings.evaluate, inputs, outputs)],
            4000,
        )
    wanted = strings.parse("x")
    times = sum(program == wanted for program in programs)
    chance = math.exp(float(log_p[programs.index(wanted)]))
    assert times / 4000 == pytest.approx(chance, abs=4 * (chance / 4000) ** 0.5)
    assert all(
        p is None or [strings.run(p, text) for text in inputs] == outputs
        for p in programs
    )


def test_reward_teaches_what_examples_alone_do() -> None:
    """One task, no solution shown: the reward alone makes its programs likelier."""
    learner = built(reinforce=1.0, samples=1000)
    rows = [
        torch.tensor([strings.numbered(text, LONGEST) for text in some]).float()
        for some in (["b", "c", "d"], ["b", "c", "d"])
    ]
    y = torch.cat([rows[1], torch.full((3, 32), -1.0)], 1)
    task = Task(Examples(rows[0][:2], y[:2]), Examples(rows[0][2:], y[2:]))
    tasks = Task(*(Examples(part.x[None], part.y[None]) for part in task))
    learner.train()
    learner.on_progress(0.5)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    rewards = []
    for _ in range(25):
        loss, metrics = learner(tasks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(float(metrics["reward"]))
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


def test_other_specs_and_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="as string-programs encodes them"):
        RobustFill.build(TaskSpec("programs", (4,), 3))
    with pytest.raises(
        ValueError,
        match="RobustFill predicts programs, but the targets of these tasks are reals",
    ):
        RobustFill.build(
            TaskSpec("reals", (LONGEST,), 64, vocabulary=strings.VOCABULARY)
        )
    with pytest.raises(
        ValueError,
        match="MAML predicts classes and reals, but the targets of these tasks are",
    ):
        MAML.build(string_programs().spec)
    with pytest.raises(
        ValueError, match="width must be a multiple of heads; got 16 and 3"
    ):
        built(heads=3)


def test_it_reads_the_shortest_examples_and_is_right_on_all() -> None:
    texts = ["ab" * n for n in (400, 2, 3, 200)]
    # three times the 160,000 pairs of the next would be too many, though once would do
    assert readable(texts, texts) == [1, 2]
    assert readable(texts[::3], texts[::3]) == [1]
    texts = [f"{'x' * n}-{n}" for n in range(12)]
    assert readable(texts, texts) == [*range(8)]
    outputs = [text[-1:] if len(text) < 12 else text[-2:] for text in texts]
    found = built().version_space(texts, outputs, 5.0).programs()
    assert all(
        strings.run(one.program, text) == text.split("-")[1]
        for one in found
        for text in texts
    )


@pytest.mark.slow
def test_minutes_of_training_solve_most_unseen_tasks() -> None:
    torch.manual_seed(0)
    learner = RobustFill.build(string_programs().spec, reinforce=0.0)
    for _ in meta_train(
        learner, string_programs("train"), seconds=240, batch=32, clip=1.0
    ):
        pass
    found = meta_test(learner, string_programs("val"), n=100).metrics
    assert found["solved"].mean > 0.8
