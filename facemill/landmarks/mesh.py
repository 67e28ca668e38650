"""MediaPipe Face Mesh V2: 478 points in three dimensions, of which 68 are taken.

The net (256 px, 2.6 MB) is Google's, under the Apache licence 2.0 by the model card that its redistributors quote; it
is run by OpenCV's DNN module. `facemill weights mesh` fetches the file. The list of the 68 points is chosen by anatomy,
on MediaPipe's own contours, so that no picture with research terms decides it.

Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs"; Grishchenko et al. 2020,
"Attention Mesh" (whose accuracy V2 reaches without its special layers).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import transform
from facemill.boxes import HOG_BOXES, BoxConvention
from facemill.detect import require_rgb
from facemill.errors import FacemillError
from facemill.foreign_files import BrokenZip, open_regular, zip_member
from facemill.landmarks import register
from facemill.landmarks._upright import Square, around, hog_square, points_square
from facemill.terms import Terms, Use

INPUT_PX = 256
SHA256 = "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5"
"""Of face_landmarks_detector.tflite, the only net whose outputs this module knows."""
SIGNATURE = f"mesh {SHA256[:12]}"
TERMS = (
    Terms(
        "Face Mesh V2",
        Use.ANY,
        licence="Apache-2.0",
        source="Google's model card, as those quote it who pass the file on",
    ),
)
TASK_MEMBER = "face_landmarks_detector.tflite"
"""Its name in MediaPipe's bundle, face_landmarker.task, which is a zip file."""
MAX_BYTES = 64_000_000

FROM_POINTS = (-0.060, 3.605)
"""From five points: the crop's middle up from between eyes and mouth, and its side, in parts of their distance."""
FROM_HOG = 1.642
"""From a box: the crop's side over that of HOG's square around the same face."""
FROM_MESH = 1.5
"""The second look: the crop's side over the longer side of the points' box, as MediaPipe follows a face."""
SURE = 12.0
"""From this presence on the points are taken as they are: an upright face has 15 to 23, one that is turned by more than
the net bears, some 40°, at most 11."""
ROLLS = 8
"""So many rolls are tried where the net is not sure."""

# fmt: off
VERTICES = (
    127, 234, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 454, 356,  # jaw: the oval in even steps
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows, upper edge
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # bridge from root to tip; wings and base
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # lids, from corner to corner
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # lips, outer edge
    78, 82, 13, 312, 308, 317, 14, 87,  # lips, inner edge
)
# fmt: on
"""The mesh's vertex for each of the 68 points. The inner corner of the right eye is vertex 133, of the left one 362."""
_EYE_CORNERS = (33, 263)


@register("mesh")
def build(*, weights: Path | None = None) -> MeshPredictor:
    """Face Mesh V2.

    Args:
        weights: face_landmarks_detector.tflite, or the bundle face_landmarker.task that holds it.
    """
    if weights is None:
        raise FacemillError(
            "landmarks 'mesh' bring no weights: fetch them with `facemill weights mesh`, which says how to name them"
        )
    return MeshPredictor(weights)


@dataclass(frozen=True)
class Mesh:
    """A face as the net sees it.

    points: (478, 3) float64, x and y in picture pixels, z in the same unit, smaller towards the camera, 0 about the
    middle of the head. presence: logit of there being a face; under 0 the points mean nothing.
    """

    points: npt.NDArray[np.float64]
    presence: float

    @property
    def roll(self) -> float:
        """Roll of the face, in radians, by the outer corners of the eyes."""
        across = self.points[_EYE_CORNERS[1], :2] - self.points[_EYE_CORNERS[0], :2]
        return float(np.arctan2(across[1], across[0]))


