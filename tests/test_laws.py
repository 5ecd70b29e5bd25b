"""Every learner against every law, on vectors and on images."""

import pytest
import torch

from innerloop.core.learner import Learner
from innerloop.core.task import TaskSpec
from innerloop.learners import LEARNERS
from innerloop.testing import LAWS, PACKAGE_LAWS, check_learner

SPECS = {
    "vectors": TaskSpec("classes", (6,), 3),
    "images": TaskSpec("classes", (1, 12, 12), 3),
    "reals": TaskSpec("reals", (2,), 1),
    "texts": TaskSpec("classes", (5,), 3, vocabulary=12),
    "bits": TaskSpec("bits", (3,), 2),
    "sequences": TaskSpec("bits", (3,), 2, ordered=True),
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
    ],
    "ntm": [{}, {"controller": "feedforward", "readers": 2, "writers": 2}],
    "l2o": [
        {"inner_steps": 3},
        {"inner_steps": 3, "first_order": False},
        {"inner_steps": 3, "rule": "mlp", "first_order": False, "minibatch": 2},
    ],
    "cavia": [{}, {"first_order": True}],
    "metasgd": [{}, {"rates": "tensor", "inner_steps": 2}],
    "metalstm": [{}, {"first_order": False, "inner_steps": 2}],
    "esmaml": [{}, {"by": "climb", "inner_steps": 2}],
    "finetune": [{}, {"head": "cosine"}, {"adapted": "last"}, {"adapted": "all"}],
    "activelearner": [{"labels": 3}, {"labels": 3, "strategy": "margin"}],
    "oml": [{"inner_lr": 0.5}],
    "prompttuning": [{}, {"start": "words"}],
}


READS = {name: [*SPECS] for name in ("protonet", "maml", "finetune")} | {
    "prompttuning": ["texts"],
    "": [s for s in SPECS if s != "texts"],
}
READS |= {"robustfill": [], "deepcoder": []}  # on tasks of their own, in tests/learners


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


@pytest.mark.parametrize("law", LAWS | PACKAGE_LAWS)
@pytest.mark.parametrize(
    ("learner", "fields", "spec"),
    cases(),
    ids=lambda v: v.__name__ if isinstance(v, type) else str(v).replace(" ", ""),
)
def test_law(
    learner: type[Learner], fields: dict[str, object], spec: str, law: str
) -> None:
    torch.manual_seed(0)
    check_learner(learner.build(SPECS[spec], **fields), SPECS[spec], laws=[law])
