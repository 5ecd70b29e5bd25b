"""Pages and cluttered scenes: what is drawn, where, and from which characters."""

import math
from importlib import import_module

import pytest
import torch

from innerloop.core.task import Task
from innerloop.learners.metric.symbol_maps import SYMBOL
from innerloop.measurements import TestPlan
from innerloop.readers.image import ImageReader
from innerloop.tasks.cluttered_omniglot import Cluttered, cluttered_omniglot, drawers
from innerloop.tasks.episodes import ClassBank
from innerloop.tasks.pages import pages
from innerloop.tasks.scenes import SIDE, bounds, pasted, targets, turns, warped
from innerloop.tasks.strokes import FreshEpisodes


def drawn(n: int = 2, seed: int = 0, **options: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    return pages("train", **options).sample(n, generator)


def test_a_map_of_one_keeps_a_drawing_and_a_turn_turns_it() -> None:
    glyph = torch.rand(1, 9, 9)
    still = warped(glyph, torch.eye(2)[None], 9, "nearest")
    assert torch.equal(still, glyph)
    quarter = turns(torch.tensor([math.pi / 2]), torch.zeros(1), torch.ones(1, 2))
    turned = warped(glyph, quarter, 9, "bilinear")
    assert torch.allclose(turned, glyph.rot90(1, (1, 2)), atol=1e-4)
    double = warped(glyph, 2 * torch.eye(2)[None], 18, "nearest")
    assert torch.equal(double, glyph.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_shear_moves_the_axes_apart() -> None:
    matrix = turns(torch.tensor([0.3]), torch.tensor([0.1]), torch.tensor([[2.0, 3.0]]))
    x, y = matrix[0].T
    assert float(x.norm()) == pytest.approx(2)
    assert float(y.norm()) == pytest.approx(3)
    cosine = float(x @ y) / 6
    assert cosine == pytest.approx(-math.sin(0.2), abs=1e-6)


def test_later_patches_lie_on_earlier_ones_and_targets_have_their_boxes() -> None:
    patches = torch.zeros(1, 2, 8, 8)
    patches[0, 0, 2:6, 1:7] = 1
    patches[0, 1, 0:4, 0:3] = 1
    boxes = bounds(patches.flatten(0, 1)).unflatten(0, (1, 2))
    assert boxes[0].tolist() == [[1, 2, 7, 6], [0, 0, 3, 4]]
    corners = torch.tensor([[[3, 4], [5, 2]]])
    ink, top = pasted(patches, boxes, corners, side=12)
    expected = torch.zeros(12, 12, dtype=torch.long)
    expected[4:8, 3:9] = 1
    expected[2:6, 5:8] = 2
    assert torch.equal(top[0], expected)
    assert torch.equal(ink[0], (expected > 0).float())
    placed = torch.tensor([[[3, 4, 9, 8], [5, 2, 8, 6]]])
    y = targets(top, torch.tensor([[True, False]]), placed).view(5, 12, 12)
    assert torch.equal(y[0], (expected == 1).float())
    assert y[1:, 7, 3].tolist() == [0.5, 3.5, 5.5, 0.5]
    assert float(y[1:, 3, 5].abs().sum()) == 0  # the other patch is on top


def test_pages_hold_the_symbol_and_examples_have_the_usual_size() -> None:
    tasks = pages("train", shots=3, queries=3)
    task = tasks.sample(4, torch.Generator().manual_seed(1))
    tasks.spec.check(task, 4)
    likelihood = tasks.likelihood()
    assert 1 <= task.support.x.shape[1] <= 3
    assert float(task.query.x.min()) >= 0
    assert float(task.query.x.max()) <= 1
    for row in task.query.y[:, 0]:
        assert 1 <= len(likelihood.true_boxes(row)) <= 3
    counts = [len(likelihood.true_boxes(row)) for row in task.query.y.flatten(0, 1)]
    assert min(counts) == 0  # some pages do not have it
    for mask in likelihood.maps(task.support.y.flatten(0, 1))[0]:
        left, top, right, bottom = bounds(mask[None])[0].tolist()
        assert max(right - left, bottom - top) == pytest.approx(SYMBOL, abs=2)
        assert abs(left + right - SIDE) <= 1
        assert abs(top + bottom - SIDE) <= 1


def test_the_symbol_is_darker_than_the_paper_around() -> None:
    task = drawn(4)
    mask = pages("train").likelihood().maps(task.query.y)[0] > 0.5
    x = task.query.x[:, :, 0]
    assert float(x[mask].mean()) > 3 * float(x[~mask].mean())


def test_a_seed_determines_the_tasks() -> None:
    first, again, other = drawn(seed=3), drawn(seed=3), drawn(seed=4)
    assert torch.equal(first.query.x, again.query.x)
    assert not torch.equal(first.query.x, other.query.x)


def characters(classes: int = 8, drawings: int = 6) -> ClassBank:
    """Random characters of 105 x 105 black and white pixels, in 20 alphabets."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(classes * drawings, 1, 7, 7, generator=generator) < 0.3
    values = blocks.repeat_interleave(15, 2).repeat_interleave(15, 3)
    names = [f"alphabet{i % 20:02d}/character{i:02d}" for i in range(classes)]
    sizes = [drawings] * classes
    return ClassBank.of((values * 255).to(torch.uint8), sizes, names)


def test_the_symbol_lies_on_top_of_a_cluttered_scene() -> None:
    tasks = Cluttered(characters(), 12)
    task = tasks.sample(3, torch.Generator().manual_seed(0))
    tasks.spec.check(task, 3)
    mask = tasks.likelihood().maps(task.query.y[:, 0])[0] > 0.5
    for scene, where in zip(task.query.x[:, 0], mask, strict=True):
        assert len(scene[:, where].unique(dim=1).T) == 1  # one color
        assert len(scene.flatten(1).unique(dim=1).T) <= 13
        boxes = tasks.likelihood().true_boxes(task.query.y[0, 0])
        assert len(boxes) == 1
    boxes = torch.cat([tasks.likelihood().true_boxes(row[0]) for row in task.query.y])
    assert torch.equal(boxes.long(), bounds(mask.float()))


def test_drawings_are_split_by_who_drew_them() -> None:
    whole = characters(drawings=20)
    early, late = drawers(whole, later=False), drawers(whole, later=True)
    assert early.counts.tolist() == late.counts.tolist() == [10] * 8
    assert not early.item_keys() & late.item_keys()


def test_test_alphabets_are_the_last_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def bank(protocol: str, split: str, reader: ImageReader) -> ClassBank:
        asked.append(split)
        return characters(40, 20)

    module = import_module("innerloop.tasks.cluttered_omniglot")
    monkeypatch.setattr(module, "bank", bank)
    found = cluttered_omniglot("test").class_names()
    assert {name[:10] for name in found} == {f"alphabet{i}" for i in range(10, 20)}
    assert len(cluttered_omniglot("val").class_names()) == 40
    assert len(cluttered_omniglot("test", of="training").class_names()) == 40
    assert asked == ["test", "train", "train"]


def test_a_test_stands_beside_template_matching() -> None:
    from innerloop.learners.metric import SiameseUNet

    tasks = pages("train", queries=1)
    learner = SiameseUNet.build(tasks.spec, filters=16)
    report = tasks.evaluate(learner, TestPlan(n=2))
    rows = report.tables[0].rows
    assert [row.labels["method"] for row in rows] == [
        "SiameseUNet",
        "template matching",
    ]
    scores = {value.name: value.mean for value in rows[1].values}
    assert scores["mAP"] > rows[0].values[0].mean
    assert 0 < scores["IoU"] < 1


def test_characters_of_training_are_drawn_anew() -> None:
    assert isinstance(pages("train").characters, FreshEpisodes)
