"""Template matching against correlations by NumPy."""

import math

import numpy as np
import pytest
import torch

from innerloop.core.task import Examples, TaskSpec
from innerloop.evaluation.template_matching import TemplateMatching
from innerloop.learners.metric.symbol_maps import MAPS, SymbolMaps

SIZE = (40, 48)
SPEC = TaskSpec("maps", (1, *SIZE), MAPS * SIZE[0] * SIZE[1])


def shape() -> torch.Tensor:
    """A window (1, 40, 48) with an L of 12 x 9 pixels in the middle."""
    image = torch.zeros(1, *SIZE)
    image[0, 14:26, 20:23] = 1
    image[0, 23:26, 20:29] = 1
    return image


def matched(**fields: float) -> tuple[TemplateMatching, torch.Tensor]:
    learner = TemplateMatching.build(SPEC, **fields)
    examples = Examples(shape()[None], torch.zeros(1, SPEC.y_dim))
    return learner, learner.adapt(examples)


def test_a_correlation_is_that_of_the_pixels_in_the_box() -> None:
    learner, state = matched(angles=1, sizes=1)
    page = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    found = learner.correlations(state, page)[0, 0]
    # the box around the L, with one pixel more on every side
    template = shape()[0, 13:27, 19:30].numpy()
    for row, column in ((20, 24), (18, 22), (25, 30)):
        # the middle of the window is at row 20 and column 24
        patch = page[0, 0, row - 7 : row + 7, column - 5 : column + 6].numpy()
        expected = np.corrcoef(template.ravel(), patch.ravel())[0, 1]
        assert float(found[row, column]) == pytest.approx(expected, abs=1e-4)


def test_a_turned_and_scaled_template_is_turned_and_scaled() -> None:
    learner = TemplateMatching.build(SPEC, angles=3, most_degrees=90.0, sizes=1)
    maps = learner._maps()
    ends = maps @ torch.tensor([1.0, 0.0])  # of a step to the right
    assert torch.allclose(
        ends, torch.tensor([[0.0, -1.0], [1.0, 0.0], [0.0, 1.0]]), atol=1e-6
    )
    sizes = TemplateMatching.build(SPEC, angles=1, sizes=3, largest=1.5)._maps()
    assert torch.allclose(sizes.det().sqrt(), torch.tensor([1 / 1.5, 1.0, 1.5]))


def test_every_copy_is_found_with_its_box() -> None:
    learner, state = matched()
    page = torch.zeros(1, *SIZE)
    moved = ((-10, -16), (12, 10))
    for down, right in moved:
        page = page.maximum(shape().roll((down, right), (1, 2)))
    outputs = learner.predict(state, page[None])[0]
    expected = [[20 + r, 14 + d, 29 + r, 26 + d] for d, r in moved]
    painted = SymbolMaps(SIZE).boxes(outputs, 0.9)
    for found in (painted, learner.boxes(state, page[None])[0]):
        boxes = found.boxes[found.scores > 0.8]
        boxes = boxes[boxes[:, 0].argsort()]
        assert torch.allclose(boxes, torch.tensor(expected).float(), atol=1.5)
    y = torch.cat([page.flatten(), torch.zeros(4 * page.numel())])[None]
    iou = SymbolMaps(SIZE).metrics(outputs[None], y)["iou"]
    assert float(iou) > 0.8


def test_an_empty_page_has_nothing() -> None:
    learner, state = matched()
    outputs = learner.predict(state, torch.zeros(1, 1, *SIZE))[0]
    assert len(SymbolMaps(SIZE).boxes(outputs).scores) == 0
    assert math.isfinite(float(outputs.abs().max()))
