"""How good swaps are while a model learns: whose face it is, and whether the expression stayed.

Only some faces of each identity are measured, always the same ones, spread over all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill.boxes import LANDMARK_BOXES
from facemill.measures import landmark_error, nearest
from facemill.nets import SwapModel
from facemill.pictures import RGB
from facemill.train.data import FaceSet
from facemill.train.evaluate import in_parts
from facemill.train.previews import spread

if TYPE_CHECKING:
    from facemill.identity import Embedder
    from facemill.landmarks import LandmarkPredictor

MEASURED_PX = 256
"""Faces are enlarged to this side for dlib, whose nets were trained on faces of 150 px."""


class SwapMeasures:
    """`identity_distance/A-as-B` and `landmark_error/A-as-B` (%) for faces of A drawn as B."""

    def __init__(
        self,
        references: Mapping[str, list[list[float]]],
        faces: int,
        landmarks: str = "dlib",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            references: embeddings that define each identity.
            faces: so many of each are measured; 0 measures nothing.
            landmarks: the predictor, by name.
            options: of it.
        """
        self._references = {name: np.asarray(rows, np.float32) for name, rows in references.items()}
        self._faces = faces
        self._predictor, self._options = landmarks, dict(options or {})

    def __call__(self, model: SwapModel, sets: Mapping[str, FaceSet]) -> dict[str, float]:
        """Means over the measured faces.

        The distance is that of the swap's embedding to the nearest reference of who it should be (the same person lies
        within 0.6). The error is how far the 68 points move from face to swap, in % of the distance of the outer
        corners of the eyes, as in the report.
        """
        if self._faces == 0:
            return {}
        was_training, device = model.training, next(model.parameters(), torch.empty(0)).device
        model.eval()
        measured: dict[str, float] = {}
        for name, faces in sets.items():
            some = spread(faces, min(self._faces, len(faces))).to(device)
            views = some.view(model.input_px)
            boxes = _boxes(some, model.input_px)
            before = self._points(_pictures(views), boxes)
            for other in (each for each in sets if each != name):
                with torch.inference_mode():
                    pictures = _pictures(in_parts(partial(model, identity=other), views))
                after = self._points(pictures, boxes)
                measured[f"identity_distance/{name}-as-{other}"] = self._distance(pictures, after, other)
                measured[f"landmark_error/{name}-as-{other}"] = fmean(map(landmark_error, before, after))
        model.train(was_training)
        return measured

    def find(self, drawn: npt.NDArray[np.uint8], expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Landmarks of drawn faces.

        Args:
            drawn: (N, P, P, 3) RGB uint8.
            expected: (N, 68, 2), where they ought to be, in pixels of these.

        Returns:
            (N, 68, 2) likewise.
        """
        zoom = MEASURED_PX / drawn.shape[1]
        side = (MEASURED_PX, MEASURED_PX)
        large = [np.asarray(cv2.resize(each, side, interpolation=cv2.INTER_CUBIC), np.uint8) for each in drawn]
        points = (expected + 0.5) * zoom - 0.5
        boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float32)
        found: npt.NDArray[np.float64] = (self._points(large, boxes).astype(np.float64) + 0.5) / zoom - 0.5
        return found

    def _points(self, pictures: list[RGB], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        found = [self._landmarks.predict(p, box[None], LANDMARK_BOXES) for p, box in zip(pictures, boxes, strict=True)]
        return np.concatenate(found)

    def _distance(self, pictures: list[RGB], points: npt.NDArray[np.float32], identity: str) -> float:
        from facemill.identity import face_chips

        chips = [face_chips(p, each[None])[0] for p, each in zip(pictures, points, strict=True)]
        return fmean(nearest(each, self._references[identity]) for each in self._embedder.embed_chips(chips))

    @cached_property
    def _embedder(self) -> Embedder:
        from facemill.identity import Embedder

        return Embedder()

    @cached_property
    def _landmarks(self) -> LandmarkPredictor:
        from facemill.landmarks import build_predictor

        return build_predictor(self._predictor, **self._options)


def _pictures(views: Tensor) -> list[RGB]:
    """(N, 3, P, P) in 0…1 → enlarged pictures."""
    pixels = views.float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    side = (MEASURED_PX, MEASURED_PX)
    return [np.asarray(cv2.resize(each, side, interpolation=cv2.INTER_CUBIC), np.uint8) for each in pixels]


def _boxes(faces: FaceSet, input_px: int) -> npt.NDArray[np.float32]:
    """(N, 4): the boxes around the true points of the plain views, in the enlarged pictures."""
    stored_px = faces.faces.shape[-1]
    centred = (faces.landmarks.cpu().numpy() + 0.5) / stored_px - 0.5
    points = (centred * faces.field + 0.5) * MEASURED_PX - 0.5
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float32)
