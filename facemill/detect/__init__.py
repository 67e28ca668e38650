"""Face detectors behind one door: pictures in, one `Faces` for each picture out.

A detector is one module of this package whose file name is the name that ``params.yaml`` uses (`hog`, `mtcnn`, …); it
registers its builder with ``@register("name")``. Nothing here imports a detector before it is asked for, so that a
machine without dlib can still run `mtcnn`, and adding a detector touches no other file.

Two names stand for a choice: `auto` picks by device (`auto.py`), and several names with commas between, such as
``hog,mtcnn``, are asked in turn until one finds a face (`chain.py`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facemill.boxes import BoxConvention, shorter_sides
from facemill.errors import FacemillError
from facemill.options import checked_options
from facemill.registry import Registry

__all__ = [
    "DETECTORS",
    "Detector",
    "Faces",
    "build_detector",
    "detector_modules",
    "detector_names",
    "register",
    "require_rgb",
]


def build_detector(name: str, *, min_face_px: int, device: str = "cpu", **options: Any) -> Detector:
    """The detector registered under `name`, or a chain of several ("hog,mtcnn"), ready to detect.

    Args:
        name: of the detector, or several with commas.
        min_face_px: about the shortest side of a face worth finding; larger is faster.
        device: where its net runs, as torch names it.
        options: the keyword-only parameters of the detector's builder (see its module); for a chain by name,
            ``dsfd={"weights": path}``.

    Raises:
        FacemillError: no such detector (with those there are), or an option that it does not have or cannot use.
    """
    if "," in name:
        chain = importlib.import_module(f"{__name__}.chain")
        built: Detector = chain.build_chain(name, min_face_px=min_face_px, device=device, options=options)
        return built
    builder = DETECTORS[name]
    if min_face_px < 1:
        raise FacemillError(f"min_face_px must be at least 1, got {min_face_px}.")
    taken = checked_options(builder, options, whose=name, key="detector options")
    try:
        return builder(min_face_px=min_face_px, device=device, **taken)
    except ValueError as error:
        raise FacemillError(f"detector {name!r}: {error}") from error


def detector_modules(name: str) -> list[str]:
    """The modules that `build_detector(name)` may take: what decides where it finds faces.

    A detector that chooses others when it is built says so in `CHOICES` of its module, and all of them count.
    """
    parts = detector_names(name)
    found = {*parts, *(["chain"] if len(parts) > 1 else [])}
    for part in parts:
        found.update(getattr(sys.modules[DETECTORS[part].__module__], "CHOICES", ()))
    return [f"{__name__}.{part}" for part in sorted(found)]


def detector_names(name: str) -> list[str]:
    """The single names in what `build_detector` takes: "hog, mtcnn" is two detectors."""
    return [part.strip() for part in name.split(",")]


class Detector(Protocol):
    """What a detector is: a name, a habit of drawing boxes, and `detect`, which finds faces in pictures."""

    name: str
    box_convention: BoxConvention
    """How it draws boxes: what `landmarks` needs to know."""

    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each RGB uint8 H×W×3 picture, strongest face first; pictures may differ in size.

        On the CPU the answer for a picture has the same bits whatever other pictures are asked about with it: work that
        is known by its content must not depend on its company. tests/facemill/test_detect.py holds each detector to it.
        """


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, strongest first; nothing found = zero rows, never None.

    boxes_xyxy: (N, 4) float32, left, top, right, bottom in pixels (pixel centres at integers); may reach past the edge.
    scores: (N,) float32, the detector's own scale (HOG: margin, from 0 up; MTCNN: probability).
    points5: (N, 5, 2) float32, eyes, nose tip, mouth corners as they lie from left to right; None where the detector
    has no points.
    found_by: which detector of a chain they come from, whose scale the scores have; empty where only one was asked.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    points5: npt.NDArray[np.float32] | None = None
    found_by: str = ""

    def __post_init__(self) -> None:
        count = len(self.scores)
        _require_array("scores", self.scores, (count,))
        _require_array("boxes_xyxy", self.boxes_xyxy, (count, 4))
        if self.points5 is not None:
            _require_array("points5", self.points5, (count, 5, 2))
        left, top, right, bottom = self.boxes_xyxy.T
        if bool(np.any(right <= left) or np.any(bottom <= top)):
            raise ValueError("boxes_xyxy must have right > left and bottom > top in every row")

    @classmethod
    def empty(cls, *, points: bool = False) -> Faces:
        """A result without faces: arrays of the right shapes and types with zero rows."""
        points5 = np.zeros((0, 5, 2), np.float32) if points else None
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), points5)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> Faces:
        """The chosen rows as another `Faces` (slice, list of indices or boolean mask)."""
        index: Any = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(rows, slice) and index.size == 0:
            index = index.astype(np.intp)
        points5 = None if self.points5 is None else self.points5[index]
        return Faces(self.boxes_xyxy[index], self.scores[index], points5, self.found_by)

    def __iter__(self) -> Iterator[Faces]:
        return (self[row : row + 1] for row in range(len(self)))

    @property
    def size_px(self) -> npt.NDArray[np.float32]:
        """(N,) the shorter side of each box in pixels."""
        return shorter_sides(self.boxes_xyxy)


def require_rgb(picture: npt.NDArray[np.uint8]) -> None:
    """Raise ValueError unless `picture` is uint8 H×W×3 with at least one pixel, as the whole library has it."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ValueError(f"expected an RGB picture, uint8 H×W×3, got {picture.dtype} {picture.shape}")


def _require_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        raise ValueError(f"{name}: expected float32 {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")


DETECTORS: Registry[Callable[..., Detector]] = Registry("detector", __name__)
"""Builders ``(min_face_px, device, **options) -> Detector`` by name."""
register = DETECTORS.register
