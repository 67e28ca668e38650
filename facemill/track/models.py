"""What sees faces in frames: a registered detector, a registered landmark predictor and dlib's embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import five_points
from facemill.boxes import LANDMARK_BOXES
from facemill.detect import Detector, build_detector
from facemill.identity import Embedder
from facemill.landmarks import build_predictor, upright_boxes

Array = npt.NDArray[Any]
NEAR_MIN_FACE_PX = 80  # faces around the last place are brought to 110 px: smaller ones there are somebody else's
SIZES_KEPT = 8  # detectors by least face: loading one takes up to half a second, videos of an archive differ in size


class FaceModels:
    """The models of one process: detector, landmark predictor, embedder. Not for two threads at a time."""

    def __init__(
        self,
        detector: str = "hog",
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
        *,
        landmarks: str = "dlib",
        landmark_options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            detector: by name.
            device: where its net and the embedder's run.
            options: of the detector, as `build_detector` takes them.
            landmarks: the predictor, by name.
            landmark_options: as `build_predictor` takes them.
        """
        self._name, self._device, self._options = detector, device, dict(options or {})
        self._near = build_detector(detector, min_face_px=NEAR_MIN_FACE_PX, device=device, **self._options)
        self._by_size: dict[int, Detector] = {}
        self._landmarks = build_predictor(landmarks, **(landmark_options or {}))
        self._embedder = Embedder(device)

    def search(self, picture: Array, min_face_px: float) -> Array:
        """(N, 4) boxes of the faces in an RGB picture."""
        size = max(12, round(min_face_px))
        if size not in self._by_size:
            if len(self._by_size) >= SIZES_KEPT:
                self._by_size.clear()
            self._by_size[size] = build_detector(self._name, min_face_px=size, device=self._device, **self._options)
        return self._by_size[size].detect([picture])[0].boxes_xyxy.astype(float)

    def near(self, picture: Array) -> Array:
        """(N, 4) boxes of the faces of about 110 px in a small RGB picture."""
        return self._near.detect([picture])[0].boxes_xyxy.astype(float)

    def landmarks(self, picture: Array, boxes: Array, before: Array | None = None) -> Array:
        """(N, 68, 2) points from the detector's boxes and, where they are known, the points of the frame before.

        A detector's box of the same face differs by a tenth from frame to frame (HOG has cells of 8 pixels and scales
        a fifth apart), and the points follow it. So the box is the mean of the detector's and of the one around the
        points before, and the points are the mean of those from this box and of those from the box around them: they
        tremble by a fifth to a half less, and none leaps (`benchmarks/landmarks.py --video`).
        """
        hog = self._near.box_convention.to_hog(boxes)
        if before is not None:
            hog = (hog + LANDMARK_BOXES.to_hog(upright_boxes(before))) / 2
        first = self._landmarks.predict(picture, hog, points5=None if before is None else _fives(before))
        again = self._landmarks.predict(picture, upright_boxes(first), LANDMARK_BOXES, points5=_fives(first))
        return (first + again) / 2

    def embed(self, picture: Array, landmarks: Array) -> Array:
        """Embeds the faces of an RGB uint8 picture with these (N, 68, 2) landmarks: (N, 128)."""
        return np.asarray(self._embedder.embed(picture, landmarks))


def _fives(landmarks: Array) -> Array:
    """(N, 68, 2) landmarks -> (N, 5, 2): what a predictor turns faces upright by."""
    return np.array([five_points(points) for points in landmarks]).reshape(-1, 5, 2)
