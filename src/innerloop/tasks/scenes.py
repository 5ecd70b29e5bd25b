"""Scenes: characters drawn on a canvas, where one of them is to be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.boxes import average_precision
from innerloop.evaluation.chunks import measured
from innerloop.evaluation.template_matching import TemplateMatching
from innerloop.learners.metric.symbol_maps import MAPS, SymbolMaps
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TaskScores,
    TestPlan,
)
from innerloop.tasks.pictures import as_html

SIDE = 96  # of a canvas, in pixels
BASELINE_TASKS = 100  # on which template matching is measured, which is slow


def warped(glyphs: Tensor, matrices: Tensor, side: int, mode: str) -> Tensor:
    """Glyphs (n, s, s) in 0..1 after a linear map of their pixels around the middle
    (n, 2, 2), x first, as patches (n, side, side).
    """
    scaled = torch.linalg.inv(matrices) * (side / glyphs.shape[-1])
    grid = F.affine_grid(
        F.pad(scaled, (0, 1)), [len(glyphs), 1, side, side], align_corners=False
    )
    return F.grid_sample(glyphs[:, None], grid, mode, align_corners=False)[:, 0]


def turns(angle: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """The linear maps (..., 2, 2) that scale by `scale` (..., 2), x first, and turn the
    axes by angle + shear and angle - shear (...,), in radians.
    """
    one, other = angle + shear, angle - shear
    matrix = torch.stack([one.cos(), other.sin(), -one.sin(), other.cos()], -1)
    return matrix.unflatten(-1, (2, 2)) * scale[..., None, :]


def bounds(patches: Tensor) -> Tensor:
    """The boxes (n, 4) around the ink of patches (n, side, side); of a patch without
    ink, of no size.
    """
    ink, side = patches > 0.5, patches.shape[-1]
    sides = []
    for lines in (ink.any(-2), ink.any(-1)):  # columns, rows
        first = lines.float().argmax(-1)
        last = side - lines.flip(-1).float().argmax(-1)
        sides.append((first, torch.where(lines.any(-1), last, first)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], -1)


def pasted(
    patches: Tensor, boxes: Tensor, corners: Tensor, side: int = SIDE
) -> tuple[Tensor, Tensor]:
    """Patches (b, k, s, s) on b canvases, each with the corner of its box (b, k, 4) at
    `corners` (b, k, 2), x first: the ink (b, side, side), and the number of the patch
    that is on top, from 1 on, 0 for none (b, side, side). Later patches lie on earlier
    ones.
    """
    canvas, layer, row, column = (patches > 0.05).nonzero(as_tuple=True)
    shift = (corners - boxes[..., :2])[canvas, layer]
    x, y = column + shift[:, 0], row + shift[:, 1]
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    values = patches[canvas, layer, row, column]
    place = ((canvas * side + y) * side + x)[inside]
    size = len(patches) * side * side
    ink = patches.new_zeros(size).scatter_reduce_(0, place, values[inside], "amax")
    order = torch.where(values > 0.5, layer + 1, 0)[inside]
    top = order.new_zeros(size).scatter_reduce_(0, place, order, "amax")
    return ink.view(-1, side, side), top.view(-1, side, side)


def targets(top: Tensor, wanted: Tensor, boxes: Tensor) -> Tensor:
    """Targets (b, 5 side side) of canvases, from the patch on top (b, side, side), and
    which patches are the symbol (b, k) with what boxes on the canvas (b, k, 4).
    """
    side = top.shape[-1]
    index = top.flatten(1)
    mask = F.pad(wanted, (1, 0)).float().gather(1, index)  # (b, side side)
    box = F.pad(boxes.float(), (0, 0, 1, 0))
    left, x, right, y = box.gather(1, index[..., None].expand(-1, -1, 4)).unbind(-1)
    at = torch.arange(side) + 0.5
    column, row = at.repeat(side), at.repeat_interleave(side)
    maps = [column - left, row - x, right - column, y - row]
    return torch.cat([mask, *(mask * distance for distance in maps)], 1)


class Scenes(TaskDistribution):
    """Base of tasks in which a symbol is to be found: the examples are drawings of the
    symbol in the middle of a canvas, the queries scenes in which it occurs.

    Support x (n, shots, channels, 96, 96), query x likewise; y (n, ..., 5 * 96 * 96)
    are maps, see `SymbolMaps`, those of the support set without distances.
    """

    prefetch = True
    channels: ClassVar[int] = 1
    # options of template matching, the baseline
    matching: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.spec = TaskSpec("maps", (self.channels, SIDE, SIDE), MAPS * SIDE**2)

    def likelihood(self) -> SymbolMaps:
        return SymbolMaps((SIDE, SIDE))

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """The average precision of boxes and the intersection over union of masks,
        beside those of template matching.
        """
        matching, few = (
            TemplateMatching.build(self.spec, **self.matching),
            min(plan.n, BASELINE_TASKS),
        )
        methods = {
            type(learner).__name__: (learner, plan),
            "template matching": (matching, replace(plan, n=few)),
        }
        rows = []
        for name, (method, how) in methods.items():
            scores = self._scores(method, how)
            values = (
                Measurement.of(label, Estimate.of(score), how.n, "%")
                for label, score in zip(("mAP", "IoU"), scores.unbind(1), strict=True)
            )
            rows.append(Row({**plan.labels, "method": name}, tuple(values)))
        table = Table("boxes at IoU 0.5, and masks", tuple(rows))
        context = {"tasks": plan.n, "seed": plan.seed, "precision": plan.precision}
        return Report((table,), (), context)

    def task_scores(self, learner: Learner, plan: TestPlan) -> TaskScores:
        return TaskScores("mAP", self._scores(learner, plan)[:, 0], "%")

    def _scores(self, learner: Learner, plan: TestPlan) -> Tensor:
        """The average precision of the boxes of every task, and the intersection over
        union of its masks (n, 2).
        """
        likelihood, low = self.likelihood(), plan.precision == "bf16"

        def answer(task: Task) -> Tensor:
            return learner.predict(learner.adapt(task.support), task.query.x)

        @torch.no_grad()
        def scores(batch: Task) -> Tensor:
            with torch.autocast(batch.query.x.device.type, torch.bfloat16, enabled=low):
                found = learner.mapped(answer, batch).float().cpu()
            rows = []
            for outputs, y in zip(found, batch.query.y.cpu(), strict=True):
                boxes = [likelihood.boxes(page) for page in outputs]
                truth = [likelihood.true_boxes(page) for page in y]
                iou = float(likelihood.metrics(outputs, y)["iou"])
                rows.append([average_precision(boxes, truth), iou])
            return torch.tensor(rows)

        learner.eval()
        return torch.cat(
            measured(learner, self, scores, n=plan.n, generator=plan.generator())
        )

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """An example, the scenes with the boxes that were found, and the mask."""
        likelihood = self.likelihood()
        with torch.no_grad():
            outputs = learner.predict(learner.adapt(task.support), task.query.x).cpu()
        pages = task.query.x.cpu()
        axes = figure.subplots(1, 1 + 2 * len(pages), squeeze=False)[0]
        _shown(axes[0], task.support.x[0].cpu(), "example")
        for i, (page, row) in enumerate(zip(pages, outputs, strict=True)):
            _shown(axes[1 + 2 * i], page, "found")
            for left, top, right, bottom in likelihood.boxes(row).boxes.tolist():
                xs, ys = [left, right, right, left, left], [top, top, bottom, bottom]
                axes[1 + 2 * i].plot(xs, [*ys, top], color="C1", lw=0.8)
            _shown(axes[2 + 2 * i], likelihood.probability(row)[None], "mask")

    def show(self, seed: int = 0) -> Image.Image:
        """A picture of one task: the examples, the scenes and their masks."""
        task = self.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
        mask = self.likelihood().maps(task.query.y)[0][:, None].expand_as(task.query.x)
        tiles = torch.cat([task.support.x, task.query.x, mask])
        rows = torch.cat([*F.pad(tiles, (2, 2, 2, 2), value=0.5)], -1).movedim(0, -1)
        array = (rows.expand(-1, -1, 3) * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(array)

    def _repr_html_(self) -> str:
        return as_html(self, self.show())


def _shown(axes: Any, image: Tensor, title: str) -> None:
    axes.imshow(image.clamp(0, 1).movedim(0, -1).expand(-1, -1, 3).numpy())
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()


def examples(x: Tensor, mask: Tensor) -> Examples:
    """Examples of the symbol on canvases x (n, s, c, side, side), with masks (n, s,
    side, side).
    """
    y = F.pad(mask.flatten(2).float(), (0, (MAPS - 1) * mask.shape[-1] ** 2))
    return Examples(x, y)
