"""Which frames of a video show faces best: clear ones of each stretch of time, and no two that show the same.

    frame ──► six a second are looked at ──► each face's clearness and look
          ──► of each window the frame in which a face adds the most to the `Gallery`, where near copies leave and at
              most so many stay

What a frame is worth is asked for each of its faces, the smaller ones too: whose face is wanted is decided later.
MTCNN finds them, since a frame that it does not see is one that nobody gets to see: where HOG is asked, faces that are
turned or small are lost. Its five points align a face well enough to compare it, and no model with narrower terms is
asked about pictures for which another one may have been wanted.

Nothing here grows with the video: some frames of a window wait, and of what was chosen as many pictures as are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill.align import crop_affine, crop_points, five_points, transform, warp
from facemill.boxes import SAME_FACE_IOU, iou
from facemill.detect import Detector, Faces
from facemill.detect.mtcnn import build
from facemill.face_looks import LOOK_BYTES
from facemill.media.view import View
from facemill.quality import sharpness
from facemill.sources._gallery import COVERAGE, CROP_PX, EYES, Face, Gallery, Look, look_of, part_of
from facemill.sources._sampling import Sampled
from facemill.video import Frame

LOOKS_A_SECOND, LOOKED_AT_ONCE = 6.0, 6
"""MTCNN takes half as long for a picture of several as for one alone."""
REFERENCE_LOOKS_A_SECOND = 2.0
"""Smaller faces are searched there, which takes up to twice as long."""
SEARCH_PX = 640
"""Larger frames are searched at this size; faces are judged at their own."""
LEAST_SCORE = 0.9
"""Probability under which what MTCNN finds is rather something else."""
FACES, HELD = 6, 8
"""So many faces of a frame count, the largest; so many frames of a window wait at a time."""
FORGOTTEN = 3
"""Looks after which a face that was not seen is another one when something is seen there again: half a second."""
SHARED = 0.8
"""A face that adds nearly as much in a frame that is taken for another one needs none of its own."""

LARGE_PX = 256.0
"""The side of a face from which on more pixels add nothing."""
HALF_SHARP, HALF_OPEN = 50.0, 4.0
"""`facemill.quality.sharpness`, and gradient across the eyes, of a face that is half as clear as it could be."""
DARK, BRIGHT = 60.0, 220.0
"""Mean grey levels of a face, as in `facemill.coverage`, beyond which light counts against it."""
FRONTAL_DEG, NOSE_DEG = 60.0, 82.0
"""Yaw from which on a face is no reference; and by how much a face is turned whose nose lies beside its middle by the
distance of the eyes. On eight clips of one person each that correlates with the pose by 68 points, 0.95 in the median.
"""

_REACH = 2.6
"""Side of what is looked at around a face, over the shorter side of its box: the crop, at any roll."""
_EYE_REACH = (19, 11)
_BOX_OVER_HOG = 0.85
"""MTCNN's boxes are smaller than those by which sizes are told, by 4 to 11 %."""

Array = npt.NDArray[Any]
_MIDDLES = five_points(crop_points(CROP_PX, COVERAGE))
_EYES_APART = float(np.linalg.norm(_MIDDLES[1] - _MIDDLES[0]))


@dataclass
class _Shown:
    """A frame with its faces, and what each would add to the gallery, by the number that it has within its window."""

    frame: Frame
    shot: int
    faces: dict[int, Face] = field(default_factory=dict)
    adds: dict[int, float] = field(default_factory=dict)


