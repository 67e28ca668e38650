"""Landmark predictors (S8) behind one door: a picture and boxes in, 68 points for each box out.

A predictor is one module of this package whose file name is the name that ``params.yaml`` uses (`dlib`, `mesh`); it
registers its builder with ``@register("name")`` and says in `SIGNATURE` which weights it has and in `TERMS` under which
terms (`facemill.terms`). Nothing here imports one before it is asked for.

Points are numbered as iBUG 300-W numbers them, from 0: 0–16 jaw, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 mouth;
"left" is the left of the picture. Two predictors put the same point at slightly different places (the mesh's jaw is
that of the skull, dlib's the outline that one sees), so crops of one are not to be mixed with crops of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facemill.align import five_points
from facemill.boxes import HOG_BOXES, LANDMARK_BOXES, BoxConvention
from facemill.landmarks._upright import TURN_FROM, Square, five_in, hog_square, roll_of, turn_of, upright_boxes
from facemill.options import checked_options
from facemill.registry import Registry

__all__ = [
    "BROWS",
    "EYES",
    "JAW",
    "LEFT_EYE",
    "MOUTH",
    "NOSE",
    "PREDICTORS",
    "RIGHT_EYE",
    "TURN_FROM",
    "LandmarkPredictor",
    "Square",
    "build_predictor",
    "doubt",
    "five_in",
    "hog_square",
    "landmark_box",
    "look_again",
    "register",
    "roll_of",
    "signature",
    "turn_of",
    "upright_boxes",
]

JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)


class LandmarkPredictor(Protocol):
    """What a predictor is: a name, `predict`, and `look`, which also says how sure it is."""

    name: str

    def predict(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float32]:
        """RGB uint8 H×W×3 and (N, 4) boxes -> (N, 68, 2) float32, x, y in picture pixels.

        Points may lie past the edge; those of a box outside the picture mean nothing.

        Args:
            picture: RGB uint8 H×W×3.
            boxes_xyxy: (N, 4), one for each face.
            convention: how whoever found them draws boxes (`Detector.box_convention`).
            points5: (N, 5, 2), eyes, nose tip and mouth corners where they are known (`Faces.points5`, or those of the
                frame before): a face that lies on its side is turned upright by them before it is looked at.

        Raises:
            ValueError: a picture that is not RGB, or NaN.
        """

    def look(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The points as `predict` gives them, and (N,) float32 presence: the logit of there being a face, NaN from a
        predictor that does not tell. Arguments and errors as of `predict`."""


def doubt(
    predictor: LandmarkPredictor, picture: npt.NDArray[np.uint8], points: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """(N,): how far points move when they are looked for again from where they were found, in parts of the distance of
    the outer corners of the eyes; infinity where these are in one place.

    Where something covers a face, where it is past profile or where there is none, points depend on where the search
    began (`facemill.quality.MOST_DOUBT` says how well that tells). Takes as long as finding them.

    Args:
        predictor: that found the points.
        picture: RGB uint8 H×W×3.
        points: (N, 68, 2), as it found them.
    """
    return look_again(predictor, picture, points)[1]


def look_again(
    predictor: LandmarkPredictor, picture: npt.NDArray[np.uint8], points: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What `doubt` looks at: where the points (N, 68, 2) are when they are looked for again, their doubt (N,), and
    their presence (N,), which is NaN from a predictor that does not tell. Arguments as of `doubt`."""
    fives = np.array([five_points(each) for each in points]).reshape(-1, 5, 2)
    again, presence = predictor.look(picture, upright_boxes(points), LANDMARK_BOXES, points5=fives)
    moved = np.linalg.norm(again - points, axis=2).mean(axis=1)
    apart = np.linalg.norm(points[:, 36] - points[:, 45], axis=1)
    return again, np.where(apart > 0, moved / np.maximum(apart, 1e-6), np.inf).astype(np.float32), presence


def build_predictor(name: str, **options: Any) -> LandmarkPredictor:
    """The predictor registered under `name`.

    Args:
        name: of the predictor.
        options: the keyword-only parameters of its builder (see its module).

    Raises:
        FacemillError: no such predictor (with those there are), or an option that it does not have or cannot use.
    """
    builder = PREDICTORS[name]
    return builder(**checked_options(builder, options, whose=name, key="landmark options"))


def signature(name: str) -> str:
    """The predictor of that name with its weights, as tables and models name it: "mesh c7d54204ce04".

    Raises:
        FacemillError: no such predictor.
    """
    found: str = PREDICTORS.module(name).SIGNATURE
    return found


def landmark_box(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(N, 68, 2) -> (N, 4) float32, the tight boxes around the points, which `LANDMARK_BOXES` are."""
    corners = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1)
    return corners.astype(np.float32)


PREDICTORS: Registry[Callable[..., LandmarkPredictor]] = Registry("landmark predictor", __name__)
"""Builders ``(**options) -> LandmarkPredictor`` by name."""
register = PREDICTORS.register
