"""Stories: what is true in them, which facts say so, and how answers are measured."""

from random import Random

import pytest
import torch

from innerloop import Examples, InContext, Task
from innerloop.engine.errors import InnerloopError
from innerloop.measurements import TestPlan
from innerloop.tasks.stories import (
    COUNTS,
    DROP,
    GIVE,
    KINDS,
    MOVE,
    NOTHING,
    TAKE,
    Question,
    Stories,
    random_story,
    split_of,
    stories,
)
from innerloop.tasks.translation import Words


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def asking(tasks: Stories, facts: list[Words], *asked: Question) -> Task:
    """A story with these questions."""
    texts = [question.words for question in asked]
    numbers = tasks.numbers(facts, texts, range(16))
    query = Examples(tasks.rows(texts, numbers), tasks.targets(asked, numbers))
    return Task(tasks.support(facts, numbers), query)


def answered(facts: list[Words], question: Question) -> Words:
    """The answer by reading the facts one after the other, in a way of its own."""
    at: dict[str, str] = {}
    tracks: dict[str, list[str]] = {}
    owner: dict[str, str | None] = {}
    for fact in facts:
        who, verb, what = fact[:3]
        if verb in MOVE:
            at[who] = what
        elif verb in TAKE:
            owner[what] = who
        elif verb in DROP:
            owner[what] = None
        else:
            assert verb in GIVE
            assert owner[what] == who
            owner[what] = fact[3]
        for thing, by in owner.items():
            if by in at and tracks.setdefault(thing, [""])[-1] != at[by]:
                tracks[thing].append(at[by])
    asked = question.words
    if question.kind == "one-fact":
        return (at[asked[2]],)
    if question.kind == "two-facts":
        return (tracks[asked[2]][-1],)
    if question.kind == "three-facts":
        assert tracks[asked[2]][-1] == asked[4]
        return (tracks[asked[2]][-2],)
    if question.kind == "yes-no":
        return ("yes" if at[asked[1]] == asked[3] else "no",)
    person = asked[3] if question.kind == "counting" else asked[2]
    carried = {thing for thing, by in owner.items() if by == person}
    if question.kind == "counting":
        return (COUNTS[len(carried)],)
    return tuple(sorted(carried)) or (NOTHING,)


def test_answers_are_true_and_their_facts_are_needed() -> None:
    random, seen = Random(0), set()
    sizes = {"one-fact": 1, "yes-no": 1, "two-facts": 2, "three-facts": 3}
    for _ in range(300):
        facts, questions = random_story(random, random.randint(2, 12))
        for question in questions:
            assert tuple(sorted(question.answer)) == answered(facts, question)
            assert len(question.facts) == sizes.get(question.kind, len(question.facts))
            text = {word for i in question.facts for word in facts[i]}
            if question.kind in ("one-fact", "two-facts", "three-facts"):
                assert {*question.answer, question.words[2]} <= text
            seen.add(question.kind)
    assert seen == {*KINDS}


def test_no_story_is_in_two_splits_whatever_its_names() -> None:
    facts = [("a", "went", "b"), ("a", "took", "c")]
    other = [("x", "went", "y"), ("x", "took", "z")]
    assert split_of(facts) == split_of(other)
    changed = [split_of([*facts, ("a", verb, "q")]) for verb in (*MOVE, *TAKE, *DROP)]
    assert len({*changed, *(split_of(facts * n) for n in range(1, 30))}) == 3
    for split in ("train", "val", "test"):
        made, _ = stories(split).story(Random(3), 6)
        assert split_of(made) == split


def test_words_mean_nothing_of_themselves() -> None:
    tasks = stories("test", kind="one-fact", queries=1)
    answers = tasks.sample(150, seeded()).query.y[:, 0, : tasks.answers]
    often = answers.sum(0)
    assert (often[:8] == 0).all()  # yes, no, numbers and nothing
    assert (often[8:] > 0).all()  # every free number


def test_support_and_query_are_read_back() -> None:
    tasks = stories("test", kind="lists", facts=8, queries=3)
    batch = tasks.sample(20, seeded())
    tasks.spec.check(batch, 20)
    task = batch.unbind()[0]
    facts = tasks.words_of(task.support.x)
    assert torch.equal(
        task.support.x.sum(1) / 2, torch.tensor([*map(len, facts)]) * 1.0
    )
    assert torch.equal(task.support.y[:, tasks.answers :], torch.eye(8))
    y, x = batch.query.y.flatten(0, 1), batch.query.x.flatten(0, 1)
    assert torch.equal(tasks.chosen(2 * y - 1, x), y)
    assert (y[:, : tasks.answers].sum(1) > 1).any()
    # one answer where no list is asked for, even if two are likely
    where = stories("test", kind="two-facts", facts=8).sample(1, seeded()).query
    found = tasks.chosen(torch.ones(10, tasks.spec.y_dim), where.x[0])
    assert (found[:, : tasks.answers].sum(1) == 1).all()


def test_rules_are_measured_beside_the_learner() -> None:
    tasks = stories("test", kind="yes-no", facts=6)
    torch.manual_seed(0)
    learner = InContext.build(tasks.spec, width=8, layers=1, heads=2)
    report = tasks.evaluate(learner, TestPlan(n=30))
    rows = {row.labels["method"]: row.values for row in report.tables[0].rows}
    assert [*rows] == ["InContext", "latest fact", "most frequent"]
    assert rows["latest fact"][0].mean > rows["most frequent"][0].mean
    # either answer is as likely
    assert rows["most frequent"][0].mean == pytest.approx(0.5, abs=0.12)
    score = tasks.score(learner, TestPlan(n=30))
    assert score.mean == rows["InContext"][0].mean


def test_the_latest_fact_answers_where_nothing_else_happens() -> None:
    tasks = stories("test", facts=4)
    facts = [("x", "went", "a"), ("y", "went", "b"), ("x", "moved", "c")]
    task = asking(
        tasks,
        facts,
        Question("one-fact", ("where", "is", "x"), ("c",), (2,)),
        Question("one-fact", ("where", "is", "y"), ("b",), (1,)),
    )
    assert torch.equal(tasks.latest(task), task.query.y)


def test_the_most_frequent_answers() -> None:
    tasks = stories("test", facts=4)
    facts = [("x", "went", "a"), ("y", "went", "b"), ("x", "moved", "a")]
    task = asking(
        tasks,
        facts,
        Question("one-fact", ("where", "is", "y"), ("a",), (2,)),
        Question("yes-no", ("is", "x", "in", "a"), ("yes",), (2,)),
        Question("yes-no", ("is", "x", "in", "b"), ("no",), (2,)),
        Question("counting", ("how", "many", "is", "x", "carrying"), ("one",), (2,)),
        Question("lists", ("what", "is", "x", "carrying"), (NOTHING,), (2,)),
    )
    assert torch.equal(tasks.most_frequent(task), task.query.y)


def test_a_story_too_short_for_a_kind_is_refused() -> None:
    with pytest.raises(InnerloopError, match="no story of 2 facts"):
        stories("test", kind="three-facts", facts=2).sample(1, seeded())
