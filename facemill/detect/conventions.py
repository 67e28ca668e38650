"""How detectors draw boxes, and the way from each habit to HOG's square.

One face has other boxes from other detectors: HOG's square from mid-brow to below the mouth, MTCNN's upright rectangle,
an annotator's tight box from hair to chin. dlib's 68-point predictor was trained with HOG's, so that from other boxes
its error doubles; a size limit means something else for each, too. A convention is three numbers, in parts of the box's
mean side: where HOG's centre lies, and how long its side is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def to_hog_boxes(boxes_xyxy: npt.NDArray[Any], convention: str) -> npt.NDArray[np.float64]:
    """(N, 4) boxes as another detector draws them -> (N, 4) squares as HOG would draw them around the same faces.

    Raises:
        ValueError: an unknown convention.
    """
    if convention not in HOG_FROM:
        raise ValueError(f"unknown box convention {convention!r}; known: {', '.join(sorted(HOG_FROM))}")
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    if convention == "hog":
        return boxes.copy()
    shift_x, shift_y, side = HOG_FROM[convention]
    unit = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1, keepdims=True)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + unit * [shift_x, shift_y]
    return np.hstack([centres - unit * side / 2, centres + unit * side / 2])


HOG_FROM: dict[str, tuple[float, float, float]] = {
    "hog": (0.0, 0.0, 1.0),
    "mtcnn": (0.0, 0.073, 0.934),
    "mmod": (0.033, 0.077, 1.062),
    "dsfd": (0.0, -0.119, 1.035),
    "landmarks": (0.0, -0.097, 1.051),
}
"""Box convention -> (shift of the centre in x, in y, side of HOG's square), in parts of the box's mean side.

`benchmarks/landmarks.py FOLDER --fit --detectors mtcnn mmod --annotated VOC` prints them: medians over the faces that
HOG finds too, in every second picture of HELEN and AFW (106 faces), half of them mirrored. On the others the landmark
error from HOG's boxes is 0.0257 (median over 106 faces, in distances of the outer eye corners), from MTCNN's 0.0260
(unmapped 0.0367), from mmod's 0.0260 (0.0279), from "landmarks" 0.0268 (0.0288). mmod's boxes lie left of the face,
mirrored or not, hence its shift in x; the others' (under 0.01) are set to 0.

"dsfd" stands for boxes as annotators draw them, which is what it learns: fitted on 105 faces of face_mask_voc; on as
many others the mapped boxes overlap HOG's by 0.82 (median), and boxes scattered so give 0.029 on HELEN and AFW.
"landmarks" is the tight box around 68 points, for following a face from one frame to the next.
"""
