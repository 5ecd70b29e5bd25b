"""Populations, studies and trainings on Ray. One Ray is started for all tests."""

from __future__ import annotations

import _thread
import copy
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian, Likelihood
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.ray_cluster import connected
from innerloop.metagrad import CMAES, ES, Backprop, MetaGradient, on_ray
from innerloop.metagrad.population import Population
from innerloop.runs import Run, digest
from innerloop.studies import RayMachines, Results, Runner, machines
from innerloop.studies.study import parse
from tests.cli.conftest import cli
from tests.metagrad.test_distributed import error, tensors
from tests.metagrad.test_resume import CASES, RULES, Planes, built, seeded
from tests.studies.scripts import log, scripts

pytest.importorskip("ray", reason="Ray is not installed")

POPULATIONS = [case for case in CASES if issubclass(RULES[case[0]], Population)]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """Ray with two workers."""
    with connected(processes=2) as module:
        yield module


# ------------------------------------------------------------------ populations


def worst(
    learner: Learner, tasks: TaskDistribution, rule: MetaGradient, mixed: bool = False
) -> float:
    """The largest error of three meta-steps on Ray from those of one process; both draw
    the same numbers from all generators.
    """
    rules = copy.deepcopy(rule), on_ray(copy.deepcopy(rule))
    found, states = [], []
    for one in rules:
        torch.manual_seed(3)
        generator, noise = seeded(1), seeded(2)
        one.prepare(learner, tasks, noise)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            steps = [one(learner, lambda: tasks.sample(5, generator)) for _ in range(3)]  # noqa: B023
        found.append([tensors(step) for step in steps])
        states.append([torch.get_rng_state(), noise.get_state()])
    assert all(map(torch.equal, *states))
    return max(error(b, a) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("name", "pair"), POPULATIONS)
def test_a_population_on_ray_is_that_of_one_process(name: str, pair: int) -> None:
    learner, tasks, rule = built(name, pair)
    assert worst(learner.train(), tasks, rule) < 1e-6


class Linear(Learner):
    """A linear function that does not adapt."""

    weight: nn.Parameter
    _: KW_ONLY
    likelihood: Likelihood = Gaussian()
    kinds = ("reals",)

    def adapt(self, support: Examples) -> Tensor:
        return self.weight

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ state


class Noisy(Linear):
    """Its gradient is a random number."""

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.weight * torch.randn(2, 1)).sum(), {}


@pytest.mark.parametrize("rule", [ES(pairs=3), CMAES(population=5)])
def test_random_numbers_and_arithmetic_are_those_of_one_process(
    rule: MetaGradient,
) -> None:
    assert worst(Noisy(nn.Parameter(torch.ones(2, 1))), Planes(), rule) < 1e-6
    learner, tasks, _ = built("es", 0)
    # bfloat16 has three digits: the losses of other arithmetic would differ by 1e-3
    assert worst(learner.train(), tasks, rule, mixed=True) < 1e-6


