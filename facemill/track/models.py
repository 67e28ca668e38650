"""What sees faces in frames: a registered detector, a registered landmark predictor and dlib's embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import five_points
from facemill.boxes import LANDMARK_BOXES, shorter_sides
from facemill.detect import Detector, Faces, build_detector
from facemill.identity import Embedder
from facemill.landmarks import build_predictor, signature, upright_boxes
from facemill.track.view import View
from facemill.video import Frame

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

    @property
    def detector(self) -> str:
        """The detector's name, with what it chose where the name stands for a choice."""
        return self._near.name

    @property
    def predictor(self) -> str:
        """The landmark predictor with its weights, as tables name it."""
        return signature(self._landmarks.name)

    def find(self, frames: Sequence[Frame], min_face_px: int, max_side_px: int) -> list[Faces]:
        """The faces of each frame from `min_face_px` on, in its pixels; larger frames are searched at `max_side_px`."""
        views = [View.whole(frame, max_side_px) for frame in frames]
        found: list[Faces] = []
        # All frames of a video have one size, but nothing here depends on it
        for scale, group in groupby(views, key=lambda view: float(view.scale.min())):
            own = list(group)
            faces = self._sized(min_face_px * scale).detect([view.rgb for view in own])
            found += [_in_frame(view, one, min_face_px) for view, one in zip(own, faces, strict=True)]
        return found

    def search(self, picture: Array, min_face_px: float) -> Array:
        """(N, 4) boxes of the faces in an RGB picture."""
        return self._sized(min_face_px).detect([picture])[0].boxes_xyxy.astype(float)

    def _sized(self, min_face_px: float) -> Detector:
        size = max(12, round(min_face_px))
        if size not in self._by_size:
            if len(self._by_size) >= SIZES_KEPT:
                self._by_size.clear()
            self._by_size[size] = build_detector(self._name, min_face_px=size, device=self._device, **self._options)
        return self._by_size[size]

    def near(self, picture: Array) -> Array:
        """(N, 4) boxes of the faces of about 110 px in a small RGB picture."""
        return self._near.detect([picture])[0].boxes_xyxy.astype(float)

    def landmarks(self, picture: Array, boxes: Array, before: Array | None = None, fives: Array | None = None) -> Array:
        """(N, 68, 2) points from the detector's boxes and, where they are known, the points of the frame before.

        `fives`: (N, 5, 2), eyes, nose tip and mouth corners by which a face is turned upright where nothing is known
        of the frame before.

        A detector's box of the same face differs by a tenth from frame to frame (HOG has cells of 8 pixels and scales
        a fifth apart), and the points follow it. So the box is the mean of the detector's and of the one around the
        points before, and the points are the mean of those from this box and of those from the box around them: they
        tremble by a fifth to a half less, and none leaps (`benchmarks/landmarks.py --video`).
        """
        hog = self._near.box_convention.to_hog(boxes)
        if before is not None:
            hog = (hog + LANDMARK_BOXES.to_hog(upright_boxes(before))) / 2
        first = self._landmarks.predict(picture, hog, points5=fives if before is None else _fives(before))
        again = self._landmarks.predict(picture, upright_boxes(first), LANDMARK_BOXES, points5=_fives(first))
        return (first + again) / 2

    def embed_chips(self, chips: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Embeds crops of `facemill.identity.face_chips`, from any number of pictures: (N, 128)."""
        return self._embedder.embed_chips(chips)

    def embed(self, picture: Array, landmarks: Array) -> Array:
        """Embeds the faces of an RGB uint8 picture with these (N, 68, 2) landmarks: (N, 128)."""
        return np.asarray(self._embedder.embed(picture, landmarks))


def _in_frame(view: View, found: Faces, min_face_px: int) -> Faces:
    """Faces of a view in pixels of its frame, without those that are too small there."""
    boxes = view.to_frame(found.boxes_xyxy).astype(np.float32)
    points5 = None if found.points5 is None else view.to_frame(found.points5).astype(np.float32)
    return replace(found, boxes_xyxy=boxes, points5=points5)[shorter_sides(boxes) >= min_face_px]


def _fives(landmarks: Array) -> Array:
    """(N, 68, 2) landmarks -> (N, 5, 2): what a predictor turns faces upright by."""
    return np.array([five_points(points) for points in landmarks]).reshape(-1, 5, 2)
