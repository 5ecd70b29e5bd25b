"""A task source, a meta-gradient and a learner from outside the package work wherever
the package's own do: training, testing, resuming, plotting, help and lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor

import innerloop
from innerloop import Examples, Gradient, MetaGradient, Task, TaskDistribution, TaskSpec
from innerloop.cli import main
from innerloop.engine.options import Positive, Range
from innerloop.metagrad import backprop
from innerloop.registry import _added, register
from innerloop.runs import Run


class Lines(TaskDistribution):
    """Lines through the origin."""

    def __init__(self, noise: float, shots: int):
        self.noise, self.shots = noise, shots
        self.spec = TaskSpec("reals", (1,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        slope = torch.randn(n, 1, 1, generator=generator)
        x = torch.randn(n, self.shots + 5, 1, generator=generator)
        y = slope * x + self.noise * torch.randn(x.shape, generator=generator)
        k = self.shots
        return Task(Examples(x[:, :k], y[:, :k]), Examples(x[:, k:], y[:, k:]))

    def describe(self) -> str:
        return f"lines with noise {self.noise:g}"

    def plot_task(self, learner: Any, task: Task, figure: Any) -> None:
        axes = figure.subplots()
        outputs = learner.predict(learner.adapt(task.support), task.query.x)
        axes.plot(task.query.x[:, 0], outputs[:, 0].detach(), ".")


def lines(
    split: str = "train",
    *,
    noise: Annotated[float, Range(0, 5)] = 0.1,
    shots: int = 4,
    style: Literal["plain", "fancy"] = "plain",
) -> Lines:
    """Lines: straight lines through the origin.

    Args:
        noise: standard deviation of the noise.
        shots: support examples.
        style: nothing that matters.
    """
    return Lines(noise, shots)


class Halved(MetaGradient):
    """Halved: the exact gradient times a factor that shrinks with every step.

    Args:
        factor: the first factor.
    """

    factor: Positive = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps = 0

    def __call__(self, learner: Any, draw: Any) -> Gradient:
        grads, metrics = backprop(learner, draw())
        self.steps += 1
        scale = self.factor / self.steps
        scaled: dict[str, Tensor | None] = {
            n: g if g is None else scale * g for n, g in grads.items()
        }
        return Gradient(scaled, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(_added)
    register("tasks", "lines", lines)
    register("meta-gradient", "halved", Halved)
    yield
    _added.clear()
    _added.update(before)


TRAIN = ["train", "maml", "lines", "--meta-gradient", "halved", "--batch", "2"]


def test_it_trains_tests_and_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    own = ["--noise", "0.2", "--factor", "0.25", "--inner-lr", "0.05"]
    assert main([*TRAIN, *own, "--steps", "3", "--out", run]) == 0
    stored = Run(run).experiment()
    assert stored["tasks"] == {"name": "lines", "options": {"noise": 0.2}}
    assert stored["meta_gradient"] == {"name": "halved", "options": {"factor": 0.25}}
    assert stored["learner"]["options"]["inner_lr"] == 0.05
    capsys.readouterr()
    picture, file = tmp_path / "lines.png", tmp_path / "result.json"
    test = ["test", run, "--tasks", "4", "--shots", "3"]
    assert main([*test, "--plot", str(picture), "--json", str(file)]) == 0
    assert picture.stat().st_size > 1000
    assert "mse" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert result["options"] == {"shots": 3}
    assert list((tmp_path / "run" / "tests").glob("lines-test-*.json"))
    assert isinstance(innerloop.load(run), innerloop.MAML)


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*TRAIN, "--steps", "6", "--out", str(whole)]) == 0
    experiment = innerloop.Experiment.load(whole)
    events = experiment.train_events(parts)
    for event in events:
        if getattr(event, "step", 0) == 3 and type(event).__name__ == "Stepped":
            events.close()
            break
    assert Run(parts).load_checkpoint()["step"] == 3
    assert main([*TRAIN, "--resume", "--out", str(parts)]) == 0
    one, other = (Run(folder).load_weights() for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert Run(parts).load_checkpoint()["meta_gradient"] == {"steps": 6}


def test_its_options_are_in_help_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--noise" in shown
    assert "standard deviation of the noise" in shown
    assert "at least 0 and at most 5" in shown
    assert "[plain|fancy]" in shown
    assert "--factor" in shown
    assert main(["list", "lines"]) == 0
    assert "straight lines through the origin" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "halved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--noise", "6"], "noise must be at least 0 and at most 5"),
        (["--noise", "x"], "noise must be a number; got 'x'"),
        (["--style", "wild"], "style must be one of plain, fancy"),
        (["--factor", "0"], "factor must be greater than 0"),
        (["--nose", "1"], "did you mean '--noise'?"),
    ],
)
def test_bad_values_are_refused_in_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert main([*TRAIN, *arguments, "--steps", "1", "--out", str(out)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not out.exists()


def test_a_learner_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "Mine"]) == 0
    train = ["train", "mine.py:Mine", "strokes", "--ways", "3", "--queries", "2"]
    assert main([*train, "--scale", "0.5", "--steps", "2", "--out", "run"]) == 0
    assert main(["test", "run", "--tasks", "2", "--ways", "3"]) == 0
    assert main(["train", "mine.py:Yours", "strokes", "--out", "other"]) == 2
    assert "defines no Yours" in capsys.readouterr().err


def test_an_encoder_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from torch import nn\n"
        "def small(spec):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.x_size, 8))\n"
        "def wrong(spec):\n"
        "    return 1\n"
    )
    train = ["train", "protonet", "strokes", "--ways", "3", "--queries", "2"]
    own = ["--encoder", "own.py:small"]
    assert main([*train, *own, "--steps", "1", "--out", "run"]) == 0
    again = ["--steps", "2", "--resume", "--out", "run"]
    assert main([*train, *own, *again]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    x, y = torch.rand(4, 28, 28), [0, 1, 0, 1]
    classifier = innerloop.FewShotClassifier(tmp_path / "run").fit(x, y)
    classifier.save("saved")
    loaded = innerloop.FewShotClassifier.load("saved")
    assert (loaded.predict_proba(x) == classifier.predict_proba(x)).all()
    for name, words in (("wrong", "must return a module"), ("tiny", "defines no tiny")):
        capsys.readouterr()
        own = ["--encoder", f"{tmp_path / 'own.py'}:{name}", "--out", "other"]
        assert main([*train, *own]) == 2
        assert words in capsys.readouterr().err
    assert not Path("other").exists()


class Fails(innerloop.ProtoNet):
    """Fails: its gradient cannot be computed."""

    def forward(self, tasks: Task) -> Any:
        if torch.is_grad_enabled():
            raise ZeroDivisionError("a mistake of the user")
        return super().forward(tasks)


def test_a_training_that_fails_in_its_first_step_leaves_no_folder(
    tmp_path: Path,
) -> None:
    register("learner", "fails", Fails)
    tasks = innerloop.Choice("strokes", {"ways": 3, "queries": 2})
    run = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        innerloop.Experiment("fails", tasks, steps=2).train(run)
    assert not run.exists()
    innerloop.Experiment("protonet", tasks, steps=1).train(run)  # as corrected
