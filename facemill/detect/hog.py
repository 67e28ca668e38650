"""dlib's frontal face detector (S5): HOG features, linear classifier, image pyramid, sliding window.

Serves large, frontal, uncovered faces and nothing else: on street pictures it finds a quarter of the easy faces where
MTCNN finds three quarters (AP 0.09 against 0.73 on masked faces, see docs/detectors.md). What it does give is the
box that dlib's 68-point predictor was trained with: other detectors' boxes are mapped to this one's (`facemill.boxes`).
The detector is compiled into dlib (Boost licence); no file is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import dlib
import numpy as np
import numpy.typing as npt

from facemill.align import resized
from facemill.boxes import HOG_BOXES
from facemill.detect import Detector, Faces, register, require_rgb
from facemill.terms import Terms, Use

WINDOW_PX = 80
"""The sliding window: no face smaller than this is found without upsampling (dlib, frontal_face_detector.h)."""

TERMS = (
    Terms("dlib's HOG detector", Use.ANY, licence="Boost Software License 1.0", source="dlib, compiled into dlib-bin"),
)


@register("hog")
def build(min_face_px: int, device: str = "cpu", *, upsample: int = 0, threshold: float = 0.0) -> Detector:
    """The HOG detector, which runs on the CPU whatever `device` says.

    Args:
        min_face_px: about the shortest side of a face worth finding.
        device: not used.
        upsample: how often the picture is doubled first: halves the smallest face and takes four times as long.
        threshold: smallest margin that counts as a face.
    """
    return HogDetector(min_face_px=min_face_px, upsample=upsample, threshold=threshold)


class HogDetector:
    """dlib HOG on RGB pictures; see the module's docstring."""

    name = "hog"
    box_convention = HOG_BOXES

    def __init__(self, *, min_face_px: int = WINDOW_PX, upsample: int = 0, threshold: float = 0.0) -> None:
        if not 0 <= upsample <= 4:
            raise ValueError(f"upsample must be 0…4 doublings, got {upsample}")
        self.upsample = upsample
        self.threshold = threshold
        # Where only large faces are asked for, the same window on a smaller picture finds them in less time.
        self.shrink = min(1.0, WINDOW_PX / min_face_px)
        self._detector = dlib.get_frontal_face_detector()

    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, highest margin first, without points."""
        return [self._detect_one(picture) for picture in pictures]

    def _detect_one(self, picture: npt.NDArray[np.uint8]) -> Faces:
        require_rgb(picture)
        height, width = picture.shape[:2]
        if self.shrink < 1.0:
            size_wh = (max(1, round(width * self.shrink)), max(1, round(height * self.shrink)))
            picture = resized(picture, size_wh)
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        rectangles, margins, _ = self._detector.run(grey, self.upsample, self.threshold)
        if not rectangles:
            return Faces.empty()
        zoom_xy = np.array([width / grey.shape[1], height / grey.shape[0]])
        corners = [[r.left(), r.top(), r.right(), r.bottom()] for r in rectangles]
        # +0.5 and -0.5: pixel centres at integers, so a resize scales about (-0.5, -0.5)
        boxes = (np.asarray(corners) + 0.5) * np.tile(zoom_xy, 2) - 0.5
        order = np.argsort(-np.asarray(margins), kind="stable")
        return Faces(boxes[order].astype(np.float32), np.asarray(margins, np.float32)[order])
