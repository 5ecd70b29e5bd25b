"""What learners declare about themselves: options with ranges and descriptions, paper
presets, specs and references.
"""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from innerloop.core.learner import Learner
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import options
from innerloop.learners import LEARNERS
from innerloop.learners.metric import ProtoNet, SiameseNet
from innerloop.learners.optimization import MAML, PromptTuning
from innerloop.learners.transfer import Scratch
from innerloop.metagrad import META_GRADIENTS, Reptile, meta_train
from innerloop.registry import PRESETS
from innerloop.testing import Blobs

EVERY = pytest.mark.parametrize("cls", LEARNERS.values())
CHECKED = [*LEARNERS.values()]
NUMBERS = [
    (cls, name)
    for cls in CHECKED
    for name, option in options(cls).items()
    if option.range is not None
]
NAME = r"(?:(?:de|van|von|der|den) )*[A-ZÁÉÍÓÚ][\w'-]+(?: [A-ZÁÉÍÓÚ][\w'-]+)?"
REFERENCE = re.compile(
    rf'^Reference: {NAME}(?:, {NAME})*(?: and {NAME})? (?:19|20)\d\d, "[^"]+", '
    r"(?:arXiv:\d{4}\.\d{4,5}|[A-Z]\w*)\b",
    re.MULTILINE,
)


def rebuilt(learner: Learner, **changes: object) -> Learner:
    """The same learner from its constructor, with other fields."""
    fields = {field.name: getattr(learner, field.name) for field in learner.fields()}
    return type(learner)(**{**fields, **changes})


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_numbers_out_of_range_are_refused(cls: type[Learner], name: str) -> None:
    option, spec = options(cls)[name], cls.specs()[0]
    assert option.range is not None
    bad: list[float] = [-1]
    if option.type is float:
        bad = [-1.0, math.inf, -math.inf, math.nan]
    if option.range.open_low:
        bad.append(0.0)
    learner = cls.build(spec)
    for value in bad:
        if option.range.holds(value):
            continue
        message = f"^{name} of {cls.__name__} must be {re.escape(str(option.range))}"
        with pytest.raises(InnerloopError, match=message):
            cls.build(spec, **{name: value})
        with pytest.raises(InnerloopError, match=message):
            rebuilt(learner, **{name: value})


def test_zero_is_allowed_where_it_makes_sense() -> None:
    spec = TaskSpec("classes", (4,), 3)
    assert MAML.build(spec, inner_lr=0.0, inner_steps=0).inner_lr == 0
    with pytest.raises(InnerloopError, match="greater than 0"):
        SiameseNet.build(spec, margin=0.0)


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        *((cls, {}) for cls in CHECKED if "inner_steps" in options(cls)),
        *((LEARNERS[p.learner], p.fields) for p in PRESETS.values() if p.fields),
    ],
)
def test_learners_meta_train_without_inner_steps_or_refuse(
    cls: type[Learner], fields: dict[str, Any]
) -> None:
    spec = TaskSpec("classes", (6,), 3, vocabulary=9 if cls is PromptTuning else 0)
    torch.manual_seed(0)
    steps = options(cls)["inner_steps"].range
    if steps is None or not steps.holds(0):
        with pytest.raises(
            InnerloopError, match=r"inner_steps of \w+ must be at least"
        ):
            cls.build(spec, **fields, inner_steps=0)
        return
    learner = cls.build(spec, **fields, inner_steps=0)
    before = [p.detach().clone() for p in learner.parameters() if p.requires_grad]
    if not before:
        assert cls is Scratch
        return
    gradient = META_GRADIENTS[cls.defaults.meta_gradient]()
    for _ in meta_train(learner, Blobs(spec), steps=1, batch=2, meta_gradient=gradient):
        pass
    after = [p for p in learner.parameters() if p.requires_grad]
    pairs = zip(before, after, strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)


def test_reptile_refuses_a_learner_without_inner_steps() -> None:
    spec = TaskSpec("classes", (6,), 3)
    learner = MAML.build(spec, inner_steps=0)
    with pytest.raises(InnerloopError, match="inner_steps of MAML must be at least 1"):
        next(meta_train(learner, Blobs(spec), steps=1, meta_gradient=Reptile()))


@pytest.mark.parametrize("cls", CHECKED)
def test_every_field_is_described(cls: type[Learner]) -> None:
    missing = [name for name, option in options(cls).items() if not option.help]
    assert not missing


@pytest.mark.parametrize("cls", CHECKED)
def test_references_name_all_authors_a_title_and_a_venue(cls: type[Learner]) -> None:
    paragraphs = [
        " ".join(paragraph.split()) for paragraph in (cls.__doc__ or "").split("\n\n")
    ]
    assert sum(bool(REFERENCE.search(paragraph)) for paragraph in paragraphs) == 1
    assert re.match(r"[\w /+-]+: ", paragraphs[0])


@EVERY
def test_paper_presets_are_valid_and_differ_from_the_defaults(
    cls: type[Learner],
) -> None:
    paper = cls.paper()
    assert set(paper) <= {"fields", "config"}
    config = replace(cls.defaults, **paper.get("config", {}))
    fields = paper.get("fields", {})
    if fields:
        cls.build(cls.specs()[0], **fields)
    for name in paper.get("config", {}):
        assert getattr(config, name) != getattr(cls.defaults, name), name
    for name, value in fields.items():
        assert value != options(cls)[name].default, name
    if paper:
        text = " ".join((cls.__doc__ or "").split())
        assert "Defaults differ from the paper" in text


@EVERY
def test_learners_can_be_built_for_their_specs(cls: type[Learner]) -> None:
    specs = cls.specs()
    assert {spec.kind for spec in specs} == set(cls.kinds)
    for spec in specs:
        assert not cls.build(spec).training


@pytest.mark.parametrize("cls", CHECKED)
def test_networks_that_do_not_exist_are_refused(cls: type[Learner]) -> None:
    for name in cls.network_fields():
        named = name in cls.named_networks
        message = "there is no network 'rubbish'" if named else f"takes {name} as a mod"
        with pytest.raises(
            InnerloopError if named else InnerloopTypeError, match=message
        ):
            cls.build(cls.specs()[0], **{name: "rubbish"})
        with pytest.raises(InnerloopTypeError, match=f"takes {name} as a module"):
            cls.build(cls.specs()[0], **{name: 3})


def test_a_network_that_was_passed_is_used() -> None:
    body = nn.Flatten()
    assert ProtoNet.build(ProtoNet.specs()[0], encoder=body).encoder is body
