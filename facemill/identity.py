"""Whether two faces show the same person: dlib's ResNet embedding.

King 2017, "High Quality Face Recognition with Deep Metric Learning" (dlib blog): a ResNet of 29 layers, 128 numbers a
face, trained so that the same person lies within 0.6. The model is in the public domain (CC0). On LFW 98.3 % of pairs
are right at 0.6; 141 ms a face on one CPU core, so embed candidates and references, not every frame.

It compares faces that the user named with each other; nothing here looks strangers up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dlib
import numpy as np
import numpy.typing as npt

from facemill.dlib_models import dlib_model_path

DIMENSIONS = 128
SAME_PERSON = 0.6
"""Euclidean distance under which two embeddings are of one person, as dlib's author gives it."""
CHIP_PX, CHIP_PADDING = 150, 0.25
"""The net's own crop, aligned by eyes and nose: what it was trained with."""


class Embedder:
    """dlib's face recognition net, loaded once a process (22 MB)."""

    def __init__(self) -> None:
        self._net = _load_net()

    def embed(self, picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """RGB uint8 H×W×3 and (N, 68, 2) landmarks -> (N, 128) float32; all N in one batch."""
        points = np.asarray(landmarks)
        if points.ndim != 3 or points.shape[1:] != (68, 2):
            raise ValueError(f"landmarks: expected (N, 68, 2), got {points.shape}")
        if len(points) == 0:
            return np.zeros((0, DIMENSIONS), np.float32)
        return self.embed_chips(face_chips(picture, points))

    def embed_chips(self, chips: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """RGB uint8 150×150×3 chips of `face_chips`, from any number of pictures -> (N, 128) float32."""
        if not chips:
            return np.zeros((0, DIMENSIONS), np.float32)
        return np.array(self._net.compute_face_descriptor(chips), np.float32)


def face_chips(picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """The net's aligned 150×150 crops of (N, 68, 2) landmarks."""
    if len(landmarks) == 0:
        return []
    shapes = dlib.full_object_detections()
    for points in np.rint(landmarks).astype(int):
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        parts = dlib.points([dlib.point(x, y) for x, y in points.tolist()])
        shapes.append(dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), parts))
    picture = np.ascontiguousarray(picture)
    return list(dlib.get_face_chips(picture, shapes, size=CHIP_PX, padding=CHIP_PADDING))


def distance(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Euclidean distance along the last axis, broadcast over the others: (…, 128), (…, 128) -> (…)."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(
        np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=-1
    )
    return apart


@lru_cache(maxsize=1)
def _load_net() -> Any:
    return dlib.face_recognition_model_v1(str(dlib_model_path("dlib_face_recognition_resnet_model_v1.dat")))
