"""What sees faces in frames: a registered detector, a registered landmark predictor and dlib's embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import five_points, transform
from facemill.boxes import LANDMARK_BOXES, BoxConvention, shorter_sides
from facemill.detect import Detector, Faces, build_detector
from facemill.identity import Embedder
from facemill.landmarks import (
    Square,
    build_predictor,
    five_in,
    hog_square,
    look_again,
    signature,
    turn_of,
    upright_boxes,
)
from facemill.media.view import View
from facemill.track.match import best_match
from facemill.turned_faces import turned_faces
from facemill.video import Frame

Array = npt.NDArray[Any]
NEAR_MIN_FACE_PX = 80  # faces around the last place are brought to 110 px: smaller ones there are somebody else's
AGAIN_FACE_PX, AGAIN_REACH = 110, 1.9
"""A face that is looked for again is brought to so many pixels, in a part so many times as large."""
AGAIN_TURNS = tuple(tuple(np.radians(turns).tolist()) for turns in ([0, 20, -20], [45, -45, 70, -70]))
"""By how much more than its last roll, clockwise: of the first group the best counts, the second is for a face that
none of them shows. A detector that sees a face at the edge of what it bears draws its box beside it."""
SIZES_KEPT = 8  # detectors by least face: loading one takes up to half a second, videos of an archive differ in size


@dataclass(frozen=True)
class SteadyPoints:
    """Landmarks of N faces and how far they are to be trusted, as tables have it (`facemill.quality.are_trusted`).

    points: (N, 68, 2). doubt: (N,) float32. presence: (N,) float32, NaN from a predictor that does not tell.
    """

    points: Array
    doubt: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]


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

    def find_turned(self, frames: Sequence[Frame], min_face_px: int, max_side_px: int) -> list[Faces]:
        """The faces of frames that lie on their side or upside down: each frame is searched turned by a quarter, a half
        and three quarters, at half the size, for faces at least twice as large. Gives their five points."""
        views = [View.whole(frame, max_side_px // 2) for frame in frames]
        return [_in_frame(view, turned_faces(self._sized(min_face_px), view.rgb), min_face_px) for view in views]

    def again(self, frame: Frame, box: Array, roll: float) -> Faces:
        """One face that the detector does not see, looked for around its place in a view that is turned by its last
        roll and, if it is not there, by somewhat more or less.

        Args:
            frame: where it is looked for.
            box: (4,), where it should be.
            roll: in radians, that it had last.

        Returns:
            The face with its five points, which have its roll now, or none.
        """
        side = float(shorter_sides(box[None])[0])
        view = View.of(frame, box, AGAIN_REACH * 1.5, AGAIN_FACE_PX / side)
        if view.rgb.size == 0:
            return Faces.empty(points=True)
        place = self._square(view.to_view(box), 0.0)
        px = round(AGAIN_FACE_PX * AGAIN_REACH)
        expected = (np.array([-1, -1, 1, 1]) * AGAIN_FACE_PX + px - 1) / 2
        for turns in AGAIN_TURNS:
            crops = [place.grown(AGAIN_REACH).turned(roll + more).crop(view.rgb, px) for more in turns]
            seen_in = self._near.detect([crop for crop, _ in crops])
            rows = [best_match(expected, seen.boxes_xyxy) for seen in seen_in]
            scores = [
                -np.inf if row is None else float(seen.scores[row]) for row, seen in zip(rows, seen_in, strict=True)
            ]
            best = int(np.argmax(scores))
            row, seen, more, back = rows[best], seen_in[best], turns[best], crops[best][1]
            if row is None:
                continue
            # From the crop to the view: the middle is turned back, the size stays
            drawn = seen.boxes_xyxy[row].astype(float)
            middle = transform(((drawn[:2] + drawn[2:]) / 2)[None], back)[0]
            half = (drawn[2:] - drawn[:2]) / 2 * place.side * AGAIN_REACH / px
            there = np.concatenate([middle - half, middle + half])
            five = five_in(self._square(there, roll + more))
            points = self.landmarks(view.rgb, there[None], None, five[None])[0]
            found = view.to_frame(there).astype(np.float32)[None]
            exact = view.to_frame(five_points(points)).astype(np.float32)[None]
            return Faces(found, seen.scores[[row]], exact, seen.found_by)
        return Faces.empty(points=True)

    def _square(self, box: Array, roll: float) -> Square:
        return hog_square(box, self._near.box_convention, roll)

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
        """(N, 68, 2), the points that `look` finds."""
        return self.look(picture, boxes, before, fives).points

    def look(
        self, picture: Array, boxes: Array, before: Array | None = None, fives: Array | None = None
    ) -> SteadyPoints:
        """Points from the detector's boxes and, where they are known, the points of the frame before.

        `fives`: (N, 5, 2), eyes, nose tip and mouth corners by which a face is turned upright where nothing is known
        of the frame before.

        A detector's box of the same face differs by a tenth from frame to frame (HOG has cells of 8 pixels and scales
        a fifth apart), and the points follow it. So the box is the mean of the detector's and of the one around the
        points before, and the points are the mean of those from this box and of those from the box around them: they
        tremble by a fifth to a half less, and none leaps (`benchmarks/landmarks.py --video`).
        """
        known = fives if before is None else _fives(before)
        hog = _hog_boxes(boxes, self._near.box_convention, known)
        if before is not None:
            hog = (hog + _hog_boxes(upright_boxes(before), LANDMARK_BOXES, known)) / 2
        first = self._landmarks.predict(picture, hog, points5=known)
        again, doubt, presence = look_again(self._landmarks, picture, first)
        return SteadyPoints((first + again) / 2, doubt, presence)

    def embed_chips(self, chips: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Embeds crops of `facemill.identity.face_chips`, from any number of pictures: (N, 128)."""
        return self._embedder.embed_chips(chips)

    def embed(self, picture: Array, landmarks: Array) -> Array:
        """Embeds the faces of an RGB uint8 picture with these (N, 68, 2) landmarks: (N, 128)."""
        return np.asarray(self._embedder.embed(picture, landmarks))


def _hog_boxes(boxes: Array, convention: BoxConvention, fives: Array | None) -> Array:
    """(N, 4): as HOG would draw them. What a convention says of up and down turns with the face, where its roll is
    known."""
    if fives is None:
        return convention.to_hog(boxes)
    squares = [hog_square(box, convention, turn_of(five)) for box, five in zip(boxes, fives, strict=True)]
    return np.array([[*(one.centre - one.side / 2), *(one.centre + one.side / 2)] for one in squares])


def _in_frame(view: View, found: Faces, min_face_px: int) -> Faces:
    """Faces of a view in pixels of its frame, without those that are too small there."""
    boxes = view.to_frame(found.boxes_xyxy).astype(np.float32)
    points5 = None if found.points5 is None else view.to_frame(found.points5).astype(np.float32)
    return replace(found, boxes_xyxy=boxes, points5=points5)[shorter_sides(boxes) >= min_face_px]


def _fives(landmarks: Array) -> Array:
    """(N, 68, 2) landmarks -> (N, 5, 2): what a predictor turns faces upright by."""
    return np.array([five_points(points) for points in landmarks]).reshape(-1, 5, 2)
