"""SiameseUNet and its likelihood against their equations, written another way."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.metric.siamese_u_net import SiameseUNet
from innerloop.learners.metric.symbol_learner import window
from innerloop.learners.metric.symbol_maps import MAPS, THRESHOLD, UNIT, SymbolMaps

SPEC = TaskSpec("maps", (1, 16, 24), MAPS * 16 * 24)


def reference(learner: SiameseUNet, shown: Tensor, page: Tensor) -> Tensor:
    """The maps (5, height, width) of a page, from the weights by their names."""
    theta = learner.state_dict()

    def block(x: Tensor, name: str, stride: int = 1, least: float = 0) -> Tensor:
        x = F.conv2d(x, theta[f"{name}.conv.weight"], None, stride, 1)
        part = {k: theta[f"{name}.norm.{k}"] for k in ("mean", "var", "weight", "bias")}
        mean, var, scale, shift = (v[None, :, None, None] for v in part.values())
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=least)

    def cells(x: Tensor) -> Tensor:  # 2 x 2 pixels as channels
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)

    def down(x: Tensor, name: str) -> list[Tensor]:
        pixels = cells(x)
        fine = block(pixels, f"{name}.fine")
        middle = block(fine, f"{name}.middle", 2)
        coarse = block(middle, f"{name}.coarse.0", 2)
        coarse = block(coarse, f"{name}.coarse.1")
        coarse = block(coarse, f"{name}.coarse.2", least=-math.inf)
        return [pixels, fine, middle, coarse]

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    z = down(shown, "example")[-1].mean(0)  # (d, 2, 3)
    pixels, fine, middle, coarse = down(page[None], "page.down")
    compared = torch.zeros_like(coarse)
    for row, column in np.ndindex(*coarse.shape[2:]):
        patch = torch.zeros_like(z)
        for i, j in np.ndindex(2, 3):  # the place itself is at (1, 1)
            y, x = row + i - 1, column + j - 1
            if 0 <= y < coarse.shape[2] and 0 <= x < coarse.shape[3]:
                patch[:, i, j] = coarse[0, :, y, x]
        length = (patch.square().sum() + 1e-6).sqrt()
        length = length * (z.square().sum() + 1e-6).sqrt()
        compared[0, :, row, column] = (patch * z).sum((1, 2)) * len(z) / length
    h = block(torch.cat([compared, coarse], 1), "page.compare")
    h = block(torch.cat([twice(h), middle], 1), "page.middle")
    h = block(torch.cat([twice(h), fine, pixels], 1), "page.fine")
    weight, bias = theta["page.out.weight"], theta["page.out.bias"]
    h = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], h) + bias[:, None, None]
    n, _, rows, columns = h.shape
    h = h.reshape(n, MAPS, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return h.reshape(MAPS, 2 * rows, 2 * columns)


def test_the_maps_are_those_of_the_equation() -> None:
    torch.manual_seed(0)
    learner = SiameseUNet.build(SPEC, filters=4).double()
    for name, buffer in learner.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("var") else 0))
    x = torch.rand(3, 1, 16, 24, dtype=torch.float64)
    state = learner.adapt(Examples(x[:2], x.new_zeros(2, SPEC.y_dim)))
    found = learner.predict(state, x[2:])[0].view(MAPS, 16, 24)
    assert torch.allclose(found, reference(learner, x[:2], x[2]))


def test_the_middle_of_an_image_is_the_window() -> None:
    x = torch.arange(40.0 * 34).view(40, 34)
    assert torch.equal(window(x), x[4:36, 1:33])
    assert torch.equal(window(x[:10]), x[:10, 1:33])


def test_the_likelihood_is_that_of_the_docstring() -> None:
    generator = torch.Generator().manual_seed(0)
    likelihood = SymbolMaps((3, 4))
    outputs = torch.randn(2, MAPS * 12, generator=generator)
    mask = (torch.rand(2, 3, 4, generator=generator) < 0.4).float()
    true = torch.rand(2, 4, 3, 4, generator=generator) * 9
    y = torch.cat([mask.flatten(1), (true * mask[:, None]).flatten(1)], 1)
    total, both, either = 0.0, np.zeros(2), np.zeros(2)
    maps = outputs.view(2, MAPS, 3, 4).double()
    for i, row, column in np.ndindex(2, 3, 4):
        p = 1 / (1 + math.exp(-float(maps[i, 0, row, column])))
        seen = bool(mask[i, row, column])
        both[i] += seen and p > THRESHOLD
        either[i] += seen or p > THRESHOLD
        total -= math.log(p if seen else 1 - p)
        if seen:
            a = [UNIT * math.log1p(math.exp(v)) for v in maps[i, 1:, row, column]]
            b = true[i, :, row, column].tolist()
            wide = min(a[0], b[0]) + min(a[2], b[2])
            high = min(a[1], b[1]) + min(a[3], b[3])
            areas = [(d[0] + d[2]) * (d[1] + d[3]) for d in (a, b)]
            total -= math.log(wide * high / (sum(areas) - wide * high))
    expected = total / float(mask.sum())
    assert float(likelihood.nll(outputs, y)) == pytest.approx(expected, rel=1e-5)
    iou = likelihood.metrics(outputs, y)["iou"]
    assert float(iou) == pytest.approx((both / either).mean())


def test_boxes_of_true_maps_are_the_true_boxes() -> None:
    likelihood = SymbolMaps((24, 32))
    boxes = torch.tensor([[2.0, 3.0, 12.0, 17.0], [14.0, 5.0, 30.0, 22.0]])
    maps = torch.full((MAPS, 24, 32), -8.0)
    y = torch.zeros(MAPS, 24, 32)
    for left, top, right, bottom in boxes.int().tolist():
        for row in range(top, bottom, 2):
            for column in range(left, right, 2):
                x, at = column + 0.5, row + 0.5
                reach = torch.tensor([x - left, at - top, right - x, bottom - at])
                y[:, row, column] = torch.cat([torch.ones(1), reach])
                raw = (reach / UNIT).expm1().log()
                maps[:, row, column] = torch.cat([torch.full((1,), 6.0), raw])
    assert torch.equal(likelihood.true_boxes(y.flatten()), boxes)
    found = likelihood.boxes(maps.flatten())
    order = found.boxes[:, 0].argsort()
    assert torch.allclose(found.boxes[order], boxes, atol=1e-3)
    assert bool((found.scores > 0.8).all())


def test_other_tasks_are_refused() -> None:
    for spec in (
        TaskSpec("maps", (4,), 20),
        TaskSpec("maps", (1, 16, 20), MAPS * 320),
        TaskSpec("maps", (1, 16, 16), 256),
    ):
        with pytest.raises(InnerloopError, match="finds symbols in images with sides"):
            SiameseUNet.build(spec)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_is_computed_as_its_tasks_are(training: bool) -> None:
    learner = SiameseUNet.build(SPEC, filters=4).train(training)
    x = torch.rand(4, 2, 1, 16, 24)
    mask = (torch.rand(4, 2, MAPS, 16, 24) < 0.5).float()
    tasks = _tasks(x, mask)
    loss = float(learner(tasks)[0].detach())
    alone = [float(learner.loss(task)[0].detach()) for task in tasks.unbind()]
    # in training, tasks are normalized together
    assert (loss == pytest.approx(sum(alone) / 4, rel=1e-4)) is not training


def _tasks(x: Tensor, mask: Tensor) -> Task:
    examples = Examples(x, mask.flatten(2))
    return Task(examples, examples)
