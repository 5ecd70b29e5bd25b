"""The documentation is true: pages are fresh, code on them runs, links lead
somewhere.
"""

import importlib
import re
import shlex
import sys
import types
from functools import cache
from pathlib import Path

import click
import pytest
import torch

from innerloop.cli import cli, main
from innerloop.engine.options import options
from innerloop.learners import LEARNERS
from innerloop.registry import entries
from innerloop.studies import Results, find_study, table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def generator(name: str = "generate") -> types.ModuleType:
    """A module of docs/."""
    folder = str(ROOT / "docs")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def blocks(path: Path, language: str) -> list[str]:
    return [
        code
        for name, code in BLOCK.findall(path.read_text("utf-8"))
        if name == language
    ]


def run(
    code: list[str], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run blocks one after the other in one module of that name, which pickle can find,
    in an empty folder.
    """
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for number, block in enumerate(code, 1):
        exec(compile(block, f"<{name}, block {number}>", "exec"), module.__dict__)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_row_of_choosing_says_the_defaults_of_a_learner(name: str) -> None:
    text = (ROOT / "docs" / "choosing.md").read_text("utf-8")
    rows = re.findall(rf"^\| \[\w+\]\(learners/{name}\.md\) \|.*$", text, re.M)
    assert len(rows) == 1
    said = re.findall(r"`(\w+)`[^`|(]*(?:\((\d+)\))?", rows[0])
    known = options(LEARNERS[name])
    for option, default in said:
        assert option not in known or float(default) == known[option].default, option


def test_texts_are_for_the_learner_that_is_best_on_them() -> None:
    study = find_study("clinc")
    found = table(study, Results(ROOT / "results" / "clinc.json"))
    place = list(found.study.tests).index("5-shot")
    measured = {
        line.row.name: cell.value.mean
        for line in found.lines
        for cell in [line.cells[place]]
        if cell is not None
    }
    best = max(measured, key=measured.__getitem__)
    choosing = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert f"- **Texts** (`text`, `clinc`): {best} first." in choosing
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"innerloop train {best.lower()} text --file" in readme


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_has_a_page(name: str) -> None:
    path = ROOT / "docs" / "learners" / f"{name}.md"
    assert path.is_file(), "run `make docs`"
    assert path.read_text("utf-8").startswith(f"# {LEARNERS[name].__name__}\n")


def test_pages_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator().main(["--check"]) == 0, capsys.readouterr().err


def test_check_finds_missing_stale_and_left_over_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = generator()
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    monkeypatch.setattr(
        docs,
        "pages",
        lambda: {tmp_path / "pages" / "a.md": "a", tmp_path / "pages" / "b.md": "b"},
    )
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    (tmp_path / "pages" / "a.md").unlink()
    (tmp_path / "pages" / "b.md").write_text("changed")
    (tmp_path / "pages" / "c.md").write_text("c")
    capsys.readouterr()
    assert docs.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "a.md is missing" in said
    assert "b.md is stale" in said
    assert "c.md is left over" in said
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0


@pytest.mark.parametrize("name", LEARNERS)
def test_code_of_learner_pages_parses(name: str) -> None:
    path = ROOT / "docs" / "learners" / f"{name}.md"
    for code in blocks(path, "python"):
        compile(code, relative(path), "exec")
        for line in re.findall(r"^from innerloop.*$", code, re.M):
            exec(line, {})
    check_commands(path)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.parent.name != "learners"], ids=relative
)
def test_commands_parse(path: Path) -> None:
    check_commands(path)


def check_commands(path: Path) -> None:
    """Parse every command, without running it; of commands on a run folder, which is
    not there, the flags must exist somewhere.
    """
    for code in blocks(path, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["innerloop"] or len(words) < 2 or "--help" in words:
                continue
            command = cli.get_command(click.Context(cli), words[1])
            assert command is not None, line
            try:
                command.make_context(words[1], words[2:])
            except click.UsageError as error:
                message = error.format_message()
                missing = "run folder" in message or "there is no file" in message
                tests = words[1] in ("test", "compare", "report")
                assert missing or tests, (line, message)
                if tests:
                    known = flags_of_test(words[1])
                    flags = {w.split("=")[0] for w in words if w.startswith("--")}
                    assert flags <= known, (line, flags - known)


# how a command is made short, and flags with a value that would make it long again
SHORT = {
    "train": ["--steps", "1"],
    "test": ["--tasks", "2"],
    "compare": ["--tasks", "2"],
    "export": [],
}
LONG = ("--steps", "--minutes", "--tasks", "--attack-steps", "--processes")
# reasons why a command cannot be run here: it is on a reader's own files, runs that are
# trained on them, or data, a package or a machine that is not there
ABSENT = re.compile(
    r"there is no|is no run folder|pip install|apt-get|INNERLOOP_DATA|run already|"
    "nothing answers"
)


def shortened(words: list[str]) -> list[str]:
    """The words of a command, for a training of one step or a test of two tasks."""
    kept = [w for w in words if w.split("=")[0] not in LONG or "=" not in w]
    dropped = {i + k for i, w in enumerate(kept) if w in LONG for k in (0, 1)}
    return [w for i, w in enumerate(kept) if i not in dropped] + SHORT[words[0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.name != "studies.md"], ids=relative
)
def test_commands_run(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of a page, one after the other, with short trainings and tests; studies run
    their own.
    """
    monkeypatch.chdir(tmp_path)
    failed = []
    for code in blocks(path, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)[1:]
            if not line.startswith("innerloop ") or words[0] not in SHORT:
                continue
            if "--help" not in words and main(shortened(words)):
                said = capsys.readouterr().err.strip() or "no message"
                shown = said.splitlines()[-1] in path.read_text("utf-8")
                if not shown and not ABSENT.search(said):
                    failed.append((line, said))
    assert not failed


@cache
def flags_of_test(name: str) -> set[str]:
    """Every flag that a command which tests runs can have."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {name for param in command.params for name in param.opts}
    for kind in ("tasks", "evaluation") if name == "test" else ("tasks",):
        for title, entry in entries(kind).items():
            known |= {f"--{title}"} if kind == "evaluation" else set()
            known |= {option.flag for option in entry.options.values()}
    return known


@pytest.mark.parametrize("page", ["concepts", "own_learner", "own_tasks"])
def test_code_of_a_page_runs(
    page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(blocks(ROOT / "docs" / f"{page}.md", "python"), page, monkeypatch, tmp_path)


def test_marked_blocks_of_the_readme_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = re.findall(
        r"^<!-- run -->\n+```python\n(.*?)^```$",
        (ROOT / "README.md").read_text("utf-8"),
        re.M | re.S,
    )
    run(code, "readme", monkeypatch, tmp_path)


def test_the_readme_trains_a_module_with_a_learned_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "train",
                "l2o",
                "mlp-digits",
                "--steps",
                "1",
                "--batch",
                "1",
                "--inner-steps",
                "2",
                "--out",
                "runs/optimizer",
            ]
        )
        == 0
    )
    code = [
        block
        for block in blocks(ROOT / "README.md", "python")
        if "LearnedOptimizer" in block
    ]
    assert len(code) == 1
    run(code, "readme", monkeypatch, tmp_path)
    trained = sys.modules["readme"].net
    torch.manual_seed(0)
    fresh = torch.nn.Linear(64, 32)  # as the script begins
    assert fresh.weight.shape == trained[0].weight.shape
    assert 0 < float((trained[0].weight - fresh.weight).detach().abs().mean()) < 10


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_relative_links_lead_somewhere(path: Path) -> None:
    text = BLOCK.sub("", path.read_text("utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", text) + re.findall(
        r'(?:src|href)="([^"]+)"', text
    ):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{relative(path)} links to {target}, which is not there"
        if anchor and found.suffix == ".md":
            headings = re.findall(
                r"^#+ (.*)$", BLOCK.sub("", found.read_text("utf-8")), re.M
            )
            slugs = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in headings
            }
            assert anchor in slugs, (
                f"{relative(path)} links to {target}, but {relative(found)} has no "
                "such heading"
            )