class BestFrames:
    """Chooses as the module says; see `facemill.sources._sampling.Choice`."""

    def __init__(self, every_s: float, most: int, min_face_px: int, *, reference: bool = False) -> None:
        """
        Args:
            every_s: length of a window, of which each face has one frame at most; none reaches across a cut.
            most: frames that are chosen.
            min_face_px: smaller faces do not count; in pixels of a frame as people see it, as HOG draws boxes.
            reference: they are to show one person. Of each frame only the largest face counts, the more the less it is
                turned; the clearest are chosen of who is seen most, rather than the most different.
        """
        torch.set_num_threads(1)  # as everywhere in workers: how many there are decides bits
        self._every_s, self._min_face_px, self._reference = every_s, min_face_px, reference
        self._look_s = min(every_s, 1 / (REFERENCE_LOOKS_A_SECOND if reference else LOOKS_A_SECOND))
        self._start_s: float | None = None
        self._last_look: tuple[int, int] | None = None
        self._waiting: list[tuple[tuple[int, int], _Shown]] = []  # with the shot and the number of its window
        self._window = _Window()
        self._window_now: tuple[int, int] | None = None
        self._gallery = Gallery(most, of_one=reference)
        self._detector: Detector | None = None
        self.looked_at = 0

    def offer(self, frame: Frame, shot: int) -> None:
        """The next frame, and the number of its shot."""
        self._start_s = frame.time_s if self._start_s is None else self._start_s
        passed_s = frame.time_s - self._start_s
        look = (shot, int(passed_s / self._look_s + 1e-9))
        if look == self._last_look:
            return
        self._last_look = look
        self._waiting.append(((shot, int(passed_s / self._every_s + 1e-9)), _Shown(frame, shot)))
        if len(self._waiting) == LOOKED_AT_ONCE:
            self._look()

    def chosen(self) -> list[Sampled]:
        """The frames that were chosen among those offered, in the order of their times."""
        self._look()
        self._settle()
        return self._gallery.pictures()

    def _look(self) -> None:
        """Finds and judges the faces of the frames that wait."""
        views = [View.whole(shown.frame, SEARCH_PX) for _, shown in self._waiting]
        if views and self._detector is None:  # all frames of a video have one size
            least = self._min_face_px * _BOX_OVER_HOG * float(views[0].scale.min())
            self._detector = build(min_face_px=max(12, round(least)))
        found = self._detector.detect([view.rgb for view in views]) if self._detector else []
        for (window, shown), view, faces in zip(self._waiting, views, found, strict=True):
            if window != self._window_now:
                self._settle()
                self._window_now = window
            boxes, judged = self._judged(shown.frame, view, faces)
            self._window.add(shown, boxes, judged, [self._gallery.worth(face) for face in judged])
        self.looked_at += len(self._waiting)
        self._waiting.clear()

    def _judged(self, frame: Frame, view: View, found: Faces) -> tuple[Array, list[Face]]:
        """(N, 4) boxes and the N faces of a frame that count, the largest first."""
        assert self._detector is not None
        assert found.points5 is not None
        squares = self._detector.box_convention.to_hog(found.boxes_xyxy)
        sides = (squares[:, 2] - squares[:, 0]) / float(view.scale.min())  # in pixels of the frame as people see it
        boxes, fives = view.to_frame(found.boxes_xyxy), view.to_frame(found.points5)
        counts = (sides >= self._min_face_px) & (found.scores >= LEAST_SCORE)
        order = [row for row in np.argsort(-sides, kind="stable") if counts[row]][: 1 if self._reference else FACES]
        judged = [(row, self._judge(frame, boxes[row], fives[row], float(sides[row]))) for row in order]
        kept = [(row, face) for row, face in judged if face is not None]
        return boxes[[row for row, _ in kept]], [face for _, face in kept]

    def _judge(self, frame: Frame, box: Array, five: Array, side_px: float) -> Face | None:
        """One face; None where its points do not say how it lies."""
        view = View.of(frame, box, _REACH, min(1.0, LARGE_PX / side_px))
        points = view.to_view(five)
        try:
            affine = crop_affine(points, CROP_PX, COVERAGE)
        except ValueError:  # all in one place
            return None
        if not view.rgb.size:
            return None
        crop = warp(view.rgb, affine, CROP_PX)
        grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
        look = look_of(crop, grey)
        clearness = min(1.0, side_px / LARGE_PX) * _inside(frame, box) * _lit(look) * _seen(crop, grey)
        return Face(clearness * _frontal(transform(points, affine)) if self._reference else clearness, look)

    def _settle(self) -> None:
        """Hangs up what the window has that is over."""
        for shown, faces in self._window.best():
            self._gallery.offer(faces, partial(Sampled.of, shown.frame, shown.shot))
        self._window = _Window()


