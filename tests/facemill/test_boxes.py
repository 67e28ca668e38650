"""Boxes by hand."""

from __future__ import annotations

import numpy as np
import pytest

from facemill.boxes import iou, shorter_sides

BOXES = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [50, 50, 60, 70]], float)


def test_overlap_is_what_both_share_over_what_either_covers() -> None:
    assert iou(BOXES, BOXES[:1])[:, 0] == pytest.approx([1, 60 / 140, 0])


def test_the_shorter_side_is_that_of_each_box() -> None:
    assert shorter_sides(BOXES).tolist() == [10, 10, 10]
    assert shorter_sides(BOXES[:0]).shape == (0,)
