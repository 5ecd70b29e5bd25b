"""Studies: trainings and tests that belong together, as TOML files.

A study is a table of rows. A row is a command line of `innerloop train`, of another
command, or of a script, and its cells are tests, each the flags of `innerloop test`:

    title = "Omniglot"
    seeds = 3
    [tests]
    "5-way 1-shot" = "--ways 5 --shots 1 --queries 15"
    [[row]]
    name = "ProtoNet"
    train = "protonet omniglot --protocol vinyals --steps 7000"
    published = {"5-way 1-shot" = "98.8"}
    source = "arXiv:1703.05175, table 1"

`{other}` in a command line is the run folder of the row whose `id` is `other`. A study
with `train` and a table `[grid]` has one row for every combination of the grid's
values, which follow `train` as flags.
"""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError

FOLDER = Path(__file__).parent / "definitions"
_NUMBER = re.compile(r"(-?[\d,]+(?:\.\d+)?)(?:\s*±\s*(\d+(?:\.\d+)?))?")
_PLACE = re.compile(r"\{([\w.+-]+)\}")
_LENGTH = re.compile(r"(?<!\S)--(?:steps|minutes)[ =]\S+\s*")


_TYPES: dict[str, type] = {
    **dict.fromkeys(("name", "id", "train", "script", "source", "note"), str),
    **dict.fromkeys(("transductive", "hidden"), bool),
    "tests": list,
    "published": Mapping,
    "seeds": int,
}


class StudyError(InnerloopError):
    """A study that cannot be used, and why."""


@dataclass(frozen=True)
class Test:
    """A column of a study.

    Args:
        name: of the column.
        flags: of `innerloop test`; not of a script, which measures all columns at once.
        measure: what to show, the name of a measurement (default: the first), or
            "label=value / name" for another row of the report than the first.
        lower: whether smaller numbers are better.
        report: whether to show the whole report instead of one number of it.
        ranked: whether it is a column of the leaderboard.
    """

    __test__ = False  # not a test case, despite its name

    name: str
    flags: str = ""
    measure: str = ""
    lower: bool = False
    report: bool = False
    ranked: bool = True


@dataclass(frozen=True)
class Published:
    """A published figure: as it is shown, and its number."""

    text: str
    value: float

    @classmethod
    def of(cls, text: str) -> Published:
        """Raises StudyError for a text that does not start with a number."""
        found = _NUMBER.match(str(text))
        if found is None:
            raise StudyError(f"a published figure starts with a number; got {text!r}")
        return cls(str(text), float(found[1].replace(",", "")))


