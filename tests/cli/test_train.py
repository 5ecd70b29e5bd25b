"""`innerloop train`: what a run holds, resuming, interrupting, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path

import pytest
import torch
from PIL import Image

import innerloop
from innerloop.assembly import copy_networks
from innerloop.events import Finished, Saved, Started, Stepped, Validated
from innerloop.measurements import Measurement
from innerloop.registry import entries
from innerloop.runs import Run, RunError
from tests.cli.conftest import SMALL, cli

Fails = Callable[..., str]
PROTO = f"train protonet strokes {SMALL}"


def same_weights(one: Path, other: Path) -> bool:
    a, b = Run(one).load_weights(), Run(other).load_weights()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_without_time(run: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in Run(run).read_log()
    ]


def test_a_run_holds_what_it_should(proto_run: Path) -> None:
    files = {p.name for p in proto_run.iterdir() if p.is_file()} - {".lock"}
    assert files == {
        "experiment.json",
        "log.jsonl",
        "weights.safetensors",
        "checkpoint.bin",
    }
    stored = json.loads((proto_run / "experiment.json").read_text())
    assert stored["versions"]["torch"] == str(torch.__version__)
    experiment = innerloop.Experiment.load(proto_run)
    assert experiment.learner.name == "protonet"
    assert experiment.tasks.options["ways"] == 3
    assert experiment == innerloop.Experiment.from_json(experiment.to_json())
    log = Run(proto_run).read_log()
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert {"loss", "accuracy", "validation", "seconds"} <= set(log[0])
    assert isinstance(innerloop.load(proto_run), innerloop.ProtoNet)


def test_training_is_a_stream_of_events(tmp_path: Path) -> None:
    experiment = innerloop.Experiment(
        innerloop.Choice("protonet", {"encoder": "conv4"}),
        innerloop.Choice("strokes", {"ways": 3, "shots": 1, "queries": 2}),
        steps=3,
    )
    events = list(experiment.train_events(tmp_path / "run"))
    kinds = [type(event) for event in events]
    assert kinds[:2] == [Started, Saved]
    assert kinds[-1] is Finished
    assert [e.step for e in events if isinstance(e, Stepped)] == [1, 2, 3]
    assert len([e for e in events if isinstance(e, Validated)]) == 3
    with pytest.raises(RunError, match="holds a run already"):
        list(experiment.train_events(tmp_path / "run"))


def test_train_in_python_returns_the_trained_learner(tmp_path: Path) -> None:
    experiment = innerloop.Experiment("maml", "sinusoid", steps=2)
    learner = experiment.train(tmp_path / "run")
    report = innerloop.Experiment.load(tmp_path / "run").test(
        learner, innerloop.TestPlan(n=5)
    )
    assert report.tables[0].rows[0].values[0].name == "mse"


EVERY_META_GRADIENT = {
    "backprop": "np gp-curves --width 16",
    "reptile": "maml sinusoid --batch 2",
    "implicit": "imaml sinusoid --inner-steps 3 --batch 2",
    "es": "esmaml sinusoid --pairs 2 --ranked --batch 2",
    "cma-es": "lstm xor --hidden 3 --population 6 --batch 4",
    "neat": "neat xor --population 10 --batch 4",
    "ppo": "rl2 bandits --arms 2 --pulls 5 --hidden 8 --batch 8",
    "a2c": "rl2 bandits --arms 2 --pulls 5 --hidden 8 --batch 8",
    "policy-gradient": "maml navigation --horizon 5 --episodes 2 --uses 2 --batch 4",
}


def test_every_meta_gradient_is_resumed_below() -> None:
    assert set(EVERY_META_GRADIENT) == set(entries("meta-gradient"))


@pytest.mark.parametrize("name", EVERY_META_GRADIENT)
def test_a_training_closed_at_any_step_resumes_bit_for_bit(
    name: str, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = f"train {EVERY_META_GRADIENT[name]} --meta-gradient {name} --steps 6"
    assert cli(f"{command} --out", whole) == 0
    experiment = innerloop.Experiment.load(whole)
    for at in (1, 4, 5):
        events = experiment.train_events(parts, resume=at > 1)
        for event in events:
            if isinstance(event, Stepped) and event.step == at:
                events.close()
                break
        torch.rand(3)  # the state of torch's generator is part of the checkpoint
    assert cli(f"{command} --resume --out", parts) == 0
    assert same_weights(whole, parts)
    assert log_without_time(whole) == log_without_time(parts)


def test_a_killed_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli(f"{PROTO} --steps 40 --out", whole) == 0
    words = [*f"{PROTO} --steps 40 --out".split(), str(killed)]
    process = subprocess.Popen(
        [sys.executable, "-m", "innerloop", *words], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while (
        len(Run(killed).read_log()) < 3
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed / f".checkpoint.bin.{process.pid}.part").write_bytes(b"half a file")
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 39, "lo')
    assert cli(f"{PROTO} --steps 40 --resume --out", killed) == 0
    assert same_weights(whole, killed)
    assert [line["step"] for line in Run(killed).read_log()] == [
        line["step"] for line in Run(whole).read_log()
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly_and_the_run_resumes_bit_for_bit(
    number: signal.Signals, proto_run: Path, tmp_path: Path
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    words = [*f"{PROTO} --steps 60 --out".split(), str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "innerloop", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while (
        not (folder / "weights.safetensors").exists()
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "add --resume to continue" in " ".join(out.split())
    assert "Traceback" not in err
    stopped = Run(folder).load_checkpoint()["step"]
    assert 0 < stopped < 60
    if number == signal.SIGINT:
        assert cli(f"{PROTO} --steps 60 --resume --out", folder) == 0
        assert cli(f"{PROTO} --steps 60 --out", whole) == 0
        assert same_weights(whole, folder)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path, fails: Fails) -> None:
    run = Run(tmp_path / "run")
    with run.locked():
        message = fails(f"{PROTO} --steps 2 --out", run.folder)
        assert "is being trained by another process" in message
    assert cli(f"{PROTO} --steps 2 --out", run.folder) == 0
    assert "holds a run already" in fails(f"{PROTO} --steps 2 --out", run.folder)
    with run.locked():
        message = fails(f"{PROTO} --steps 4 --resume --out", run.folder)
        assert "is being trained by another process" in message


def test_two_processes_that_start_at_once(tmp_path: Path) -> None:
    words = [*f"{PROTO} --steps 20 --out".split(), str(tmp_path / "run")]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "innerloop", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert any("another process" in e or "holds a run already" in e for e in errors)


def test_resuming_may_change_the_length_and_nothing_else(
    tmp_path: Path, fails: Fails
) -> None:
    folder = tmp_path / "run"
    assert cli(f"{PROTO} --steps 2 --out", folder) == 0
    for changed in ("--lr 5", "--metric cosine", "--ways 4", "--seed 7"):
        message = fails(f"{PROTO} --resume {changed} --out", folder)
        name, value = changed[2:].split()
        assert f"{name} {value}" in message
        assert "cannot change" in message
    message = fails("train maml strokes --ways 3 --resume --out", folder)
    assert "cannot change" in message
    assert cli(f"{PROTO} --resume --minutes 0.01 --out", folder) == 0
    assert innerloop.Experiment.load(folder).minutes == 0.01
    assert cli(f"{PROTO} --resume --steps 9 --out", folder) == 0
    experiment = innerloop.Experiment.load(folder)
    assert (experiment.steps, experiment.minutes) == (9, None)


def test_a_run_of_another_machine_resumes_on_the_device_that_is_named(
    tmp_path: Path, fails: Fails
) -> None:
    folder = tmp_path / "run"
    assert cli(f"{PROTO} --steps 2 --out", folder) == 0
    experiment = innerloop.Experiment.load(folder)
    there = dataclasses.replace(experiment, device="cuda:99")
    Run(folder).write_experiment(there.as_dict())
    assert "no device 'cuda:99'" in fails(f"{PROTO} --resume --steps 3 --out", folder)
    assert cli(f"{PROTO} --resume --steps 3 --device cpu --out", folder) == 0
    assert innerloop.Experiment.load(folder).device == "cpu"


def test_a_training_stopped_on_its_last_step_is_finished_by_resuming(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    assert cli(f"{PROTO} --steps 3 --out", folder) == 0
    expected = Run(folder).load_weights()
    Run(folder).truncate_log(2)
    assert cli(f"{PROTO} --steps 3 --resume --out", folder) == 0
    found = Run(folder).load_weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert Run(folder).read_log()[-1]["step"] == 3


def test_resuming_a_run_without_checkpoint_starts_it(
    tmp_path: Path, fails: Fails
) -> None:
    folder = tmp_path / "run"
    assert cli(f"{PROTO} --steps 2 --out", folder) == 0
    (folder / "checkpoint.bin").unlink()
    assert cli(f"{PROTO} --steps 2 --resume --out", folder) == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "log.jsonl").write_text("mine\n")
    assert "holds a log.jsonl" in fails(f"{PROTO} --steps 2 --out", foreign)
    assert (foreign / "log.jsonl").read_text() == "mine\n"


def test_a_run_starts_from_the_networks_of_another(
    tmp_path: Path, fails: Fails
) -> None:
    before = tmp_path / "before"
    assert cli("train finetune strokes --steps 2 --batch 4 --out", before) == 0
    after = tmp_path / "after"
    line = "train maml strokes --ways 3 --queries 2 --batch 1 --steps 1 --lr 1e-9 --out"
    assert cli(line, after, "--init-from", before) == 0
    stored = {n.removeprefix("net."): t for n, t in Run(after).load_weights().items()}
    weights = Run(before).load_weights()
    shared = [name for name in weights if name.startswith("encoder.")]
    assert shared
    for name in shared:
        if "mean" not in name and "var" not in name:
            torch.testing.assert_close(stored[name], weights[name], atol=1e-6, rtol=0)
    assert innerloop.Experiment.load(after).init_from == str(before)
    message = fails("train l2o quadratics --steps 1 --init-from", before, "--out", "x")
    assert "shares no network with L2O" in message


def test_a_network_fits_whole_or_is_refused(
    tmp_path: Path, pictures: Path, fails: Fails
) -> None:
    gray, color = tmp_path / "gray", tmp_path / "color"
    line = "train protonet folder --ways 3 --queries 2 --encoder conv4 --steps 1"
    line = f"{line} --root {pictures}"
    assert cli(f"{line} --channels 1 --out", gray) == 0
    message = fails(f"{line} --channels 3 --init-from", gray, "--out", color)
    assert "channels 3 does not fit the networks of the run" in message
    assert not color.exists()


def test_networks_are_copied_whole_or_not_at_all() -> None:
    def built(channels: int) -> innerloop.ProtoNet:
        spec = innerloop.TaskSpec("classes", (channels, 28, 28), 5)
        return innerloop.ProtoNet.build(spec, encoder="conv4")

    source, other = built(1), built(3)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(RunError, match="the network encoder of a run does not fit"):
        copy_networks(other, source, "a run")
    assert all(torch.equal(before[n], t) for n, t in other.state_dict().items())
    fitting = built(1)
    assert copy_networks(fitting, source, "a run") == ["encoder"]
    stored = source.encoder.state_dict()
    copied = fitting.encoder.state_dict()
    assert all(torch.equal(copied[name], stored[name]) for name in stored)


def test_copied_networks_may_have_a_learning_rate_of_their_own(
    tmp_path: Path,
) -> None:
    sizes = "strokes --encoder conv4 --ways 2 --queries 1 --steps 1"
    assert cli(f"train protonet {sizes} --out", tmp_path / "a") == 0
    source = innerloop.load(tmp_path / "a")

    def moves(line: str) -> bool:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert cli(f"train {line} --init-from", tmp_path / "a", "--out", out) == 0
        own = dict(innerloop.load(out).named_parameters())
        copied = {n: p for n, p in source.named_parameters() if n in own}
        assert copied
        return any(not torch.equal(own[n], p) for n, p in copied.items())

    line = "versa strokes --encoder conv4 --ways 2 --queries 2 --batch 1 --steps 2"
    assert moves(line)
    assert not moves(f"{line} --pretrained-lr 0")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train protonett strokes", "did you mean 'protonet'"),
        ("train protonet stroke", "did you mean 'strokes'"),
        ("train protonet clink", "did you mean 'clinc'"),
        ("train protonet sinusoid", "predicts classes"),
        ("train protonet strokes --metrc cosine", "did you mean '--metric'"),
        (
            "train protonet strokes --metric cosin",
            "did you mean 'cosine'",
        ),
        ("train protonet strokes --protocol lake", "there is no option --protocol"),
        ("train protonet strokes --ways 0", "ways must be at least 2"),
        ("train protonet strokes --encoder conv5", "'conv5'"),
        ("train protonet folder", "folder needs --root"),
        ("train protonet folder --root nowhere", "there is no folder"),
        ("train protonet strokes --device gpu", "no device 'gpu'"),
        ("train protonet strokes --device meta", "meta"),
        ("train protonet strokes --optimizer Adamm", "optimizer must name"),
        ("train protonet strokes --optimizer LBFGS", "optimizer must name"),
        ("train protonet strokes --lr nan", "lr must be greater than 0"),
        ("train protonet strokes --clip -1", "clip must be greater than 0"),
        ("train protonet strokes --warmup -3", "warmup must be at least 0"),
        ("train protonet strokes --minutes inf", "minutes"),
        ("train protonet strokes --minutes nan", "'nan' is not a finite number"),
        ("train protonet strokes --seed 99999999999999999999", "is not in the range"),
        ("train maml sinusoid --batch 100000000000", "not enough memory"),
        (f"train lstm copy --layers {10**20}", "layers must be less than 2^63"),
        ("train protonet arrays --file none.csv", "there is no file"),
        ("train maml sinusoid --inner-lr -1", "inner_lr must be"),
        ("train maml sinusoid --inner-lr nan", "inner_lr must be"),
        ("train tripletnet strokes --margin inf", "margin must be"),
        ("train protonet strokes --p nan", "p must be"),
        ("train maml sinusoid --pairs 3", "there is no option --pairs"),
        ("train maml sinusoid --meta-gradient cma-es --lr 0.1", "--lr does not apply"),
        ("train maml sinusoid --meta-gradient neat", "it needs a NEATLearner"),
        ("train maml sinusoid --meta-gradient es --sigma 0", "sigma must be greater"),
        ("train neat bandits --meta-gradient backprop", "these tasks are environments"),
        ("train cnp bandits", "meta-gradient can train CNP"),
        ("train maml sinusoid --meta-gradient ppo", "it needs a Streaming"),
        ("train incontext copy", "these tasks are sequences: try NTM, MANN or LSTM"),
        ("train lstm copy --layers 0", "layers must be at least 1"),
        ("train np gp-curves --samples 0", "samples must be at least 1"),
        ("train ntm copy --repeats 3", "there is no option --repeats"),
        ("train protonet strokes --steps 1 --minutes 1", "steps or minutes"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_no_folder(
    line: str, words: str, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = "" if "--steps" in line or "--minutes" in line else " --steps 1"
    assert words in fails(f"{line}{steps} --out run")
    assert not (tmp_path / "run").exists()


def test_a_preset_is_the_learner_with_its_options(tmp_path: Path) -> None:
    assert cli("train fomaml sinusoid --steps 1 --out", tmp_path / "fomaml") == 0
    experiment = innerloop.Experiment.load(tmp_path / "fomaml")
    assert experiment.learner.name == "maml"
    assert experiment.learner.options["first_order"] is True
    assert cli("train Reptile sinusoid --steps 1 --out", tmp_path / "reptile") == 0
    experiment = innerloop.Experiment.load(tmp_path / "reptile")
    assert experiment.meta_gradient is not None
    assert experiment.meta_gradient.name == "reptile"
    line = "train reptile sinusoid --steps 2 --resume --out"
    assert cli(line, tmp_path / "reptile") == 0


def test_a_folder_of_images_is_resumed_by_another_spelling_of_its_path(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    line = "train ProtoNet folder --ways 3 --queries 2 --encoder conv4 --size 16"
    assert cli(f"{line} --root {pictures.name} --steps 1 --out", tmp_path / "run") == 0
    line = f"{line} --root {pictures} --steps 2 --resume --out"
    assert cli(line, tmp_path / "run") == 0


@pytest.mark.parametrize(("name", "ways"), [("protonet", 20), ("maml", 25)])
def test_validation_tasks_have_5_queries_and_at_most_20_ways(
    name: str, ways: int
) -> None:
    tasks = innerloop.Choice("strokes", {"ways": 25, "shots": 1})
    _, setup = innerloop.Experiment(name, tasks, steps=1).resolve()
    held_out = setup.validation
    assert held_out is not None
    assert held_out.spec.y_dim == ways  # MAML answers for its own 25 ways alone
    generator = torch.Generator().manual_seed(0)
    assert held_out.sample(1, generator).query.x.shape[1] == 5 * ways


def test_an_experiment_is_tested_before_it_is_resolved() -> None:
    experiment = innerloop.Experiment("protonet", "strokes")
    learner = experiment.build_learner()
    plan = innerloop.TestPlan(n=2)
    report = experiment.test(learner, plan, ways=3, shots=1, queries=2)
    assert report.tables[0].rows[0].labels["ways"] == 3


def test_starting_is_quick_because_torch_is_not_imported() -> None:
    code = (
        "import sys, innerloop.cli as c; c.main(['--help']); c.main(['test', "
        "'nowhere']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == 0


def test_no_flag_of_a_learner_is_required() -> None:
    """Sizes that the tasks decide are no options."""
    for entry in entries("learner").values():
        for option in entry.options.values():
            assert option.default is not MISSING, (entry.name, option.name)


def test_the_arithmetic_is_chosen_on_the_machine_that_computes(
    proto_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = innerloop.Experiment.load(proto_run)
    assert experiment.precision == "auto"  # nothing of the machine is stored
    learner = innerloop.load(proto_run)
    for fast, chosen in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(
            "innerloop.experiment.fast_bf16", lambda device, fast=fast: fast
        )
        assert experiment.settled_precision(learner) == chosen


def test_a_training_by_the_clock_says_how_many_steps_it_will_make(
    tmp_path: Path,
) -> None:
    experiment = innerloop.Experiment("maml", "sinusoid", minutes=60)
    events = experiment.train_events(tmp_path / "run")
    expected = {}
    for event in events:
        if isinstance(event, Stepped):
            expected[event.step] = event.expected_steps
            if event.step == 12:
                events.close()
    assert expected[5] is None
    assert (expected[12] or 0) > 12


def test_validation_says_what_it_is_of_and_when_it_was_best(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = iter([0.5, 0.9, *[0.4] * 8])
    monkeypatch.setattr(
        "innerloop.training.score_of",
        lambda learner, tasks, plan: Measurement("accuracy", next(values), 0.01),
    )
    assert cli(f"{PROTO} --steps 10 --out", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "validation is on 50 3-way 1-shot tasks with 5 queries" in printed
    assert "validation was best at step 2 of 10" in printed


def test_why_a_run_is_not_validated_and_cannot_be_tested_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "texts.csv", tmp_path / "run"
    file.write_text("text\npay my bill\nwhat is new\ncall me back\n")
    assert cli("train finetune cloze --steps 1 --file", file, "--out", run) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not validated: cloze has only the split train, got 'val'" in said
    assert "to test it, choose other options: cloze has only the split train" in said
    assert "test it with" not in said
    assert cli(f"{PROTO} --steps 1 --out", tmp_path / "proto") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "test it with: innerloop test" in said
    assert "not validated" not in said


def test_training_with_more_ways_than_other_splits_have_is_validated_and_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "images", tmp_path / "run"
    for c in range(50):
        (root / f"{c}").mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), 5 * c + i).save(root / f"{c}" / f"{i}.png")
    line = "train protonet folder --ways 25 --queries 2 --encoder conv4 --steps 1"
    assert cli(f"{line} --size 8 --root", root, "--out", run) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "validation is on 50 8-way 1-shot tasks with 2 queries" in said
    assert "test it with: innerloop test" in said
    assert cli("test --tasks 2", run) == 0
    assert "accuracy" in capsys.readouterr().out
