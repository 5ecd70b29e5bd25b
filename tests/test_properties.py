"""Every check of every learner, on vectors and on images."""

import time

import pytest
import torch
from torch import Tensor, nn

from innerloop import testing
from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners import LEARNERS
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.testing import CHECKS, PACKAGE_CHECKS, check_learner

SPECS = {
    "vectors": TaskSpec("classes", (6,), 3),
    "images": TaskSpec("classes", (1, 12, 12), 3),
    "reals": TaskSpec("reals", (2,), 1),
    "texts": TaskSpec("classes", (5,), 3, vocabulary=12),
    "bits": TaskSpec("bits", (3,), 2),
    "sequences": TaskSpec("bits", (3,), 2, ordered=True),
    "maps": TaskSpec("maps", (1, 16, 16), 5 * 16 * 16),
    "tokens": TaskSpec("tokens", (3,), 4, vocabulary=7),
}
VARIANTS: dict[str, list[dict[str, object]]] = {
    "maml": [
        {},
        {"first_order": True},
        {"adapted": "head"},
        {"head": "prototype"},
        {"transductive": True},
        {"inner_steps": 3, "inner_lr": 0.05},
        {"loss_before": 0.5},
        {"multi_step": 0.5, "second_order_after": 0.5, "inner_steps": 2},
    ],
    "matchingnet": [{}, {"contextual": True}],
    "protonet": [
        {},
        {"metric": "cosine", "scale": 10.0},
        {"metric": "p-norm", "p": 1.5},
        {"views": 8},
        {"center": "median"},
        {"center": "weighted"},
    ],
    "ntm": [{}, {"controller": "feedforward", "readers": 2, "writers": 2}],
    "l2o": [
        {"inner_steps": 3},
        {"inner_steps": 3, "first_order": False},
        {"inner_steps": 3, "rule": "mlp", "minibatch": 2},
        {"inner_steps": 3, "rule": "star", "first_order": False},
    ],
    "mlc": [{"width": 16, "heads": 2, "decoder_layers": 2}],
    "metaseq2seq": [{"width": 12}, {"width": 12, "layers": 2, "memory": False}],
    "cavia": [{}, {"first_order": True}],
    "metasgd": [{}, {"rates": "tensor", "inner_steps": 2}],
    "metalstm": [{}, {"first_order": False, "inner_steps": 2}],
    "esmaml": [{}, {"inner_rule": "hill-climbing", "inner_steps": 2}],
    "finetune": [{}, {"head": "cosine"}, {"adapted": "last"}, {"adapted": "all"}],
    "siameseunet": [{"filters": 4}],
    "slidingprotonet": [{"encoder": "mlp", "sizes": 2, "stride": 8}],
    "activelearner": [{"labels": 3}, {"labels": 3, "strategy": "margin"}],
    "oml": [{"inner_lr": 0.5}],
    "pearl": [{}, {"latent": 0}],
    "prompttuning": [{}, {"start": "words"}],
    "probe": [
        {},
        {"head": "mean"},
        {"head": "ridge"},
        {"head": "logistic"},
        {"head": "mahalanobis"},
        {"transductive": True},
        {"encoder": "mlp"},
        {"encoder": "mlp", "head": "mahalanobis"},
    ],
}


READS = {name: [*SPECS] for name in ("protonet", "maml", "finetune", "pmf")} | {
    "prompttuning": ["texts"],
    "": [s for s in SPECS if s not in ("texts", "maps")],
}
READS |= {name: ["maps"] for name in ("siameseunet", "slidingprotonet")}
READS |= {"robustfill": [], "deepcoder": []}  # on tasks of their own, in tests/learners


