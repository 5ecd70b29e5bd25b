"""`innerloop answer` and `innerloop summarize`: own texts, files, and bad input."""

from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.answering import _fact
from innerloop.assembly import Choice
from innerloop.cli import main
from innerloop.core.task import TaskSpec
from innerloop.experiment import Experiment
from innerloop.learners.memory.in_context import InContext
from innerloop.learners.optimization.alpaca import ALPaCA
from innerloop.runs import Run
from innerloop.summarizing import read_inputs
from innerloop.tasks import stories
from innerloop.tasks.sentences import FEATURES

STORY = "Mary went to the kitchen. Mary picked up the ball!\nJohn moved to the garden\n"
PAIRS = (
    'text,summary\n"It is old. Foo is an editor.",editor\n"It is new. Bar sings.",\n'
)


def made(folder: Path, experiment: Experiment) -> Path:
    torch.manual_seed(0)
    run = Run(folder)
    with run.locked():
        run.create(experiment.as_dict())
        run.save_weights(experiment.build_learner().state_dict())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"width": 8, "heads": 2, "layers": 1}
    options = {"facts": 5, "symbols": 6}
    spec = stories(facts=5, symbols=6).spec
    experiment = Experiment(
        Choice("incontext", small), Choice("stories", options), spec=spec
    )
    return made(tmp_path_factory.mktemp("runs") / "run", experiment)


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = TaskSpec("reals", (FEATURES,), 3)
    learner = Choice("alpaca", {"encoder": "flatten"})
    experiment = Experiment(learner, Choice("descriptions"), spec=spec)
    return made(tmp_path_factory.mktemp("runs") / "summaries", experiment)


@pytest.fixture
def story(tmp_path: Path) -> Path:
    file = tmp_path / "story.txt"
    file.write_text(STORY)
    return file


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers with the last word of the first fact, and marks all facts
    and a word that is in no text.
    """
    tasks = stories("test", facts=5, symbols=6)

    def predict(self: InContext, state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        outputs = torch.full((len(x), tasks.spec.y_dim), -5.0)
        word = tasks.words_of(state[:1])[0][-1]
        outputs[:, word - tasks.first] = 2.0
        outputs[:, tasks.answers - 1] = 9.0
        outputs[:, tasks.answers :] = 1.0
        return outputs

    monkeypatch.setattr(InContext, "adapt", lambda self, support: support.x)
    monkeypatch.setattr(InContext, "predict", predict)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(word) for word in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_an_answer_and_its_facts_come_out_in_own_words(
    run: Path, story: Path, last: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = story.parent / "out.csv"
    words = ["answer", str(run), "--facts", str(story), "--out", str(out)]
    assert main([*words, "--ask", "Where is the Ball?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Where is the Ball? -> kitchen"
    assert lines[1:4] == [
        "  1. Mary went to the kitchen",
        "  2. Mary picked up the ball!",
        "  3. John moved to the garden",
    ]
    assert out.read_text().splitlines()[1] == "Where is the Ball?,kitchen,1 2 3"
    (found,) = innerloop.answer(["Al went to b"], ["is zed in b"], run=run)
    assert (found.text, found.facts, found.unseen) == ("b", (0,), ("zed",))
    given = [_fact(text) for text in ("Al gave the b to Cy.", "Al gave Cy the b")]
    assert given == [("al", "gave", "b", "cy")] * 2
    assert innerloop.answer(["Al went to b"], [], run=run) == []


@pytest.mark.parametrize(
    ("facts", "ask", "message"),
    [
        ("Mary ate the cake", "where is Mary", "a fact says who did what"),
        ("Mary went to the old house", "where is Mary", "a fact says who did what"),
        ("Al went to b\n" * 6, "where is Al", "from 1 to 5 facts for this run; got 6"),
        ("", "where is Al", "from 1 to 5 facts"),
        ("Al went to b", "who is Al", "a question must be"),
        ("Al went to b\nC took d\nE took f\nG took h", "where is Al", "more names"),
    ],
)
def test_what_is_wrong_with_a_story_is_said(
    run: Path,
    story: Path,
    facts: str,
    ask: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    story.write_text(facts)
    found = fails(capsys, "answer", run, "--facts", story, "--ask", ask)
    assert message in found
    assert len(found) < 300


def test_other_runs_and_missing_files_are_refused(
    run: Path, summaries: Path, story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--facts", "none.txt", "--ask", "where is Al")
    assert "no file none.txt" in fails(capsys, "answer", run, *words)
    pairs = story.parent / "pairs.csv"
    pairs.write_text(PAIRS)
    found = fails(capsys, "summarize", run, "--examples", pairs)
    assert "train alpaca descriptions" in found
    pairs.write_text("text,summary\nOne sentence.,one\n")
    found = fails(capsys, "summarize", summaries, "--examples", pairs)
    assert "none of 1 examples" in found


def test_the_sentence_with_the_largest_prediction_is_chosen(
    summaries: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text(PAIRS)
    words = ["summarize", str(summaries), "--examples", str(pairs)]
    # the place of a sentence among the others is the first number after six places
    monkeypatch.setattr(
        ALPaCA, "answers", lambda self, state, z: z[:, 6:7].expand(-1, 6)
    )
    assert main([*words, "--out", str(out)]) == 0
    assert out.read_text().splitlines()[1] == "It is new. Bar sings.,Bar sings."
    assert "row 1 (sentence 2 of 2): Bar sings." in capsys.readouterr().out
    (tmp_path / "one.txt").write_text("A is b.\nC is d. E is f.")
    assert read_inputs(tmp_path / "one.txt")[1] == ["one.txt"]
    assert main([*words, "--in", str(tmp_path / "one.txt")]) == 0
    assert "one.txt (sentence 3 of 3): E is f." in capsys.readouterr().out
