"""Boxes against hand-counted cases."""

import pytest
import torch

from innerloop.engine.boxes import Boxes, average_precision, overlaps, suppressed

A = [0.0, 0.0, 4.0, 4.0]
B = [2.0, 0.0, 6.0, 4.0]  # shares 8 of 24 with A
C = [20.0, 20.0, 22.0, 30.0]


def boxes(*rows: list[float], scores: tuple[float, ...]) -> Boxes:
    return Boxes(torch.tensor(rows).view(-1, 4), torch.tensor(scores))


def test_overlaps_are_intersection_over_union() -> None:
    found = overlaps(torch.tensor([A, C]), torch.tensor([A, B, C]))
    assert torch.allclose(found, torch.tensor([[1, 8 / 24, 0], [0, 0, 1]]))


def test_the_best_of_boxes_that_overlap_is_kept() -> None:
    found = boxes(A, B, C, scores=(0.5, 0.9, 0.7))
    assert suppressed(found, 0.4) == [1, 2, 0]
    assert suppressed(found, 0.3) == [1, 2]
    assert suppressed(boxes(scores=())) == []


def test_average_precision_of_a_case_counted_by_hand() -> None:
    # by score: right, wrong (the true box is taken), right; one true box is missed
    found = boxes(A, A, C, scores=(0.9, 0.8, 0.7))
    truth = torch.tensor([A, C, [50.0, 50.0, 60.0, 60.0]])
    assert average_precision([found], [truth]) == pytest.approx((1 + 2 / 3) / 3)


def test_average_precision_ranks_over_all_images() -> None:
    empty = torch.zeros(0, 4)
    wrong, right = boxes(C, scores=(0.9,)), boxes(A, scores=(0.5,))
    truth = [empty, torch.tensor([A])]
    assert average_precision([wrong, right], truth) == pytest.approx(0.5)
    assert average_precision([boxes(scores=()), right], truth) == 1
    assert average_precision([boxes(scores=())], [torch.tensor([A])]) == 0
