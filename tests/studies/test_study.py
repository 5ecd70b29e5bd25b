"""Studies are read from TOML, and each mistake in one is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest

from innerloop.cli import cli
from innerloop.studies import StudyError, find_study, names
from innerloop.studies.study import Published, Test, parse

ROOT = Path(__file__).parents[2]
TESTS = '[tests]\n"1-shot" = "--shots 1"\n'
ROW = '[[row]]\nname = "A"\ntrain = "protonet strokes --steps 2"\n'


def read(text: str) -> object:
    return parse("mine", tomllib.loads(text))


@pytest.mark.parametrize("name", names())
def test_every_study_of_the_package_can_be_used(name: str) -> None:
    study = find_study(name)
    assert study.title
    for row in study.rows:
        assert not any(len(line) > 400 for line in (row.name, row.note))
        for test in study.tests_of(row):
            assert not (row.script and test.flags and not test.measure), row.name
        program, first = row.command.split()[:2]
        if program == "python":
            assert (ROOT / first).is_file(), row.command
        else:
            assert first in cli.list_commands(click.Context(cli)), row.command


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROW, "needs a table [tests]"),
        (TESTS, "needs rows"),
        (TESTS + ROW + ROW, "two rows are called 'a'"),
        ("titel = 'x'\n" + TESTS + ROW, "has no entry 'titel': did you mean 'title'"),
        ("title = 3\n" + TESTS + ROW, "title must be a text; got 3"),
        ("seeds = 0\n" + TESTS + ROW, "seeds must be a number of at least 1; got 0"),
        ("seeds = true\n" + TESTS + ROW, "seeds must be a number"),
        ("transposed = 1\n" + TESTS + ROW, "transposed must be true or false; got 1"),
        (TESTS + "[[row]]\ntrain = 'x'\n", "every row needs a name"),
        (TESTS + "[[row]]\nname = 'A'\n", "'A' needs either train or script"),
        (TESTS + ROW + "script = 'a.py'\n", "'A' needs either train or script"),
        (TESTS + ROW + "tests = ['2-shot']\n", "names no test '2-shot'"),
        (TESTS + ROW + "seeds = 0\n", "seeds of the row 'A' must be"),
        (TESTS + ROW + "nmae = 'B'\n", "a row has no entry 'nmae'"),
        (TESTS + ROW + 'published = {"1-shot" = "none"}\n', "starts with a number"),
        (TESTS + ROW + 'published = {"9-shot" = "1"}\n', "names no test '9-shot'"),
        (TESTS + ROW.replace("--steps 2", "--seed 1"), "--seed is set by the study"),
        (TESTS + ROW.replace("--steps 2", "--out=x"), "--out is set by the study"),
        (TESTS + ROW.replace("--steps 2", "'open"), "No closing quotation"),
        (TESTS + ROW.replace("--steps", "--init-from {b} --steps"), "uses {b}, but no"),
        ('[tests]\n"a" = {flag = "x"}\n' + ROW, "the test 'a' has no entry 'flag'"),
        ('[tests]\n"a" = {lower = 1}\n' + ROW, "must be true or false; got 1"),
        ('[tests]\n"a" = {flags = 1}\n' + ROW, "flags of the test 'a' must be a text"),
        ('[tests]\n"a" = 3\n' + ROW, "the test 'a' must be a table; got 3"),
        ("train = 'maml strokes'\n" + TESTS, "train and [grid] belong together"),
        (TESTS + "[grid]\nlr = [1, 2]\n", "train and [grid] belong together"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(StudyError) as raised:
        read(text)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_file_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"mine\.toml cannot be read"):
        find_study(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text("title =")
    with pytest.raises(StudyError, match=r"mine\.toml cannot be read"):
        find_study(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text(TESTS)
    with pytest.raises(StudyError, match=r"mine\.toml: a study needs rows"):
        find_study(str(tmp_path / "mine.toml"))
    with pytest.raises(StudyError, match="did you mean 'copy'"):
        find_study("cpoy")


def test_a_grid_has_a_row_for_every_combination() -> None:
    text = "train = 'maml strokes'\n" + TESTS
    text += "[grid]\ninner_lr = [0.1, 0.4]\nfirst_order = [true, false]\nnet = 'a b'\n"
    rows = parse("mine", tomllib.loads(text)).rows
    assert [row.train for row in rows] == [
        f"maml strokes --inner-lr {lr} {flag} --net 'a b'"
        for lr in (0.1, 0.4)
        for flag in ("--first-order", "--no-first-order")
    ]
    assert rows[0].name == "inner_lr=0.1 first_order=yes net=a b"
    assert len({row.id for row in rows}) == 4


def test_rows_have_their_tests_and_hidden_rows_only_those_they_name() -> None:
    text = '[tests]\n"a" = ""\n"b" = {measure = "loss", lower = true}\n' + ROW
    text += "tests = ['b']\n" + ROW.replace('"A"', '"B"')
    text += ROW.replace('"A"', '"C"') + "hidden = true\n"
    study = parse("mine", tomllib.loads(text))
    found = [[test.name for test in study.tests_of(row)] for row in study.rows]
    assert found == [["b"], ["a", "b"], []]
    assert study.tests["b"] == Test("b", "", "loss", lower=True)


def test_a_row_is_shortened_by_its_length_only() -> None:
    text = TESTS + ROW.replace("--steps 2", "--steps 2 --ways 5 --minutes=3")
    row = parse("mine", tomllib.loads(text)).rows[0].shortened(0.5)
    assert row.train == "protonet strokes --ways 5 --minutes 0.5"
    script = TESTS + "[[row]]\nname = 'S'\nscript = 'a.py --steps 2'\n"
    row = parse("mine", tomllib.loads(script)).rows[0]
    assert row.shortened(0.5) == row


@pytest.mark.parametrize(
    ("text", "value"),
    [("98.8 ± 0.3", 98.8), ("-1,234.5", -1234.5), ("95.5, people", 95.5)],
)
def test_a_published_figure_is_its_text_and_its_number(text: str, value: float) -> None:
    assert Published.of(text) == Published(text, value)
