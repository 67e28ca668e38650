"""What a net for segmentation says is no face lies in front of it. The net comes from an ONNX file that people bring.

OpenCV runs it on the square that is shown to the model, brought to the net's own size. Two kinds of answers are
understood, as nets of the field give them: one channel, the share of a pixel that is uncovered face (as XSeg gives it,
a sigmoid's 0…1 or logits), and a channel for each class (as BiSeNet gives it), of which some are the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.errors import FacemillError
from facemill.swap.mask import face_mask
from facemill.swap.occlusion.methods import FaceView, InFront, OcclusionMethod, Picture

FACE_CLASSES = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)
"""Of CelebAMask-HQ's 19 classes, by which BiSeNet for faces is trained as a rule: skin, brows, eyes, glasses, nose,
mouth and lips. The old person's own glasses are part of what is replaced."""
LEAST_FACE = 0.1
"""Share of the hull that must be uncovered face: less is a face that the net does not see, not one that is covered."""


class SegmentedOcclusion(OcclusionMethod):
    """Finds what a net from a file says is no face, inside the hull of the landmarks."""

    def __init__(
        self,
        weights: Path,
        *,
        input_px: int = 256,
        face_classes: Sequence[int] | None = None,
        channels_last: bool = False,
        bgr: bool = False,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """
        Args:
            weights: an ONNX file.
            input_px: side of the square that the net takes.
            face_classes: which channels of the answer are face; None: `FACE_CLASSES`.
            channels_last: whether it takes (1, H, W, 3) and not (1, 3, H, W).
            bgr: whether it takes blue first.
            mean, std: subtracted from values in 0…1, and divided by, channel by channel as the net takes them.

        Raises:
            FacemillError: no such file, or none that OpenCV reads or runs.
        """
        self._path, self._side = weights, input_px
        self._classes = FACE_CLASSES if face_classes is None else tuple(face_classes)
        self._last, self._bgr = channels_last, bgr
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if self._mean.shape != (3,) or self._std.shape != (3,) or (self._std <= 0).any():
            raise FacemillError("convert.occlusion_options: mean and std are three numbers each, those of std above 0")
        if not 16 <= input_px <= 2048:
            raise FacemillError(f"convert.occlusion_options.input_px must lie between 16 and 2048, got {input_px}")
        if not self._classes or any(not isinstance(one, int) or one < 0 for one in self._classes):
            raise FacemillError("convert.occlusion_options.face_classes: name at least one class, by its number from 0")
        if not weights.is_file():
            raise FacemillError(f"convert.occlusion_options.weights: there is no file {weights}; correct the path")
        try:
            self._net = cv2.dnn.readNetFromONNX(str(weights))
        except cv2.error as error:
            raise FacemillError(f"{weights} is no ONNX file that OpenCV reads ({error.err})") from error
        self._uncovered(np.full((64, 64, 3), 128, np.uint8))  # an answer of a wrong shape is told before any work

    def find(self, faces: Sequence[FaceView]) -> list[InFront | None]:
        """What lies in front of each face; None where nothing does."""
        return [self._of(face) for face in faces]

    def _of(self, face: FaceView) -> InFront | None:
        side = len(face.fine)
        uncovered = cv2.resize(self._uncovered(face.fine), (side, side), interpolation=cv2.INTER_LINEAR)
        points = (np.asarray(face.landmarks) + 0.5) * (side / len(face.crop)) - 0.5
        inside = face_mask(points, side, 0.0)
        if float((uncovered * inside).sum()) < LEAST_FACE * float(inside.sum()):
            return None
        hidden = np.asarray((1 - uncovered) * inside, np.float32)
        return InFront(hidden, face.crop) if (hidden > 0.5).any() else None

    def _uncovered(self, picture: npt.NDArray[np.uint8]) -> Picture:
        """(h, w) in 0…1, at the size of the answer."""
        resized = cv2.resize(picture, (self._side, self._side), interpolation=cv2.INTER_LINEAR)
        channels = resized[..., ::-1] if self._bgr else resized
        values = (channels.astype(np.float32) / np.float32(255) - self._mean) / self._std
        blob = values[None] if self._last else np.moveaxis(values, 2, 0)[None]
        try:
            self._net.setInput(np.ascontiguousarray(blob))
            answer = np.asarray(self._net.forward(), np.float32)
        except cv2.error as error:
            raise FacemillError(f"{self._path} cannot be run by OpenCV ({error.err})") from error
        return self._share_of_face(answer)

    def _share_of_face(self, answer: npt.NDArray[Any]) -> Picture:
        if answer.ndim != 4 or len(answer) != 1 or not np.isfinite(answer).all():
            raise FacemillError(
                f"{self._path} answers with {answer.shape}, or not with numbers: wanted is (1, classes, height, width)"
            )
        planes = np.moveaxis(answer[0], 2, 0) if self._last else answer[0]
        if len(planes) == 1:
            is_share = planes.min() >= 0 and planes.max() <= 1
            return np.asarray(planes[0] if is_share else 1 / (1 + np.exp(-planes[0])), np.float32)
        if max(self._classes) >= len(planes):
            raise FacemillError(
                f"{self._path} tells {len(planes)} classes, convert.occlusion_options.face_classes has {self._classes}"
            )
        best = planes.argmax(axis=0)
        return np.isin(best, self._classes).astype(np.float32)
