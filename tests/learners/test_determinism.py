"""Learners draw from torch's global generator in training alone, as they document."""

import re

import pytest
import torch

from innerloop.core.learner import Learner
from innerloop.core.task import TaskSpec
from innerloop.learners import FAMILIES, LEARNERS
from innerloop.testing import Blobs

# the learners whose classes say that they draw while they train
DRAWS = {
    "CAML",
    "NP",
    "ANP",
    "Versa",
    "MetaGAN",
    "MetaVAE",
    "ActiveLearner",
    "FlowMatching",
    "PFN",
}
FOUND = [
    getattr(FAMILIES[family], name)
    for family in ("memory", "neural processes", "amortized", "generative", "active")
    for name in FAMILIES[family].__all__
]
EVERY = pytest.mark.parametrize("learner", FOUND, ids=lambda kind: kind.__name__)


def small(learner: type[Learner]) -> TaskSpec:
    if "tokens" in learner.kinds:
        return TaskSpec("tokens", (4,), 3, vocabulary=9)
    return TaskSpec("classes" if "classes" in learner.kinds else "reals", (4,), 3)


@EVERY
def test_nothing_is_drawn_in_evaluation_mode(learner: type[Learner]) -> None:
    spec = small(learner)
    built = learner.build(spec)
    task = Blobs(spec).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    before = torch.get_rng_state()
    first = built.predict(built.adapt(task.support), task.query.x)
    loss = built.loss(task)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1234)
    again = built.predict(built.adapt(task.support), task.query.x)
    assert torch.equal(first, again)
    assert torch.equal(built.loss(task)[0], loss)


@EVERY
def test_only_documented_learners_draw_in_training(learner: type[Learner]) -> None:
    spec = small(learner)
    built = learner.build(spec).train()
    task = Blobs(spec).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    before = torch.get_rng_state()
    built.loss(task)
    drew = not torch.equal(torch.get_rng_state(), before)
    assert drew == (learner.__name__ in DRAWS)
    text = re.sub(r"\s+", " ", learner.__doc__ or "")
    assert drew == ("global generator" in text)


@pytest.mark.parametrize("name", [*sorted(DRAWS), "RobustFill"])
def test_what_is_drawn_is_documented(name: str) -> None:
    text = re.sub(r"\s+", " ", LEARNERS[name.lower()].__doc__ or "")
    assert "torch's global generator" in text
    assert "training" in text
