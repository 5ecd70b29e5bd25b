"""Tasks of translation: the published splits of SCAN, the instructions that people
learned, names in languages, and the rules beside which learners are measured.
"""

import random
import re
import sys

import pytest
import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.translator import ExactMatch
from innerloop.measurements import TestPlan
from innerloop.tasks import instructions, names, scan
from innerloop.tasks.translation import (
    RULES,
    Lexicon,
    Translations,
    edit_distance,
    row,
    words_of,
)

INSTRUCTIONS = sys.modules["innerloop.tasks.instructions"]
SCAN = sys.modules["innerloop.tasks.scan"]
NAMES = sys.modules["innerloop.tasks.names"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(tasks: Translations, rows: Tensor) -> list[str]:
    numbers = tasks.lexicon.numbers([], [], ())
    words = {number: word for word, number in numbers.items()}
    return [" ".join(words.get(n, f"#{n}") for n in words_of(r)) for r in rows]


# ---------------------------------------------------------------------- SCAN


def test_scan_has_the_published_commands_and_splits() -> None:
    pairs = dict(SCAN.commands())
    assert len(pairs) == 20910
    data = SCAN._data()
    held_out = {name: int(where.sum()) for name, where in data.held_out.items()}
    assert held_out == {"add-jump": 7706, "around-right": 4476, "length": 3920}
    assert (
        len(SCAN.Scan("train", "length", 1, 1, 20, True).asked)
        + int(((data.y > 0).sum(-1) < SCAN.QUERY_LENGTH).sum())
        == 16990
    )
    # from figure 1 of arXiv:1711.00350
    for command, actions in {
        "jump left": "LTURN JUMP",
        "jump around right": "RTURN JUMP RTURN JUMP RTURN JUMP RTURN JUMP",
        "turn left twice": "LTURN LTURN",
        "jump opposite left and walk thrice": "LTURN LTURN JUMP WALK WALK WALK",
        "jump opposite left after walk around left": "LTURN WALK LTURN WALK "
        "LTURN WALK LTURN WALK LTURN LTURN JUMP",
    }.items():
        long = {"LTURN": "I_TURN_LEFT", "RTURN": "I_TURN_RIGHT"}
        expected = tuple(long.get(a, f"I_{a}") for a in actions.split())
        assert pairs[tuple(command.split())] == expected


@pytest.mark.parametrize("holdout", ["add-jump", "around-right", "length"])
def test_only_tests_have_the_usual_meanings(holdout: str) -> None:
    assigned: dict[str, set[frozenset[tuple[int, int]]]] = {}
    for split in ("train", "val", "test"):
        tasks = scan(split, holdout=holdout)  # pyright: ignore[reportArgumentType]
        generator, found = seeded(), set()
        for _ in range(60):
            table = tasks.meanings(generator)
            pairs = zip(
                table[tasks.words].tolist(), table[tasks.actions].tolist(), strict=True
            )
            found.add(frozenset(pairs))
        assigned[split] = found
    words, actions = tasks.words.tolist(), tasks.actions.tolist()
    usual = frozenset(zip(words, actions, strict=True))
    assert assigned["test"] == {usual}
    last = next(iter(usual - {*zip(words[:-1], actions[:-1], strict=True)}))
    if holdout == "length":
        assert usual not in assigned["train"] | assigned["val"]
    elif holdout == "around-right":
        assert not any(last in pairs for pairs in assigned["train"] | assigned["val"])
    assert not assigned["train"] & assigned["val"]


def test_what_scan_shows_and_asks() -> None:
    tasks = scan("test", queries=50)
    task = tasks.sample(1, seeded()).unbind()[0]
    shown = dict(
        zip(texts(tasks, task.support.x), texts(tasks, task.support.y), strict=True)
    )
    assert shown == SCAN.ACTIONS
    assert all("jump" in x and x != "jump" for x in texts(tasks, task.query.x))
    tasks = scan("test", holdout="around-right")
    task = tasks.sample(1, seeded()).unbind()[0]
    assert set(texts(tasks, task.support.x)) == {"turn left", "turn right"}
    tasks = scan("test", holdout="length", shots=9)
    task = tasks.sample(1, seeded()).unbind()[0]
    lengths = [(part.y > 0).sum(-1) for part in task]
    assert int(lengths[0].max()) < 24 <= int(lengths[1].min())
    tasks = scan("train", shots=30, queries=30)
    task = tasks.sample(1, seeded()).unbind()[0]
    assert not {*texts(tasks, task.support.x)} & {*texts(tasks, task.query.x)}
    plain = scan("train", permute=False, queries=60).sample(3, seeded())
    asked = texts(tasks, plain.query.x.flatten(0, 1))
    assert "jump" in asked
    assert not any("jump" in x and x != "jump" for x in asked)


# ---------------------------------------------------------------------- instructions


def rewritten(rules: list[tuple[str, str]], text: str) -> str:
    """The output of an instruction by rewriting texts with regular expressions: the
    first rule that fits the whole text, then its parts; [1] is the output of group 1.
    """
    for pattern, output in rules:
        if (found := re.fullmatch(pattern, text)) is not None:
            return re.sub(
                r"\[(\d)\]",
                lambda part: rewritten(rules, found[int(part[1])]),
                output,
            )
    raise ValueError(text)


def test_outputs_are_those_of_rewrite_rules() -> None:
    draw, checked = random.Random(0), 0
    for _ in range(15):
        grammar = INSTRUCTIONS.random_grammar(draw, 4, 3)
        rules = [(word, color) for word, color in grammar.colors.items()]
        for function in grammar.functions:
            parts = [r"(\w+)" if short else r"([\w ]+)" for short in function.short]
            pattern = " ".join([parts[0], function.word, *parts[1:]])
            rules.append((pattern, " ".join(f"[{i + 1}]" for i in function.output)))
        rules.append((r"([0-3]) ([\w ]+)", "[1] [2]"))
        pairs = INSTRUCTIONS.episode(draw, grammar, 14, 10)
        if pairs is None:
            continue
        shown, asked = pairs
        assert len({x for x, _ in shown + asked}) == 24
        assert {(color,) for color in grammar.colors} <= {x for x, _ in shown}
        for x, y in shown + asked:
            assert max(len(x), len(y)) <= INSTRUCTIONS.LONGEST
            assert rewritten(rules, " ".join(x)) == " ".join(y)
            checked += 1
    assert checked > 200


def test_people_learned_and_were_asked_this() -> None:
    shown, asked = INSTRUCTIONS.people()
    assert len(shown) == 14
    assert [" ".join(y) for _, y in asked] == [
        "D C",
        "A D",
        "D D D",
        "A D A",
        "D B D",
        "C D C B",
        "B D D D",
        "D D D C",
        "D D D D D D",
        "A A A D C D",
    ]
    assert sum("4" in x for x, _ in shown) == 1  # once, alone


def test_grammars_belong_to_one_split() -> None:
    draw = random.Random(1)
    found = [INSTRUCTIONS.random_grammar(draw, 4, 3) for _ in range(300)]
    splits = {INSTRUCTIONS.key(g): INSTRUCTIONS.split_of_grammar(g) for g in found}
    assert set(splits.values()) == {"train", "val"}
    assert INSTRUCTIONS.split_of_grammar(INSTRUCTIONS.PEOPLE) == "test"


def test_too_many_instructions_are_refused() -> None:
    tasks = instructions("val", shots=3000, queries=1)
    with pytest.raises(InnerloopError, match=r"no grammar has 3000 \+ 1 different"):
        tasks.random_episode(random.Random(0), 3000, 2)


def test_words_are_other_numbers_in_every_task() -> None:
    tasks = instructions("test", grammar="people").sample(2, seeded())
    assert not torch.equal(tasks.query.x[0], tasks.query.x[1])
    assert torch.equal(tasks.query.x[0] > 0, tasks.query.x[1] > 0)
    assert int(tasks.query.y.max()) < 34
    assert not bool((tasks.query.y == 1).any())  # all colors were shown


# ---------------------------------------------------------------------- names


def test_names_are_of_languages_that_are_not_related() -> None:
    pytest.importorskip("babel")
    codes = {split: names(split).codes for split in ("train", "val", "test")}
    groups = {
        split: {NAMES.GROUP.get(code, code) for code in of}
        for split, of in codes.items()
    }
    assert not groups["train"] & groups["val"]
    assert not groups["test"] & (groups["train"] | groups["val"])
    assert sum(map(len, codes.values())) >= 200
    pairs = dict(names("train").pairs["de"])
    assert NAMES.LEXICON.join(pairs[tuple("austria")]) == "österreich"
    task = names("test").sample(3, seeded())
    assert task.support.x.shape == (3, 10, 20)
    assert task.query.y.shape == (3, 10, 25)


def test_a_language_that_does_not_exist_is_refused() -> None:
    pytest.importorskip("babel")
    with pytest.raises(InnerloopError, match="no language has the code 'dee'"):
        names("train", source="dee")


# ---------------------------------------------------------------------- measures


def test_numbers_of_words() -> None:
    lexicon = Lexicon(("and",), free=3)
    pairs = [(("dax", "and"), ("RED",))]
    numbers = lexicon.numbers(pairs, [("lug", "zup")], (2, 0, 1))
    assert numbers == {"and": 2, "dax": 5, "RED": 3, "lug": 4}
    assert row(("dax", "zup"), numbers, 3) == [5, 1, 0]
    letters = Lexicon(letters=True)
    assert letters.join(letters.split("Évora")) == "évora"
    assert len(letters.split("Évora")) == 6  # the mark is apart


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3


def test_what_is_unknown_is_never_right() -> None:
    y = torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    outputs = torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.0, 0.0], [3.0, 2.0, 0.0]])
    found = ExactMatch().metrics(outputs, y)
    assert float(found["exact"]) == pytest.approx(1 / 3)
    assert float(found["tokens"]) == pytest.approx((0.5 + 1 + 0.5) / 3)


