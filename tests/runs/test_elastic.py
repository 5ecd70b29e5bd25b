"""Trainings in several processes: equal to one process, stopped, and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from innerloop.runs import Run

ROOT = Path(__file__).parents[2]
QUIET = {"INNERLOOP_GRAPH_CACHE": "0", "OMP_NUM_THREADS": "1"}


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(folder: Path, *words: str) -> list[str]:
    return [
        "-m",
        "innerloop",
        "train",
        "maml",
        "sinusoid",
        "--out",
        str(folder),
        *words,
    ]


def output_of(*words: str, code: int = 0) -> str:
    process = started(*words)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == code, output
    return output


@pytest.mark.slow
def test_two_processes_train_as_one_and_refuse_a_run_in_one_line(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    output_of(*train(one, "--steps", "3"))
    output = output_of(*train(two, "--steps", "3", "--processes", "2"))
    assert "2 processes" in output
    logs = [[entry["step"] for entry in Run(run).read_log()] for run in (one, two)]
    assert logs[0] == logs[1] == [1, 2, 3]
    scores = [Run(run).read_log()[-1]["validation"] for run in (one, two)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    output = output_of(*train(two, "--steps", "3", "--processes", "2"), code=2)
    lines = [line for line in output.splitlines() if line.strip()]
    assert len(lines) == 1, output
    assert "holds a run already" in lines[0]


@pytest.mark.slow
def test_an_interrupt_stops_all_processes_and_saves(tmp_path: Path) -> None:
    words = train(tmp_path / "run", "--steps", "100000", "--processes", "2")
    process, run = started(*words), Run(tmp_path / "run")
    try:
        while not run.has_weights:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 130
    assert output.count("the run is saved") == 1
    assert "Traceback" not in output
    step = run.load_checkpoint()["step"]
    words = train(tmp_path / "run", "--resume", "--steps", f"{step + 2}")
    assert f"resumed at step {step}" in output_of(*words, "--processes", "2")


@pytest.mark.slow
def test_torchrun_runs_the_command_as_it_is(tmp_path: Path) -> None:
    agent = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    output = output_of(*agent, *train(tmp_path / "run", "--steps", "3"))
    assert "3 processes" in output
    assert output.count("saved in") == 1
    assert Run(tmp_path / "run").load_checkpoint()["step"] == 3


@pytest.mark.slow
def test_a_training_whose_processes_are_killed_ends_with_the_same_weights() -> None:
    output = output_of("benchmarks/elastic.py", "--kills", "4", "--steps", "100")
    assert re.search(r"^4 of 4 with the weights", output, re.MULTILINE), output
