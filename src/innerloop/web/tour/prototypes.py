"""Examples of three classes in the plane, and where each class is predicted."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.transfer.probe import Probe
from innerloop.web.http import array, choice, record
from innerloop.web.tour.piece import Piece, between, numbers

CLASSES, MOST = 3, 30
WIDTH, HEIGHT = 1.5, 1.0  # the plane is -WIDTH..WIDTH, -HEIGHT..HEIGHT
COLUMNS, ROWS = 61, 41
SCALE = 4.0  # of squared distances
SPEC = TaskSpec("classes", (2,), CLASSES)
HEADS = ("mean", "ridge", "mahalanobis")


@cache
def learner(head: str) -> Learner:
    """Nearest class mean, or another classifier, on the points themselves."""
    if head == "mean":
        return ProtoNet.build(SPEC, encoder=nn.Flatten(), scale=SCALE)
    return Probe.build(SPEC, encoder=nn.Flatten(), head=head)


@cache
def grid() -> Tensor:
    """The points (COLUMNS ROWS, 2) where the classes are predicted, row by row from
    the lowest y.
    """
    y, x = torch.meshgrid(
        torch.linspace(-HEIGHT, HEIGHT, ROWS),
        torch.linspace(-WIDTH, WIDTH, COLUMNS),
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], 1)


def run(body: dict[str, Any]) -> dict[str, Any]:
    labels = torch.tensor([point["label"] for point in body["points"]])
    if len(labels.unique()) < CLASSES:
        raise InnerloopError(f"each of the {CLASSES} classes needs a point")
    x = torch.tensor([[point["x"], point["y"]] for point in body["points"]])
    support = Examples(x.float(), F.one_hot(labels, CLASSES).float())
    chosen = learner(body["head"])
    outputs = chosen.predict(chosen.adapt(support), grid())
    means = learner("mean").adapt(support)
    return {
        "columns": COLUMNS,
        "rows": ROWS,
        "outputs": [numbers(column) for column in outputs.log_softmax(-1).T],
        "means": [numbers(mean) for mean in means],
    }


NUMBERS = array({"type": "number"})
PIECE = Piece(
    "prototypes",
    "The classes that are predicted in the plane, from examples of three classes.",
    run,
    record(
        points=array(
            record(
                x=between(-WIDTH, WIDTH),
                y=between(-HEIGHT, HEIGHT),
                label={"type": "integer", "minimum": 0, "maximum": CLASSES - 1},
            ),
            MOST,
            CLASSES,
        ),
        head=choice(*HEADS),
    ),
    record(
        columns={"type": "integer"},
        rows={"type": "integer"},
        outputs=array(NUMBERS),
        means=array(NUMBERS),
    ),
)
