"""Every learner is exported, registered, reachable and cited."""

import inspect
import math
import pkgutil
import re
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

import innerloop
from innerloop import Gaussian, Learner, TaskSpec
from innerloop.learners import FAMILIES, LEARNERS, family_of
from innerloop.testing import Blobs

FOUND = {
    name: (family, cls)
    for family, package in FAMILIES.items()
    for module in pkgutil.iter_modules(package.__path__)
    for name, cls in inspect.getmembers(
        import_module(f"{package.__name__}.{module.name}"), inspect.isclass
    )
    if issubclass(cls, Learner)
    and not inspect.isabstract(cls)
    and cls.__module__ == f"{package.__name__}.{module.name}"
}
OF_PROGRAMS = {
    "RobustFill": TaskSpec("programs", (4,), 7, vocabulary=97),
    "DeepCoder": TaskSpec("programs", (24,), 24),
}
LEARNER = pytest.mark.parametrize("name", FOUND)


def test_families_are_the_folders() -> None:
    import innerloop.learners

    assert {name.replace(" ", "_").replace("-", "_") for name in FAMILIES} == {
        module.name
        for module in pkgutil.iter_modules(innerloop.learners.__path__)
        if module.ispkg
    }


def test_learners_are_found() -> None:
    assert {"MAML", "ProtoNet", "FineTune"} <= set(FOUND)


@LEARNER
def test_a_learner_is_exported_registered_and_reachable(name: str) -> None:
    family, cls = FOUND[name]
    assert name in FAMILIES[family].__all__
    assert LEARNERS[name.lower()] is cls
    assert getattr(innerloop, name) is cls
    assert name in innerloop.__all__
    assert family_of(cls) == family


def test_nothing_else_is_registered() -> None:
    assert set(LEARNERS) == {name.lower() for name in FOUND}


@LEARNER
def test_a_learner_cites_its_paper(name: str) -> None:
    assert re.search(
        r"arXiv:\d{4}\.\d{4,5}|\b(19|20)\d\d\b", FOUND[name][1].__doc__ or ""
    )


@LEARNER
def test_a_learner_is_final(name: str) -> None:
    cls = FOUND[name][1]
    assert not inspect.isabstract(cls)
    assert all(
        inspect.isabstract(base)
        for base in cls.__mro__[1:]
        if issubclass(base, Learner)
    )


@LEARNER
def test_a_learner_is_built_for_what_it_says_it_answers(name: str) -> None:
    cls = FOUND[name][1]
    for kind in ("classes", "reals"):
        spec = TaskSpec(kind, (4,), 3, vocabulary=9 if name == "PromptTuning" else 0)
        if name in OF_PROGRAMS:
            spec = replace(OF_PROGRAMS[name], kind=kind)
        if kind in cls.kinds:
            assert not cls.build(spec).training
        else:
            with pytest.raises(
                ValueError, match=f"{name} predicts {' and '.join(cls.kinds)}"
            ):
                cls.build(spec)


@pytest.mark.parametrize(
    "name", [name for name, (_, cls) in FOUND.items() if "reals" in cls.kinds]
)
def test_a_learner_of_reals_answers_as_its_likelihood_reads(name: str) -> None:
    spec, likelihood = TaskSpec("reals", (4,), 2), Gaussian(learned_scale=True)
    if name in ("MatchingNet", "R2D2"):
        with pytest.raises(ValueError, match="cannot read them"):
            FOUND[name][1].build(spec, likelihood=likelihood)
        return
    if name in OF_PROGRAMS:
        with pytest.raises(ValueError, match=r"as \w+-programs gives them"):
            FOUND[name][1].build(spec, likelihood=likelihood)
        return
    learner = FOUND[name][1].build(spec, likelihood=likelihood)
    task = Blobs(spec).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    assert learner.predict(learner.adapt(task.support), task.query.x).shape[
        1
    ] == likelihood.out_dim(2)


@LEARNER
def test_an_unknown_field_is_refused_with_a_guess(name: str) -> None:
    with pytest.raises(
        TypeError, match=f"{name} has no field 'likelihod': did you mean 'likelihood'"
    ):
        FOUND[name][1].build(TaskSpec("classes", (4,), 3), likelihod=None)


def given_nets() -> list[object]:
    cases = []
    for name, (_, cls) in FOUND.items():
        for field in (
            f.name
            for f in cls.fields()
            if f.name in ("encoder", "net", "relation", "base")
            and name not in ("PromptTuning", "SlidingProtoNet")
        ):
            for spec, shape in (("vectors", (4,)), ("images", (1, 8, 8))):
                cases.append(
                    pytest.param(cls, field, shape, id=f"{name}-{field}-{spec}")
                )
    return cases


@pytest.mark.parametrize(("cls", "field", "shape"), given_nets())
def test_a_network_that_is_given_is_used(
    cls: type[Learner], field: str, shape: tuple[int, ...]
) -> None:
    given = (
        nn.Linear(7, 3)
        if field == "base"
        else nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))
    )
    given.register_buffer("context", torch.zeros(2))  # which CAVIA adapts
    assert (
        getattr(cls.build(TaskSpec(cls.kinds[0], shape, 3), **{field: given}), field)
        is given
    )


def test_public_names_are_all_there() -> None:
    for name in innerloop.__all__:
        assert getattr(innerloop, name).__name__ == name


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ProtoNets'"):
        innerloop.ProtoNets  # noqa: B018