class MeshPredictor:
    """Face Mesh V2, loaded once a process; see `facemill.landmarks.LandmarkPredictor`. For one thread at a time."""

    name = "mesh"

    def __init__(self, weights: Path) -> None:
        """Raises FacemillError: the file cannot be read, or is another one than `SHA256`."""
        self._net = _load(weights)

    def predict(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float32]:
        """See `facemill.landmarks.LandmarkPredictor`."""
        return self.look(picture, boxes_xyxy, convention, points5=points5)[0]

    def look(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `facemill.landmarks.LandmarkPredictor`."""
        found = list(self.meshes(picture, boxes_xyxy, convention, points5=points5))
        points = np.array([mesh.points[VERTICES, :2] for mesh in found], np.float32).reshape(-1, 68, 2)
        return points, np.array([mesh.presence for mesh in found], np.float32)

    def meshes(
        self,
        picture: npt.NDArray[np.uint8],
        boxes_xyxy: npt.NDArray[Any],
        convention: BoxConvention = HOG_BOXES,
        *,
        points5: npt.NDArray[Any] | None = None,
    ) -> Iterator[Mesh]:
        """The whole mesh of each face; arguments and errors as of `predict`."""
        require_rgb(picture)
        boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (points5 is not None and not np.isfinite(points5).all()):
            raise ValueError("boxes_xyxy or points5 holds NaN or infinity")
        for row, box in enumerate(boxes):
            by_box = hog_square(box, convention).grown(FROM_HOG)
            first = by_box if points5 is None else _square_of(points5[row])
            yield self._look_twice(picture, first)

    def _look_twice(self, picture: npt.NDArray[np.uint8], first: Square) -> Mesh:
        """From a rough square, then from that around the points found there: the net was trained on faces placed so."""
        mesh = self._look_again(picture, self._look(picture, first))
        if mesh.presence >= SURE:
            return mesh
        rolls = first.roll + np.arange(1, ROLLS) * 2 * np.pi / ROLLS
        others = [self._look(picture, first.turned(float(roll))) for roll in rolls]
        best = max(others, key=lambda each: each.presence)
        return mesh if best.presence <= mesh.presence else self._look_again(picture, best)

    def _look_again(self, picture: npt.NDArray[np.uint8], seen: Mesh) -> Mesh:
        again = self._look(picture, around(seen.points[:, :2], seen.roll).grown(FROM_MESH))
        return again if again.presence >= min(SURE, seen.presence) else seen

    def _look(self, picture: npt.NDArray[np.uint8], square: Square) -> Mesh:
        crop, back = square.crop(picture, INPUT_PX)
        self._net.setInput(cv2.dnn.blobFromImage(crop, 1 / 255.0))  # RGB in, RGB to the net, 1×3×256×256
        points, presence = self._net.forward(["Identity", "Identity_1"])
        found = np.asarray(points, np.float64).reshape(478, 3)
        flat = transform(found[:, :2], back)
        return Mesh(np.hstack([flat, found[:, 2:] * square.side / INPUT_PX]), float(np.ravel(presence)[0]))


def _square_of(points5: npt.NDArray[Any]) -> Square:
    """The crop that the net wants, by five points."""
    up, side = FROM_POINTS
    square = points_square(points5)
    shift = square.side * up * np.array([-np.sin(square.roll), np.cos(square.roll)])  # along the face, not the picture
    return Square(square.centre + shift, square.side * side, square.roll)


def read_net(path: Path) -> bytes:
    """The net's bytes out of its own file or the bundle.

    Raises:
        FacemillError: it cannot be read, or holds another net: a copy that was cut off, another version.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise FacemillError(f"{path} cannot be read ({error.strerror or error}): {_REMEDY}") from error
    if len(data) > MAX_BYTES:
        raise FacemillError(f"{path} is too large to be Face Mesh V2: {_REMEDY}")
    for content in (data, _bundled(data)):  # the net's own file has a zip at its end, too, with its description
        if content is not None and hashlib.sha256(content).hexdigest() == SHA256:
            return content
    found = hashlib.sha256(data).hexdigest()
    raise FacemillError(f"{path} is not Face Mesh V2, or not all of it (SHA-256 {found}): {_REMEDY}")


def _bundled(data: bytes) -> bytes | None:
    """The net in a bundle; None where this is none, or a broken one."""
    try:
        return zip_member(io.BytesIO(data), TASK_MEMBER, MAX_BYTES)
    except (KeyError, BrokenZip):
        return None


_REMEDY = "fetch it with `facemill weights mesh`"


@lru_cache(maxsize=1)
def _load(path: Path) -> Any:
    """The net, loaded once a process, by OpenCV's old engine: its new one gives wrong outputs where a net has several.

    Out of memory OpenCV 5.0 takes the new engine whatever it is told, so the bytes that were checked go through a file.
    """
    with NamedTemporaryFile(suffix=".tflite") as file:
        file.write(read_net(path))
        file.flush()
        return cv2.dnn.readNetFromTFLite(file.name, cv2.dnn.ENGINE_CLASSIC)
