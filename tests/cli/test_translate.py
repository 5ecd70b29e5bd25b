"""`innerloop translate`: a user's own words, files, and bad input."""

from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.assembly import Choice
from innerloop.cli import main
from innerloop.core.task import TaskSpec
from innerloop.experiment import Experiment
from innerloop.learners.memory.translator import Translator
from innerloop.runs import Run
from innerloop.tasks import instructions
from innerloop.translation import read_pairs

PAIRS = "source,target\ndax,RED\nlug,BLUE\nlug fep,BLUE BLUE\nzup fep,\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    experiment = Experiment(
        Choice("mlc", {"width": 8, "heads": 2}),
        Choice("instructions", {"symbols": 6}),
        spec=instructions("test", symbols=6).spec,
    )
    torch.manual_seed(0)
    made = Run(folder)
    with made.locked():
        made.create(experiment.as_dict())
        made.save_weights(experiment.build_learner().state_dict())
    return folder


@pytest.fixture
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers with the target of the first example."""
    monkeypatch.setattr(
        Translator, "predict", lambda self, state, x: state.y[:1].expand(len(x), -1)
    )
    from innerloop.learners.memory.mlc import MLC

    monkeypatch.setattr(MLC, "adapt", lambda self, support: support)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["translate", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_own_words_come_out_in_own_words(
    run: Path, spelled: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text(PAIRS)
    words = ["translate", str(run), "--examples", str(pairs)]
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "zup fep -> RED  (in no example: zup)"
    assert out.read_text().splitlines() == ["source,target", "zup fep,RED"]
    lines = tmp_path / "new.txt"
    lines.write_text("dax lug\n\nlug\n")
    assert main([*words, "--in", str(lines)]) == 0
    assert capsys.readouterr().out == "dax lug -> RED\nlug -> RED\n"
    assert main([*words, "--in", "lug dax"]) == 0
    assert capsys.readouterr().out == "lug dax -> RED\n"


def test_without_a_run_rules_are_searched_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        PAIRS.replace("zup fep,", "zup,GREEN\nzup fep,\nlug zup,\nfep fep,")
    )
    assert main(["translate", "--examples", str(pairs)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "zup fep -> GREEN GREEN",
        "lug zup -> BLUE GREEN",
        "fep fep -> (no translation)",
    ]


def test_in_python(run: Path) -> None:
    (found,) = innerloop.translate([("dax", "RED")], ["dax dax"], run=run)
    assert found.source == "dax dax"
    assert not found.unseen
    assert set(found.target.split()) <= {"RED", "dax"}


def test_columns_by_name_or_by_place(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("n,Target,source\n1,RED,dax\n2,,lug\n")
    assert read_pairs(file) == ([("dax", "RED")], ["lug"])
    file.write_text("english;german\nred;rot\n")
    assert read_pairs(file) == ([("red", "rot")], [])


@pytest.mark.parametrize(
    ("table", "text", "error"),
    [
        ("source\ndax\n", "dax", "needs a header and two columns, source and target"),
        ("source,target\ndax,\n", "dax", "there is no example"),
        (PAIRS, "a b c d e f g h i", "a source must have from 1 to 8 words; got"),
        (PAIRS, "", "a source must have from 1 to 8 words; got '' with 0"),
        (PAIRS, "a b c d", "more different words than the 6"),
    ],
)
def test_bad_input_is_told(
    table: str,
    text: str,
    error: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(table)
    found = fails(capsys, str(run), "--examples", str(pairs), "--in", text)
    assert error in found


def test_a_run_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(
        Choice("protonet"),
        Choice("gp-curves"),
        spec=TaskSpec("classes", (4,), 3),
    )
    made = Run(tmp_path / "run")
    with made.locked():
        made.create(experiment.as_dict())
        made.save_weights(experiment.build_learner().state_dict())
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(PAIRS)
    found = fails(capsys, str(tmp_path / "run"), "--examples", str(pairs))
    assert "ProtoNet that does not translate" in found