@dataclass(frozen=True)
class StudyRow:
    """A row of a study.

    Args:
        name: as the tables show it.
        train: arguments of `innerloop train`, without --out and --seed; or
        script: a command line of `python`, or of another command of `innerloop`, such
            as compare, which writes a report to the file that follows as --json.
        tests: names of the tests (default: all of the study; none of a hidden row).
        published: published figures by test.
        source: of the published figures.
        transductive: whether the published figures are transductive.
        seeds: how many trainings, 0 to `seeds - 1` (default: those of the study).
        note: what a reader must know, shown below the table.
        hidden: not in the tables; other rows start from it.
        id: what other rows call it.
    """

    name: str
    train: str = ""
    script: str = ""
    tests: tuple[str, ...] = ()
    published: dict[str, Published] = field(default_factory=dict)
    source: str = ""
    transductive: bool = False
    seeds: int | None = None
    note: str = ""
    hidden: bool = False
    id: str = ""

    @property
    def needs(self) -> list[str]:
        """The ids of the rows whose runs it uses."""
        return list(dict.fromkeys(_PLACE.findall(self.train + " " + self.script)))

    @property
    def line(self) -> str:
        return self.train or self.script

    @property
    def command(self) -> str:
        """What a person types, without the folder of a training."""
        if self.train:
            return f"innerloop train {self.train}"
        is_file = self.script.split()[0].endswith(".py")
        return f"{'python' if is_file else 'innerloop'} {self.script}"

    def shortened(self, minutes: float) -> StudyRow:
        """The same, trained for so many minutes."""
        if not self.train:
            return self
        line = f"{_LENGTH.sub('', self.train).strip()} --minutes {minutes:.2g}"
        return replace(self, train=line)


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        name: of its file and of its results.
        title: in words.
        rows, tests: see `StudyRow` and `Test`.
        reference: the papers whose protocol it follows.
        text: what a reader must know about the protocol.
        seeds: how many trainings of each row.
        transposed: whether rows are settings and tests are methods; the table has a
            column for each row.
    """

    name: str
    title: str
    rows: tuple[StudyRow, ...]
    tests: dict[str, Test]
    reference: str = ""
    text: str = ""
    seeds: int = 1
    transposed: bool = False

    def row(self, key: str) -> StudyRow:
        """The row of that name or id. Raises StudyError where there is none."""
        for row in self.rows:
            if key in (row.name, row.id):
                return row
        guess = did_you_mean(key, [row.name for row in self.rows])
        raise StudyError(f"the study {self.name} has no row {key!r}{guess}")

    def tests_of(self, row: StudyRow) -> list[Test]:
        usual = () if row.hidden else tuple(self.tests)
        return [self.tests[n] for n in row.tests or usual if n in self.tests]


def names() -> list[str]:
    """The studies of this package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find_study(name: str) -> Study:
    """A study of this package by name, or a user's own by the path of its file.

    Raises StudyError where there is none, or it cannot be used.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in names():
            guess = did_you_mean(name, names())
            raise StudyError(
                f"there is no study {name!r}{guess}; `innerloop study list` shows them"
            )
        path = FOLDER / f"{name}.toml"
    try:
        return parse(path.stem, tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f"{path} cannot be read: {reason}") from error
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def parse(name: str, data: Mapping[str, Any]) -> Study:
    """A study from the content of its file. Raises StudyError for one that cannot be
    used.
    """
    allowed = {f.name for f in fields(Study)} - {"name", "rows"}
    _check_keys(data, allowed | {"row", "train", "grid"}, "a study")
    tests = {}
    for key, value in _table(data, "tests").items():
        tests[key] = _test(key, value)
    if not tests:
        raise StudyError(
            'a study needs a table [tests], such as "1-shot" = "--shots 1"'
        )
    listed = data.get("row", [])
    if not isinstance(listed, list):
        raise StudyError("rows are written [[row]]")
    rows = [_row(entry, tests) for entry in listed]
    rows += _grid(data, tests)
    if not rows:
        raise StudyError("a study needs rows: [[row]], or train and [grid]")
    known = [row.id for row in rows]
    if len(set(known)) < len(known):
        twice = next(key for key in known if known.count(key) > 1)
        raise StudyError(f"two rows are called {twice!r}: give one of them another id")
    for row in rows:
        _check_order(row, rows)
    plain = {k: v for k, v in data.items() if k in ("title", "reference", "text")}
    wrong = next((k for k, v in plain.items() if not isinstance(v, str)), None)
    if wrong is not None:
        raise StudyError(f"{wrong} must be a text; got {plain[wrong]!r}")
    seeds = _count(data.get("seeds", 1), "seeds")
    transposed = data.get("transposed", False)
    if not isinstance(transposed, bool):
        raise StudyError(f"transposed must be true or false; got {transposed!r}")
    title = plain.pop("title", name)
    return Study(
        name, title, tuple(rows), tests, seeds=seeds, transposed=transposed, **plain
    )


def _test(name: str, value: Any) -> Test:
    entry: dict[str, Any] = {"flags": value} if isinstance(value, str) else value
    kinds = {f.name: type(f.default) for f in fields(Test) if f.name != "name"}
    _check_keys(entry, set(kinds), f"the test {name!r}")
    for key, found in entry.items():
        if not isinstance(found, kinds[key]):
            kind = "true or false" if kinds[key] is bool else "a text"
            raise StudyError(
                f"{key} of the test {name!r} must be {kind}; got {found!r}"
            )
    return Test(name, **entry)


def _row(entry: Mapping[str, Any], tests: Mapping[str, Test]) -> StudyRow:
    _check_keys(entry, set(_TYPES), "a row")
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise StudyError("every row needs a name")
    for key, value in entry.items():
        if not isinstance(value, _TYPES[key]):
            raise StudyError(f"{key} of the row {name!r} cannot be {value!r:.60}")
    if slug(entry.get("id", "row")) != entry.get("id", "row"):
        raise StudyError(
            f"the id of the row {name!r} may have small letters, digits, - . + and =; "
            f"got {entry['id']!r}"
        )
    if bool(entry.get("train")) == bool(entry.get("script")):
        raise StudyError(f"the row {name!r} needs either train or script")
    published = {
        test: Published.of(value) for test, value in entry.get("published", {}).items()
    }
    for test in [*entry.get("tests", []), *published]:
        if not isinstance(test, str) or test not in tests:
            guess = did_you_mean(str(test), tests)
            raise StudyError(f"the row {name!r} names no test {test!r}{guess}")
    if (seeds := entry.get("seeds")) is not None:
        _count(seeds, f"seeds of the row {name!r}")
    made = StudyRow(
        **{
            "id": slug(name),
            **entry,
            "published": published,
            "tests": tuple(entry.get("tests", ())),
            "train": " ".join(entry.get("train", "").split()),
            "script": " ".join(entry.get("script", "").split()),
            "note": " ".join(entry.get("note", "").split()),
        }
    )
    check_line(made)
    return made


def _grid(data: Mapping[str, Any], tests: Mapping[str, Test]) -> Iterator[StudyRow]:
    grid, train = _table(data, "grid"), data.get("train", "")
    if not isinstance(train, str):
        raise StudyError(f"train must be a text; got {train!r:.60}")
    if bool(grid) != bool(train):
        raise StudyError("train and [grid] belong together")
    lists = [v if isinstance(v, list) else [v] for v in grid.values()]
    for values in itertools.product(*lists) if grid else ():
        chosen = dict(zip(grid, values, strict=True))
        name = " ".join(f"{key}={_shown(value)}" for key, value in chosen.items())
        flags = [_flag(key, value) for key, value in chosen.items()]
        yield _row({"name": name, "train": " ".join([train, *flags])}, tests)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, Mapping):
        raise StudyError(f"{key} must be a table [{key}]; got {found!r:.60}")
    return found


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _flag(name: str, value: Any) -> str:
    """An option as it stands on a command line; a list's items are words."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else "--no-" + flag[2:]
    return f"{flag} {shlex.quote(str(value))}"


