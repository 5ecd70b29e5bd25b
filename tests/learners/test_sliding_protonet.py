"""SlidingProtoNet against distances of windows that are cut out by hand."""

import pytest
import torch
import torch.nn.functional as F

from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.metric.sliding_protonet import SlidingProtoNet
from innerloop.learners.metric.symbol_maps import MAPS, SymbolMaps

SIDE = 64
SPEC = TaskSpec("maps", (1, SIDE, SIDE), MAPS * SIDE * SIDE)


def canvas(top: int, left: int) -> torch.Tensor:
    """A canvas (1, 64, 64) with a T of 16 x 12 pixels."""
    image = torch.zeros(1, SIDE, SIDE)
    image[0, top : top + 3, left : left + 12] = 1
    image[0, top : top + 16, left + 5 : left + 8] = 1
    return image


def test_a_window_has_the_logit_of_its_distance() -> None:
    learner = SlidingProtoNet.build(SPEC, encoder="flatten", sizes=1)
    with torch.no_grad():
        learner.b.fill_(2.0)
        learner.log_s.fill_(3.0)
    example = canvas(24, 26)  # its box has its middle in the middle
    state = learner.adapt(Examples(example[None], torch.zeros(1, SPEC.y_dim)))
    assert state[1].tolist() == [-6, -8, 6, 8]
    page = 0.7 * canvas(12, 14)  # in a window around (20, 20), paler
    outputs = learner.predict(state, page[None])[0]
    mask, reach = SymbolMaps((SIDE, SIDE)).maps(outputs)

    def prepared(image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(image[None], (28, 28), mode="bilinear").flatten()

    far = prepared(example[:, 21:43, 21:43]) - prepared(page[:, 9:31, 9:31])
    expected = 2 - torch.tensor(3.0).exp() * far.square().mean()
    inked = page[0] > 0
    assert torch.allclose(mask[inked], expected.detach(), atol=1e-4)
    assert bool((mask[~inked] == mask.min()).all())
    found = SymbolMaps((SIDE, SIDE)).boxes(outputs)
    assert found.boxes[0].tolist() == pytest.approx([14, 12, 26, 28], abs=0.2)
    assert reach.shape == (4, SIDE, SIDE)
