"""What a sweep varies is read from words, and each mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from innerloop import Experiment
from innerloop.assembly import Choice
from innerloop.engine.errors import InnerloopError
from innerloop.sweep import Axis, SweepPlan, applied
from innerloop.sweep.space import absolute

MAML = Experiment("maml", "sinusoid", steps=3)  # pyright: ignore[reportArgumentType]


def plan(*over: str, experiment: Experiment = MAML, **options: object) -> SweepPlan:
    axes = tuple(Axis.parse(text, experiment) for text in over)
    return SweepPlan(experiment, axes, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("learner.inner_lr=0.1,1", Axis("learner.inner_lr", (0.1, 1.0))),
        ("learner.first_order=yes,no", Axis("learner.first_order", (True, False))),
        ("training.optimizer=Adam,SGD", Axis("training.optimizer", ("Adam", "SGD"))),
        ("training.lr=1e-4..1e-2", Axis("training.lr", (1e-4, 1e-2), "linear")),
        ("training.lr=.001..1:log", Axis("training.lr", (0.001, 1.0), "log")),
        ("learner.inner_steps=1..5", Axis("learner.inner_steps", (1, 5), "linear")),
        ("seed=0,1", Axis("seed", (0, 1))),
    ],
)
def test_values_have_the_type_of_their_option(text: str, axis: Axis) -> None:
    assert Axis.parse(text, MAML) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learner.inner_lr", "varies options as in"),
        ("inner_lr=0.1", "an experiment has no option 'inner_lr'"),
        ("net.width=1", "write learner.NAME"),
        ("learner.inner_rate=1", "did you mean"),
        ("learner.inner_lr=fast", "must be a number"),
        ("learner.inner_lr=-1", "at least 0"),
        ("learner.first_order=maybe", "yes or no"),
        ("learner.inner_lr=1..0.1", "the smaller one first"),
        ("training.optimizer=Adam..SGD", "two numbers"),
        ("learner.inner_steps=0..5:log", "above 0"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InnerloopError, match=message):
        Axis.parse(text, MAML)


def test_values_replace_options_of_the_experiment() -> None:
    es = Experiment("es-maml", "sinusoid")  # pyright: ignore[reportArgumentType]
    changed = applied(
        es,
        {
            "learner.inner_lr": 0.2,
            "tasks.shots": 3,
            "training.lr": 0.5,
            "meta_gradient.pairs": 4,
            "seed": 7,
        },
    )
    assert changed.learner == Choice("es-maml", {"inner_lr": 0.2})
    assert changed.tasks == Choice("sinusoid", {"shots": 3})
    assert (changed.training, changed.seed) == ({"lr": 0.5}, 7)
    assert changed.meta_gradient == Choice("es", {"pairs": 4})


def test_a_plan_survives_json() -> None:
    there = plan("learner.inner_lr=0.1..1:log", "seed=0,1", trials=5, search="tpe")
    assert SweepPlan.from_dict(json.loads(json.dumps(there.as_dict()))) == there


def test_the_number_of_trials() -> None:
    assert plan("learner.inner_lr=0.1,1", "seed=0,1,2").count == 6
    sampled = plan("learner.inner_lr=0.1,1", trials=5)
    assert (sampled.count, sampled.search) == (5, "random")
    with pytest.raises(InnerloopError, match="no end of values"):
        plan("learner.inner_lr=0.1..1")
    with pytest.raises(InnerloopError, match="varied twice"):
        plan("seed=0,1", "seed=2")
    with pytest.raises(InnerloopError, match="needs the number of trials"):
        plan("seed=0,1", search="tpe")
    with pytest.raises(InnerloopError, match="has 2 trainings, not 3"):
        plan("seed=0,1", trials=3, search="grid")


def test_scores_must_be_comparable() -> None:
    plan("learner.inner_lr=0.1,1").check()
    with pytest.raises(InnerloopError, match="validated on other tasks"):
        plan("tasks.shots=2,3").check()
    strokes = Experiment("protonet", "strokes", steps=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InnerloopError, match="validated on other tasks"):
        plan("training.lr=0.1,1", "tasks.ways=3,4", experiment=strokes).check()


def test_paths_hold_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    axis = Axis.parse("learner.net=../nets.py:A,conv4", MAML)
    assert axis.values == ("../nets.py:A", "conv4")
    assert absolute(axis, MAML).values == (f"{tmp_path}/nets.py:A", "conv4")
    for text in ("learner.inner_lr=0.1,1", "training.lr=1e-4..1e-2", "seed=0,1"):
        same = Axis.parse(text, MAML)
        assert absolute(same, MAML) == same
