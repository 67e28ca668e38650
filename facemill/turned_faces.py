"""Faces that lie on their side or upside down: a picture is searched turned by quarters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.boxes import SAME_FACE_IOU, iou
from facemill.detect import Detector, Faces
from facemill.landmarks import five_in, hog_square
from facemill.pictures import RGB


def faces_at_any_roll(detector: Detector, pictures: Sequence[RGB]) -> list[Faces]:
    """The faces of each picture as it is, and where there are none, those of the picture turned by quarters.

    Pictures in which nobody is found take four times as long as those in which somebody is. A detector that sees
    a lying face as it is, MTCNN about half of them, is believed, with five points that are not the face's.
    """
    found = detector.detect(pictures)
    return [
        faces if len(faces) else turned_faces(detector, picture) for picture, faces in zip(pictures, found, strict=True)
    ]


def turned_faces(detector: Detector, picture: RGB) -> Faces:
    """The faces of a picture that is turned by a quarter, a half and three quarters, in pixels of the picture as it is.

    All have five points, which say how each lies: the detector's, or else those that the mean face would have there.
    """
    found = Faces.empty(points=True)
    for quarters in (1, 2, 3):
        [seen] = detector.detect([np.ascontiguousarray(np.rot90(picture, quarters))])
        boxes = boxes_turned_back(seen.boxes_xyxy, picture.shape, quarters)
        if seen.points5 is None:
            squares = [hog_square(box, detector.box_convention, quarters * np.pi / 2) for box in boxes]
            fives = np.array([five_in(square) for square in squares]).reshape(-1, 5, 2)
        else:
            fives = turned_back(seen.points5, picture.shape, quarters)
        # a detector bears some roll, and sees a face that lies aslant in two of the turns
        fresh = iou(boxes, found.boxes_xyxy).max(axis=1, initial=0) < SAME_FACE_IOU
        before = found.points5 if found.points5 is not None else np.zeros((0, 5, 2))
        found = Faces(
            np.concatenate([found.boxes_xyxy, boxes[fresh]]).astype(np.float32),
            np.concatenate([found.scores, seen.scores[fresh]]),
            np.concatenate([before, fives[fresh]]).astype(np.float32),
            found.found_by or seen.found_by,
        )
    return found[np.argsort(-found.scores, kind="stable")]


def turned_back(points: npt.NDArray[Any], shape: tuple[int, ...], quarters: int) -> npt.NDArray[np.float64]:
    """Points (…, 2) of a picture that was turned by `np.rot90`, 0 to 3 quarters counterclockwise, as points of the
    picture, whose shape (H, W, …) it is."""
    height, width = shape[:2]
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    if quarters == 0:
        return np.stack([x, y], axis=-1)
    if quarters == 1:  # what was at the right edge is on top now
        return np.stack([width - 1 - y, x], axis=-1)
    if quarters == 2:
        return np.stack([width - 1 - x, height - 1 - y], axis=-1)
    return np.stack([y, height - 1 - x], axis=-1)


def boxes_turned_back(boxes_xyxy: npt.NDArray[Any], shape: tuple[int, ...], quarters: int) -> npt.NDArray[np.float64]:
    """Boxes (N, 4) xyxy in a picture that was turned by `quarters` -> in the picture as it was, as `turned_back`."""
    corners = turned_back(boxes_xyxy.reshape(-1, 2, 2), shape, quarters)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
