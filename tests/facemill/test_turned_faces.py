"""Faces that lie on their side in a picture.

HOG looks, which sees no lying face by itself; MTCNN sees half of them, with five points that are not theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.boxes import iou
from facemill.detect import Detector, Faces, build_detector
from facemill.landmarks import roll_of
from facemill.turned_faces import faces_at_any_roll, turned_back

Picture = npt.NDArray[np.uint8]


@given(quarters=st.integers(0, 3), x=st.integers(0, 59), y=st.integers(0, 39))
def test_points_of_a_turned_picture_come_back_to_their_place(quarters: int, x: int, y: int) -> None:
    marked = np.zeros((40, 60), np.uint8)
    marked[y, x] = 1
    (row,), (column,) = np.nonzero(np.rot90(marked, quarters))
    assert turned_back(np.array([[column, row]]), marked.shape, quarters).tolist() == [[x, y]]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("hog", min_face_px=80)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_lying_face_is_found_where_it_is_with_its_roll(detector: Detector, collins: Picture, quarters: int) -> None:
    upright = np.ascontiguousarray(collins[:300, 60:400])
    lying = np.ascontiguousarray(np.rot90(upright, -quarters))
    [found] = faces_at_any_roll(detector, [lying])
    [known] = detector.detect([upright])
    assert len(found) == len(known) == 1
    there = turned_back(known.boxes_xyxy.reshape(2, 2), lying.shape, quarters)
    assert iou(found.boxes_xyxy, np.concatenate([there.min(axis=0), there.max(axis=0)])[None])[0, 0] > 0.8
    assert found.points5 is not None
    rolled = np.degrees(roll_of(found.points5[0])) - 90 * quarters
    assert (rolled + 180) % 360 - 180 == pytest.approx(3, abs=8)  # 3: her own


def test_pictures_with_an_upright_face_are_searched_once(collins: Picture) -> None:
    asked = []

    class Counting:
        name, built = "hog", build_detector("hog", min_face_px=80)
        box_convention = built.box_convention

        def detect(self, pictures: Sequence[Picture]) -> list[Faces]:
            asked.append(len(pictures))
            return self.built.detect(pictures)

    nobody = np.full((120, 160, 3), 99, np.uint8)
    assert [len(faces) for faces in faces_at_any_roll(Counting(), [collins, nobody])] == [1, 0]
    assert asked == [2, 1, 1, 1]


def test_both_of_two_faces_that_lie_differently_are_found_and_none_twice(detector: Detector, collins: Picture) -> None:
    face = np.ascontiguousarray(collins[:300, 80:380])
    pair = np.hstack([np.rot90(face), np.rot90(face, 3)])
    [found] = faces_at_any_roll(detector, [np.ascontiguousarray(pair)])
    assert len(found) == 2
    assert (np.diff(found.scores) <= 0).all()
    assert {int(box[0] > 300) for box in found.boxes_xyxy} == {0, 1}