class Deadly(Linear):
    """Kills the first other process that evaluates it; notes every evaluation."""

    folder: str
    process: int

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        if os.getpid() != self.process:
            folder = Path(self.folder)
            with (folder / "evaluations").open("a") as opened:
                opened.write(".")
            try:
                (folder / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return super().loss(task)


def test_only_the_members_of_a_killed_worker_are_evaluated_again(
    tmp_path: Path,
) -> None:
    learner = Deadly(nn.Parameter(torch.ones(2, 1)), str(tmp_path), os.getpid())
    rules = CMAES(population=8), on_ray(CMAES(population=8))
    updates = []
    for rule in rules:
        rule.prepare(learner, Planes(), seeded(2))
        updates.append(rule(learner, lambda: Planes().sample(1, seeded(1))))
    one, ray = map(tensors, updates)
    assert error(ray, one) < 1e-6
    # of two parts, the killed one twice
    assert (tmp_path / "evaluations").read_text() == "..."


class Broken(Deadly):
    """Fails in other processes."""

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        if os.getpid() != self.process:
            raise InnerloopError("seven is not eight")
        return super().loss(task)


def test_errors_of_members_are_those_of_one_process(tmp_path: Path) -> None:
    learner = Broken(nn.Parameter(torch.ones(2, 1)), str(tmp_path), os.getpid())
    rule = on_ray(ES())
    with pytest.raises(InnerloopError, match=r"^seven is not eight$"):
        rule(learner, lambda: Planes().sample(1, seeded(1)))
    learner.reader = (n for n in "a generator")
    with pytest.raises(InnerloopTypeError, match="cannot be sent to other processes"):
        rule(learner, lambda: Planes().sample(1, seeded(1)))
    with pytest.raises(InnerloopTypeError, match=r"Backprop has no population.*--proc"):
        on_ray(Backprop())


# ------------------------------------------------------------------ commands

OWN = """
import torch
from innerloop import Gaussian, Learner
from innerloop.core.likelihood import Likelihood
class Mine(Learner):
    likelihood: Likelihood = Gaussian()
    kinds = ("reals",)
    def __post_init__(self):
        self.w = torch.nn.Parameter(torch.zeros(2))
        super().__post_init__()
    def adapt(self, support):
        return self.w.sum() + support.y.mean(0)
    def predict(self, state, x):
        return state.expand(len(x), 1)
"""


def test_a_training_on_ray_stops_continues_and_is_that_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = f"train {tmp_path}/own.py:Mine sinusoid --meta-gradient cma-es --seed 3"
    assert cli(f"{words} --steps 4 --out", tmp_path / "one") == 0
    assert cli(f"{words} --steps 2 --ray --out", tmp_path / "two") == 0
    assert cli(f"{words} --steps 4 --resume --ray local --out", tmp_path / "two") == 0
    weights = [digest(Run(tmp_path / run).load_weights()) for run in ("one", "two")]
    assert weights[0] == weights[1]
    capsys.readouterr()
    assert cli("train maml sinusoid --ray --steps 1 --out", tmp_path / "three") == 2
    assert "Backprop has no population" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("line", ["train maml sinusoid", "study run"])
def test_a_missing_package_is_named(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["copy"] if line == "study run" else ["--out", tmp_path / "run"]
    assert cli(line, *words, "--ray") == 2
    assert "pip install 'innerloop[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ray", ["--ray --out RUN", "--ray host:6379", "--ray=host"])
def test_an_address_may_be_left_out(
    ray: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(f"train {ray} maml sinusoid --help") == 0
    assert "--inner-lr" in capsys.readouterr().out


# ------------------------------------------------------------------ studies

# it takes longer to save than an interrupt takes to be repeated
SAVES = """
import signal
def save(*_):
    time.sleep(5)
    note("saved")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
"""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command starts in this process."""

    def start(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(machines, "launch", start)


@pytest.mark.usefixtures("elsewhere")
def test_a_study_on_ray_keeps_what_is_done_and_names_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(scripts(tmp_path, ("good", 0), ("broken", 0)))
    places = ["--runs", tmp_path / "runs", "--results", tmp_path, "--ray"]
    assert cli("study run", file, *places) == 1
    assert "broken, seed 0: failed: it broke: 7 is not 8" in capsys.readouterr().out
    assert cli("study run", file, *places) == 1
    assert sorted(log(tmp_path)) == ["broken", "broken", "good"]
    (stored,) = Results(tmp_path / "mine.json").all
    assert stored.system["jobs"] == 2
    assert stored.system["cores"]


@pytest.mark.usefixtures("elsewhere")
def test_closing_a_study_on_ray_lets_its_commands_save(
    tmp_path: Path, ray: Any
) -> None:
    def run(until: Callable[[], bool], seconds: float) -> list[str]:
        text = scripts(tmp_path, ("a", seconds), first=SAVES)
        found = parse("mine", tomllib.loads(text))
        stored = Results(tmp_path / "mine.json")
        runner = Runner(found, stored, tmp_path, jobs=2, machines=RayMachines(ray))
        end = time.monotonic() + 200
        with closing(iter(runner)) as steps:
            for _ in steps:
                assert time.monotonic() < end
                if until():
                    break
        return [trial.state for trial in runner.trials]

    assert run(lambda: "a" in log(tmp_path), 300) == ["stopped"]
    assert log(tmp_path) == ["a", "saved"]  # though it was interrupted again meanwhile
    assert run(lambda: False, 0) == ["done"]


def test_a_command_is_interrupted_where_interrupts_are_ignored(tmp_path: Path) -> None:
    """As in the processes of a script that runs in the background."""
    scripts(tmp_path, ("a", 300), first=SAVES)
    words = [str(tmp_path / "script.py"), "a", "300", str(tmp_path / "a.json")]

    def interrupt() -> None:
        while "a" not in log(tmp_path):
            time.sleep(0.1)
        _thread.interrupt_main()  # as Ray does

    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            machines._run(words, str(tmp_path), str(tmp_path / "out"), "script", 1)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert log(tmp_path) == ["a", "saved"]


# ------------------------------------------------------------------ trainings

MORTAL = """
import os, signal
from pathlib import Path
from innerloop import MAML
from innerloop.learners import optimization
class Mortal(MAML):
    def on_progress(self, progress):
        dead = Path(__file__).with_name("dead")
        if progress >= 0.5 and os.environ["RANK"] == "1" and not dead.exists():
            dead.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_processes_on_ray_continue_after_one_was_killed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MORTAL)
    line = "train own.py:Mortal sinusoid --steps 40 --processes 2 --ray --out run"
    words = [sys.executable, "-m", "innerloop", *line.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(resumed at step 20)" in done.stdout
    assert (tmp_path / "dead").exists()
    one = line.replace("own.py:Mortal", "maml").replace(" --processes 2 --ray", "")
    assert cli(one.replace("--out run", "--out"), tmp_path / "one") == 0
    logs = [Run(tmp_path / run).read_log() for run in ("run", "one")]
    for a, b in zip(*logs, strict=True):
        assert a["step"] == b["step"]
        assert a["validation"] == pytest.approx(b["validation"], rel=1e-3)
    words[-1] = str(tmp_path / "run")
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert (again.stdout + again.stderr).count("resume it with --resume") == 1