class _Window:
    """The frames of a stretch of time whose faces add the most, a few at a time."""

    def __init__(self) -> None:
        self._looks, self._numbers = 0, 0
        self._last: dict[int, tuple[int, Array]] = {}  # face → the look at which it was seen last, and its box there
        self._best: dict[int, _Shown] = {}

    def add(self, shown: _Shown, boxes: Array, faces: list[Face], adds: list[float]) -> None:
        """A frame with the boxes (N, 4) of its N faces, and what each adds."""
        self._looks += 1
        before = {number: box for number, (look, box) in self._last.items() if self._looks - look <= FORGOTTEN}
        self._last = {number: self._last[number] for number in before}
        for box, face, more in zip(boxes, faces, adds, strict=True):
            numbers = list(before)
            overlaps = iou(box[None], np.array([before[number] for number in numbers]).reshape(-1, 4))[0]
            known = bool(numbers) and overlaps.max() >= SAME_FACE_IOU
            number = numbers[int(overlaps.argmax())] if known else self._numbers
            self._numbers += not known
            before.pop(number, None)
            self._last[number] = self._looks, box
            shown.faces[number], shown.adds[number] = face, more
        for number, more in shown.adds.items():
            if number not in self._best or more > self._best[number].adds[number]:
                self._best[number] = shown
        while len({id(held) for held in self._best.values()}) > HELD:
            del self._best[self._in_order()[-1]]

    def best(self) -> list[tuple[_Shown, list[Face]]]:
        """Frames so that each face has one in which it adds enough, with the faces that each of them is taken for."""
        taken: list[tuple[_Shown, list[Face]]] = []
        for number in self._in_order():
            own = self._best[number]
            for shown, faces in taken:
                if number in shown.adds and shown.adds[number] >= SHARED * own.adds[number]:
                    faces.append(shown.faces[number])
                    break
            else:
                taken.append((own, [own.faces[number]]))
        return taken

    def _in_order(self) -> list[int]:
        """The faces, those first that add the most."""
        return sorted(self._best, key=lambda number: -self._best[number].adds[number])


def _inside(frame: Frame, box: Array) -> float:
    """0…1, how much of a box (4,) lies in the frame."""
    size_wh = np.array([frame.width, frame.height])
    shown = np.clip(box[2:], -0.5, size_wh - 0.5) - np.clip(box[:2], -0.5, size_wh - 0.5)
    return float(np.prod(shown) / np.prod(box[2:] - box[:2]))


def _lit(look: Look) -> float:
    """0…1, less where the face is too dark or too bright."""
    mean = float(look[:LOOK_BYTES].mean())
    return min(1.0, mean / DARK, (255 - mean) / (255 - BRIGHT))


def _seen(crop: npt.NDArray[np.uint8], grey: npt.NDArray[np.uint8]) -> float:
    """0…1, less where the face is blurred or its eyes are closed.

    Lids are level and an iris is round: what changes from left to right around an eye tells an open one. The clearer
    of both eyes counts, since a turned head shows but one.
    """
    across = max(float(np.abs(np.diff(part_of(grey, eye, _EYE_REACH).astype(np.int16), axis=1)).mean()) for eye in EYES)
    sharp = sharpness(crop, COVERAGE)
    return sharp / (sharp + HALF_SHARP) * across**2 / (across**2 + HALF_OPEN**2)


def _frontal(points: Array) -> float:
    """0…1 of five aligned points (5, 2): less the more the face is turned to a side."""
    beside = points[2, 0] - points[[0, 1, 3, 4], 0].mean()
    return max(0.05, 1 - abs(float(beside)) / _EYES_APART * NOSE_DEG / FRONTAL_DEG)