def small_network() -> nn.Module:
    """For learners that take long with the usual network for images."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)
    )


def built(learner: type[Learner], fields: dict[str, object], spec: str) -> Learner:
    torch.manual_seed(0)
    if getattr(learner, "inner_steps", 0) >= 20:  # by default
        fields = {"inner_steps": 5, **fields}
    if spec == "images" and learner.__name__ == "MetaLSTM":  # an LSTM for every weight
        fields = {**fields, "net": small_network()}
    return learner.build(SPECS[spec], **fields)


def cases() -> list[tuple[type[Learner], dict[str, object], str]]:
    found = []
    for name, learner in LEARNERS.items():
        for fields in VARIANTS.get(name, [{}]):
            for spec_name, spec in SPECS.items():
                if spec_name not in READS.get(name, READS[""]) or (
                    spec_name == "texts" and fields and name != "prompttuning"
                ):
                    continue
                fits = (
                    spec.kind in learner.kinds
                    and spec.ordered <= learner.sequences
                    and not (spec.kind == "reals" and "head" in fields)
                )
                for_images = not fields or not {
                    "transductive",
                    "head",
                    "views",
                }.isdisjoint(fields)
                if fits and (
                    for_images if spec_name == "images" else "views" not in fields
                ):
                    found.append((learner, fields, spec_name))
    return found


# gradients are recorded in one case of each learner: it takes longer than the checks
RECORDED = list({learner: case for learner, *case in reversed(cases())}.items())


@pytest.mark.parametrize("check", CHECKS | PACKAGE_CHECKS)
@pytest.mark.parametrize(
    ("learner", "fields", "spec"),
    cases(),
    ids=lambda v: v.__name__ if isinstance(v, type) else str(v).replace(" ", ""),
)
def test_check(
    learner: type[Learner],
    fields: dict[str, object],
    spec: str,
    check: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (learner, [fields, spec]) not in RECORDED:
        monkeypatch.setenv("INNERLOOP_GRAPH_CACHE", "0")
    check_learner(built(learner, fields, spec), SPECS[spec], checks=[check])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "fields", "spec"),
    cases(),
    ids=lambda v: v.__name__ if isinstance(v, type) else str(v).replace(" ", ""),
)
def test_eight_threads_agree_for_a_long_time(
    learner: type[Learner],
    fields: dict[str, object],
    spec: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(testing, "CALLS", 200)
    check_learner(built(learner, fields, spec), SPECS[spec], checks=["threads_agree"])


class Faulty(Streaming):
    """Class means in a metric space, that fail one check."""

    fault: str = ""
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(meta_gradient="backprop")
    fixed_ways = False

    def __post_init__(self) -> None:
        self.w = nn.Parameter(torch.eye(6))
        self.kept: Tensor | None = None
        super().__post_init__()

    def init(self) -> Tensor:
        return torch.zeros(3, 6)

    def observe(self, state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return state + y[:, None] * (x @ self.w)

    def scan(self, examples: Examples) -> tuple[Tensor, Tensor]:
        state, outputs = super().scan(examples)
        return state + (self.fault == "scanning_is_observing"), outputs

    def adapt(self, support: Examples) -> Tensor:
        if self.fault == "adapt_changes_nothing":
            self.w.data.add_(1e-3)
        state = super().adapt(support)
        if self.fault == "labels_are_symbols":
            state = state * torch.arange(1.0, 4.0)[:, None]
        if self.fault == "threads_agree":  # a side effect that other threads see
            self.kept = state
            time.sleep(1e-4)
            state = self.kept
        return state

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        outputs = -(x[:, None] @ self.w - state / 2).square().sum(-1)
        if self.fault == "shape_follows_spec":
            return outputs[:, :2]
        if self.fault == "images_stand_alone":
            return outputs - outputs.mean(0)
        if self.fault == "works_without_gradients" and torch.is_grad_enabled():
            return outputs + 1
        if self.fault == "gradient_is_right":
            return outputs + x @ self.w.detach()[:, :3]
        if self.fault == "survives_copying":
            return outputs + id(self) % 97
        return outputs

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(task)
        if self.fault == "same_seed_same_result":
            loss = loss * time.perf_counter()
        if self.fault == "training_lowers_the_loss":
            loss = 0 * loss + 1
        return loss, metrics

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        loss, metrics = super().forward(tasks)
        return loss + (self.fault == "mapped_is_looped"), metrics


class Ordered(Learner):
    """Class means in which earlier examples count more."""

    likelihood: Likelihood = Categorical()

    def adapt(self, support: Examples) -> Tensor:
        weight = 0.5 ** torch.arange(len(support.y))
        return (weight * support.y.T) @ support.x

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ state.T


@pytest.mark.parametrize("check", CHECKS | PACKAGE_CHECKS)
def test_every_check_can_fail(check: str) -> None:
    spec, good = SPECS["vectors"], Faulty()
    bad = Ordered() if check == "support_order_is_free" else Faulty(fault=check)
    if check not in PACKAGE_CHECKS:
        check_learner(good, spec, checks=[check])
    with pytest.raises(AssertionError, match=f"{type(bad).__name__} fails a check"):
        check_learner(bad, spec, checks=[check])


def test_every_broken_law_is_reported() -> None:
    class Broken(ProtoNet):
        def predict(self, state: object, x: Tensor) -> Tensor:
            raise KeyError("nothing")

    with pytest.raises(AssertionError) as error:
        check_learner(Broken.build(SPECS["vectors"]), SPECS["vectors"])
    message = str(error.value)
    assert message.startswith("Broken fails 8 checks\n")
    assert "'shape_follows_spec': KeyError" in message
    assert "'threads_agree': KeyError" in message
    assert "cites_its_paper" not in message


def test_an_unknown_law_is_an_error() -> None:
    learner = ProtoNet.build(SPECS["vectors"])
    with pytest.raises(InnerloopError, match="no check 'missing'"):
        check_learner(learner, SPECS["vectors"], checks=["missing"])