class Oracle(Learner):
    """Translates by the table 2 -> 3 -> 4 -> 2."""

    likelihood = ExactMatch()
    kinds = ("tokens",)

    def adapt(self, support: Examples) -> Tensor:
        return torch.tensor([0, 1, 3, 4, 2])

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (0, 1))
        return state[padded.long()].to(x.dtype)


class Cipher(Translations):
    def __init__(self) -> None:
        super().__init__(Lexicon(free=3), 3, 4, 2, 1)

    def sample(self, n: int, generator: torch.Generator) -> object:
        table = {2: 3, 3: 4, 4: 2}
        shown, asked = [[2, 3, 4], [4, 4, 0]], [[4, 4, 2]]

        def part(rows: list[list[int]]) -> Examples:
            y = [[*(table.get(w, 0) for w in words), 0] for words in rows]
            x, y = (torch.tensor(r).float().expand(n, -1, -1) for r in (rows, y))
            return Examples(x, y)

        from innerloop.core.task import Task

        return Task(part(shown), part(asked))


def test_rules_are_measured_beside_the_learner() -> None:
    report = Cipher().evaluate(Oracle(), TestPlan(n=3))
    found = {
        str(r.labels["method"]): {v.name: v.mean for v in r.values}
        for r in report.tables[-1].rows
    }
    assert found["Oracle"] == {"exact": 1.0, "edit distance": 0.0}
    # 2 2 of the nearest pair (4 4) instead of 2 2 3; 4 4 2 of the source
    assert found["nearest pair"]["exact"] == 0.0
    assert found["nearest pair"]["edit distance"] == pytest.approx(1 / 3)
    assert found["copy of the source"]["edit distance"] == 1.0
    assert set(found) == {"Oracle", *RULES}
    assert report.tables[0].rows[0].values[0].mean == 1.0


def test_what_is_right_is_drawn_in_green() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    tasks, panel = Cipher(), figures.Figure()
    task = tasks.sample(1, seeded()).unbind()[0]
    tasks.plot_task(Oracle(), task, panel)
    (axes,) = panel.axes
    assert [text.get_color() for text in axes.texts] == ["black", "black", "green"]
    assert [text.get_text() for text in axes.texts][1] == "wif wif"
    dots = [line.get_color() for line in axes.lines]  # 3 4 2, 2 2 and 2 2 3
    assert dots == ["C0", "C1", "C2", "C2", "C2", "C2", "C2", "C0"]
    task.query.y[0, 0] = 4
    panel.clear()
    tasks.plot_task(Oracle(), task, panel)
    assert panel.axes[0].texts[-1].get_color() == "red"
