"""Several detectors in turn: the next one sees only the pictures in which those before it found nothing.

``hog,mtcnn`` costs about what HOG costs on portraits and still finds the turned and covered faces. Which of the
detectors answered differs from picture to picture, and each draws boxes in its own way; a chain therefore gives all
boxes as HOG would draw them (`facemill.boxes`): a face has one size and one place whoever found it, and
`box_convention` is true of every picture. `Faces.found_by` names the detector: scores keep its scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.boxes import HOG_BOXES
from facemill.detect import Detector, Faces, build_detector, detector_names, require_rgb
from facemill.errors import FacemillError


def build_chain(names: str, *, min_face_px: int, device: str, options: Mapping[str, Any]) -> Detector:
    """The chain of several detectors.

    Args:
        names: with commas, from fast to strong: "hog,mtcnn".
        min_face_px: about the shortest side of a face worth finding.
        device: where their nets run.
        options: by detector: ``{"dsfd": {"weights": path}}``.

    Raises:
        FacemillError: an unknown detector, one named twice, or options of one that is not in the chain.
    """
    parts = detector_names(names)
    if len(set(parts)) < len(parts):
        raise FacemillError(f"detector {names!r} names a detector twice.")
    if foreign := sorted(set(options) - set(parts)):
        raise FacemillError(f"Options for {', '.join(foreign)}, but the chain is {', '.join(parts)}.")
    if shapeless := [part for part in parts if not isinstance(options.get(part, {}), Mapping)]:
        raise FacemillError(f"Options of {', '.join(shapeless)} must be a group of names and values.")
    return ChainDetector(
        [build_detector(part, min_face_px=min_face_px, device=device, **options.get(part, {})) for part in parts]
    )


class ChainDetector:
    """Asks detectors in turn, from fast to strong, for what the one before did not find; see the module's docstring."""

    box_convention = HOG_BOXES

    def __init__(self, detectors: Sequence[Detector]) -> None:
        if not detectors:
            raise ValueError("a chain needs at least one detector")
        self.detectors = tuple(detectors)
        self.name = ",".join(detector.name for detector in self.detectors)

    def detect(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Faces]:
        """One `Faces` for each picture, from the first detector that found any; each is called once at most."""
        for picture in pictures:
            require_rgb(picture)
        found = [Faces.empty()] * len(pictures)
        open_rows = list(range(len(pictures)))
        for detector in self.detectors:
            if not open_rows:
                break
            for row, faces in zip(open_rows, detector.detect([pictures[row] for row in open_rows]), strict=True):
                found[row] = _as_hog(faces, detector)
            open_rows = [row for row in open_rows if not len(found[row])]
        return found


def _as_hog(faces: Faces, detector: Detector) -> Faces:
    boxes = detector.box_convention.to_hog(faces.boxes_xyxy).astype(np.float32)
    return Faces(boxes, faces.scores, faces.points5, faces.found_by or detector.name)
