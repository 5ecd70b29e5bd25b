"""Learners as programs that run without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from innerloop import (
    CNP,
    LSTM,
    MAML,
    R2D2,
    Examples,
    Learner,
    MatchingNet,
    MetaSGD,
    ProtoNet,
    RelationNet,
    TaskSpec,
)
from innerloop.engine.errors import InnerloopError
from innerloop.exporting import export
from innerloop.nets import Conv4, Headed

IMAGES = TaskSpec("classes", (1, 8, 8), 3)
VECTORS = TaskSpec("classes", (6,), 3)
CURVES = TaskSpec("reals", (1,), 1)


def conv() -> nn.Module:
    """Two small blocks, which are compiled on a CPU."""
    return Conv4(IMAGES.x_shape, filters=16, blocks=2, pooled=2)


def headed() -> nn.Module:
    return Headed(conv(), 64, 3)


class Mean(nn.Module):
    """Each input minus the mean of its numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(-1, keepdim=True)
        return x - mean


LEARNERS: dict[str, Any] = {
    "prototypes of images": lambda: ProtoNet.build(IMAGES, encoder=conv()),
    "gradient steps on images": lambda: MAML.build(
        IMAGES, net=headed(), inner_steps=2, first_order=True
    ),
    "prototypes": lambda: ProtoNet.build(VECTORS, encoder="mlp", metric="cosine"),
    "attention to the support set": lambda: MatchingNet.build(VECTORS, encoder="mlp"),
    "operations named as results": lambda: ProtoNet.build(VECTORS, encoder=Mean()),
    "a network that compares": lambda: RelationNet.build(VECTORS),
    "only the head adapts": lambda: MAML.build(VECTORS, net="mlp", adapted="head"),
    "a head from prototypes": lambda: MAML.build(VECTORS, net="mlp", head="prototype"),
    "learned step sizes": lambda: MetaSGD.build(VECTORS, net="mlp", inner_steps=2),
    "curves": lambda: MAML.build(CURVES, net="mlp"),
    "curves with deviations": lambda: CNP.build(CURVES),
}


def built(name: str) -> Learner:
    torch.manual_seed(0)
    return LEARNERS[name]().eval()


def support(learner: Learner, n: int, ways: int) -> Examples:
    spec = learner.spec
    assert spec is not None
    x = torch.rand(n, *spec.x_shape)
    if spec.kind == "reals":
        return Examples(x, torch.randn(n, spec.y_dim))
    labels = torch.arange(n) % ways
    return Examples(
        x + labels.view(-1, *[1] * len(spec.x_shape)), torch.eye(ways)[labels]
    )


def check(learner: Learner, run: Any, tolerance: float) -> None:
    """Compare a program with its learner: other numbers of examples and queries, and
    of classes where they are free.
    """
    for n, ways, m in ((4, 2, 1), (18, 6, 31)):
        ways = 3 if learner.fixed_ways else ways
        examples = support(learner, n, ways)
        x = support(learner, m, ways).x
        with torch.no_grad():
            outputs = learner.predict(learner.adapt(examples), x)
            mean = learner.likelihood.mean(outputs)
        found = run(examples, x)
        size = float(outputs.abs().max())
        assert found["outputs"] == pytest.approx(outputs.numpy(), abs=tolerance * size)
        assert found["mean"] == pytest.approx(
            mean.numpy(), abs=tolerance * max(size, 1)
        )


@pytest.mark.parametrize("name", LEARNERS)
def test_onnxruntime_has_the_results_of_the_learner(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    learner = built(name)
    export(learner, tmp_path)
    adapt, predict = (
        onnxruntime.InferenceSession(tmp_path / f"{part}.onnx")
        for part in ("adapt", "predict")
    )

    def run(examples: Examples, x: torch.Tensor) -> dict[str, np.ndarray]:
        state = adapt.run(None, {"x": examples.x.numpy(), "y": examples.y.numpy()})
        names = [given.name for given in predict.get_inputs()]
        found = predict.run(None, dict(zip(names, [*state, x.numpy()], strict=True)))
        return dict(zip([o.name for o in predict.get_outputs()], found, strict=True))

    check(learner, run, 1e-5)
    about = json.loads(adapt.get_modelmeta().custom_metadata_map["innerloop"])
    assert about["learner"] == type(learner).__name__
    assert [o.name for o in adapt.get_outputs()] == [s["name"] for s in about["state"]]


@pytest.mark.parametrize("name", ["prototypes", "gradient steps on images"])
def test_torch_alone_has_the_results_of_the_learner(name: str, tmp_path: Path) -> None:
    learner = built(name)
    done = export(learner, tmp_path, "torch")
    files: dict[str, Any] = {"innerloop": ""}
    adapt = torch.export.load(done.adapt, extra_files=files).module()
    predict = torch.export.load(done.predict).module()
    names = done.about["outputs"]

    def run(examples: Examples, x: torch.Tensor) -> dict[str, np.ndarray]:
        found = predict(*adapt(*examples), x)
        return {n: t.numpy() for n, t in zip(names, found, strict=True)}

    check(learner, run, 1e-5)
    assert json.loads(files["innerloop"])["program"] == "adapt"
    assert done.difference < 1e-5


def test_weights_that_do_not_adapt_are_no_part_of_the_state(tmp_path: Path) -> None:
    about = export(built("only the head adapts"), tmp_path, "torch").about
    assert [leaf["name"] for leaf in about["state"]] == [
        "state.head.weight",
        "state.head.bias",
    ]


class OneSize(ProtoNet):
    """A learner whose operations depend on the number of examples."""

    def adapt(self, support: Examples) -> torch.Tensor:
        shares = torch.full((len(support.x),), 1 / len(support.x))
        return super().adapt(support) + shares @ self.embed(support.x)


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        (lambda: R2D2.build(VECTORS), "R2D2 .* solves linear equations"),
        (lambda: LSTM.build(VECTORS, hidden=4), "LSTM .* one after the other"),
        (
            lambda: MatchingNet.build(VECTORS, contextual=True),
            "MatchingNet .* one after the other",
        ),
        (lambda: OneSize.build(VECTORS), "OneSize .* for one number of examples"),
        (lambda: ProtoNet(nn.Flatten()), r"build it by ProtoNet.build\(spec"),
    ],
)
def test_a_learner_that_cannot_be_exported_says_why(
    learner: Any, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InnerloopError, match=reason) as caught:
        export(learner(), tmp_path / "out", "torch")
    assert len(str(caught.value)) < 290
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("learned step sizes", 2, "this MetaSGD has 3 classes: .*; got 2"),
        ("curves", 1, "this MAML predicts reals: it has no labels"),
    ],
)
def test_labels_must_fit_the_learner(
    name: str, number: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InnerloopError, match=reason):
        export(built(name), tmp_path / "out", "torch", labels=["name"] * number)
    assert not (tmp_path / "out").exists()


class Counting(ProtoNet):
    """Predictions that depend on how many came before."""

    calls = 0

    def predict(self, state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.calls * super().predict(state, x)


def test_a_program_with_other_results_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InnerloopError, match="differ by"):
        export(Counting.build(VECTORS, encoder="mlp"), tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


def test_the_learner_stays_as_it_was(tmp_path: Path) -> None:
    learner = built("prototypes").train()
    export(learner, tmp_path, "torch")
    assert learner.training