def check_line(row: StudyRow) -> None:
    """Raises StudyError for a command line that is not whole, or that sets what the
    study sets. Whether `innerloop train` takes it is seen when it starts.
    """
    try:
        words = shlex.split(row.line)
    except ValueError as error:
        raise StudyError(f"the row {row.name!r}: {error}") from error
    if row.script:
        return
    for flag in ("--out", "--seed", "--resume"):
        if flag in [word.split("=")[0] for word in words]:
            raise StudyError(f"the row {row.name!r}: {flag} is set by the study")


def _check_order(row: StudyRow, rows: list[StudyRow]) -> None:
    before = [other.id for other in rows[: rows.index(row)]]
    for key in row.needs:
        if key not in before:
            raise StudyError(
                f"the row {row.name!r} uses {{{key}}}, but no row above it has this id"
            )


def _check_keys(entry: Any, allowed: set[str], what: str) -> None:
    if not isinstance(entry, Mapping):
        raise StudyError(f"{what} must be a table; got {entry!r:.60}")
    for key in entry:
        if key not in allowed:
            guess = did_you_mean(key, allowed)
            raise StudyError(f"{what} has no entry {key!r}{guess}")


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StudyError(f"{what} must be a number of at least 1; got {value!r}")
    return value


def slug(name: str) -> str:
    """A name as an id: "MAML (paper)" is "maml-paper"."""
    return re.sub(r"[^a-z0-9.+=]+", "-", name.lower()).strip("-") or "row"
