"""Follows the face of one identity through a video; every other face is known only to be left alone.

    nobody in sight ──► search the whole frame (a stride at a time) ──► embed each new face ──► the wanted one: follow
    following       ──► detect around the last place; every `detect_every` frames search the whole frame
                    ──► embed again every `verify_every` frames, after a jump, and while the detector does not see it
    a scene cut     ──► forget everything

Embedding costs as much as following, so faces that were found to be somebody else are remembered by their place and
not embedded again and again. Where several faces are the wanted person (a mirror, a small inset), the largest is taken.
Several people at once: `facemill.swap.people`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from facemill.boxes import shorter_sides
from facemill.embeddings import DIMENSIONS
from facemill.errors import InputError
from facemill.landmarks import landmark_box
from facemill.swap.settings import FinderSettings
from facemill.track.cuts import CutDetector
from facemill.track.match import JUMP_IOU, best_match, overlap
from facemill.track.view import View, landmark_view
from facemill.video import Frame

Array = npt.NDArray[Any]

ROI_FACE_PX = 110  # the face is brought to this size for detection around its last place
ROI_REACH = 1.9  # side of that place over the side of the last box
EMBED_REACH = 2.2
COAST_FRAMES = 8  # frames that a face is followed by its landmarks alone, when the detector loses it
OTHERS_REMEMBERED = 64


@dataclass(frozen=True)
class Face:
    """The wanted face in one frame: box (4,), landmarks (68, 2) in pixels of the frame, distance to the references."""

    box: Array
    landmarks: Array
    distance: float


@dataclass(frozen=True)
class Sighting:
    """A frame with the wanted face, without it, or with the error that kept it from being looked at."""

    frame: Frame
    face: Face | None = None
    error: str | None = None


class FaceTools(Protocol):
    """What the finder sees with: `facemill.track.models.FaceModels`, or anything that answers the same questions."""

    def search(self, picture: Array, min_face_px: float) -> Array:
        """Finds all faces from `min_face_px` on in an RGB uint8 picture: (N, 4) boxes xyxy in its pixels."""

    def near(self, picture: Array) -> Array:
        """RGB picture around one face of about `ROI_FACE_PX` -> (N, 4) boxes."""

    def landmarks(self, picture: Array, boxes: Array, before: Array | None = None) -> Array:
        """RGB picture, (N, 4) boxes and, where they are known, (N, 68, 2) points of the frame before -> (N, 68, 2)."""

    def embed(self, picture: Array, landmarks: Array) -> Array:
        """Embeds the faces of an RGB uint8 picture with these (N, 68, 2) landmarks: (N, 128)."""


class FrameSearch:
    """All faces of a frame by the detector. A frame is searched once, however many finders ask for it."""

    def __init__(self, tools: FaceTools, settings: FinderSettings) -> None:
        self._tools = tools
        self._settings = settings
        # Finders that follow the same video are at most `search_every` frames apart (`Finder.follow`)
        self._known: deque[tuple[int, Array]] = deque(maxlen=2 * settings.search_every)

    def boxes(self, frame: Frame) -> Array:
        """(N, 4) boxes of every face in the frame that is large enough."""
        for pts, boxes in self._known:
            if pts == frame.pts:
                return boxes
        view = View.whole(frame, self._settings.max_side_px)
        boxes = view.to_frame(self._tools.search(view.rgb, self._settings.min_face_px * float(view.scale.min())))
        boxes = boxes[shorter_sides(boxes) >= self._settings.min_face_px]
        self._known.append((frame.pts, boxes))
        return boxes


@dataclass
class _Other:
    box: Array
    until: int  # index of the frame from which it is looked at again


@dataclass
class _Track:
    face: Face
    raw: Array  # landmarks before smoothing
    frames_since_check: int = 0
    frames_coasted: int = 0


class Finder:
    """Follows one identity through one video. It has state, so each video wants a finder of its own."""

    def __init__(
        self,
        tools: FaceTools,
        references: Array,
        settings: FinderSettings | None = None,
        others: Array | None = None,
        search: FrameSearch | None = None,
    ) -> None:
        """
        Args:
            references: (K, 128) embeddings of the wanted identity, K ≥ 1.
            others: (M, 128) embeddings of people it is not: a face nearer to one of them is not the wanted one.
            search: shared with other finders of the same video, so that whole frames are searched once for all.
        """
        self._strangers = np.asarray([] if others is None else others, np.float32).reshape(-1, DIMENSIONS)
        self._tools = tools
        self._references = np.asarray(references, np.float32).reshape(-1, DIMENSIONS)
        if len(self._references) == 0:
            raise ValueError("no reference embeddings: there is nobody to look for")
        self._settings = settings or FinderSettings()
        self._frame_search = search or FrameSearch(tools, self._settings)
        self._track: _Track | None = None
        self._others: list[_Other] = []  # faces found to be somebody else, newest last
        self._cuts = CutDetector()
        self._since_search = 0
        self._index = 0

    def follow(self, frames: Iterable[Frame]) -> Iterator[Sighting]:
        """One sighting for each frame, in order; at most `search_every` frames are held back."""
        held: list[Frame] = []
        for frame in frames:
            self._index += 1
            if self._cuts.is_cut(frame.luma):
                yield from self._search_held(held)
                self._forget()
            if self._track is None:
                held.append(frame)
                if len(held) >= self._settings.search_every:
                    yield from self._search_held(held)
                continue
            sighting = self._guarded(frame, self._follow_one)
            if sighting.face is None and sighting.error is None:
                held.append(frame)  # lost: it was searched already, but whoever comes next may be found from here on
                yield from self._search_held(held)
            else:
                yield sighting
        yield from self._search_held(held)

    def distance(self, frame: Frame, landmarks: Array) -> float:
        """Of the face with these landmarks (68, 2) to the references; infinite where it is nearer to somebody else."""
        view = View.of(frame, landmark_box(landmarks[None])[0].astype(float), EMBED_REACH, 1.0)
        embedding = self._tools.embed(view.rgb, view.to_view(landmarks)[None])[0]
        distance = float(np.linalg.norm(self._references - embedding, axis=1).min())
        # Two people can look alike enough for the limit; whoever is nearer to somebody else we know is that person.
        strangers = np.linalg.norm(self._strangers - embedding, axis=1)
        return float("inf") if strangers.min(initial=np.inf) < distance else distance

    def give_up(self, face: Face, distance: float) -> None:
        """Stop following: the face that this finder gave turned out to be somebody else's, at that distance."""
        self._track = None
        self._remember_other(face.box, distance)

    def _search_held(self, held: list[Frame]) -> Iterator[Sighting]:
        """Searches the newest of the held frames; if the face is there, the older ones too. Empties the list."""
        if not held:
            return
        older, newest = held[:-1], held[-1]
        held.clear()
        last = self._guarded(newest, self._search)
        if last.face is None:
            yield from (Sighting(frame) for frame in older)
            yield last
            return
        self._track = None
        for frame in older:  # in order of time, so that smoothing runs forward
            yield self._guarded(frame, self._search if self._track is None else self._follow_one)
        yield self._guarded(newest, self._follow_one) if self._track is not None else self._restart(last)

    def _restart(self, sighting: Sighting) -> Sighting:
        assert sighting.face is not None
        self._track = _Track(sighting.face, sighting.face.landmarks)
        return sighting

    def _guarded(self, frame: Frame, look: Any) -> Sighting:
        """A frame that cannot be looked at costs that frame, not the video."""
        try:
            return Sighting(frame, look(frame))
        except InputError as error:
            self._track = None
            return Sighting(frame, error=str(error.reason))
        except (ValueError, RuntimeError, cv2.error) as error:
            self._track = None
            return Sighting(frame, error=type(error).__name__)

    def _search(self, frame: Frame) -> Face | None:
        """The whole frame: who is new is embedded, who was somebody else before is not."""
        boxes = self._all_boxes(frame)
        fresh = boxes[[not self._is_other(box) for box in boxes]] if len(boxes) else boxes
        for box in fresh[np.argsort(-shorter_sides(fresh), kind="stable")]:  # the largest first
            landmarks = self._landmarks(frame, box)
            distance = self.distance(frame, landmarks)
            if distance <= self._settings.identity_distance:
                face = Face(box, landmarks, distance)
                self._track = _Track(face, landmarks)
                return face
            self._remember_other(box, distance)
        return None

    def _follow_one(self, frame: Frame) -> Face | None:
        track = self._track
        assert track is not None
        self._since_search += 1
        track.frames_since_check += 1
        box = self._detect_again(frame, track)
        if box is None:
            return self._coast(frame, track)
        track.frames_coasted = 0
        jumped = overlap(box, track.face.box) < JUMP_IOU
        landmarks = self._landmarks(frame, box, None if jumped else track.raw)
        distance = track.face.distance
        if jumped or track.frames_since_check >= self._settings.verify_every:
            distance = self.distance(frame, landmarks)
            track.frames_since_check = 0
            if distance > self._settings.identity_distance:
                self._track = None
                self._remember_other(box, distance)
                return None
        return self._moved(track, box, landmarks, distance, smooth=not jumped)

    def _detect_again(self, frame: Frame, track: _Track) -> Array | None:
        """The detector's box of the followed face, in the whole frame when that is due, else around the last place."""
        last = track.face.box
        if self._since_search >= self._settings.detect_every:
            boxes = self._all_boxes(frame)
        else:
            view = View.of(frame, last, ROI_REACH, ROI_FACE_PX / float(shorter_sides(last[None])[0]))
            boxes = view.to_frame(self._tools.near(view.rgb)) if view.rgb.size else np.zeros((0, 4))
        best = best_match(last, boxes)
        return None if best is None else boxes[best]

    def _all_boxes(self, frame: Frame) -> Array:
        """Boxes (N, 4) of every face in the frame that is large enough; those remembered as others' move along."""
        self._since_search = 0
        boxes = self._frame_search.boxes(frame)
        for box in boxes:
            if other := self._other_at(box):
                other.box = box
        return boxes

    def _coast(self, frame: Frame, track: _Track) -> Face | None:
        """The detector does not see the face: go on from its landmarks while the embedding still agrees."""
        track.frames_coasted += 1
        if track.frames_coasted > COAST_FRAMES:
            self._track = None
            return None
        landmarks = self._landmarks(frame, track.face.box, track.raw)
        box = track.face.box + np.tile(landmarks.mean(axis=0) - track.raw.mean(axis=0), 2)
        distance = track.face.distance
        if track.frames_coasted % 4 == 1:
            distance = self.distance(frame, landmarks)
        if distance > self._settings.identity_distance or overlap(box, track.face.box) < JUMP_IOU:
            self._track = None
            return None
        return self._moved(track, box, landmarks, distance, smooth=True)

    def _moved(self, track: _Track, box: Array, landmarks: Array, distance: float, *, smooth: bool) -> Face:
        damped = smoothed(track.face.landmarks, landmarks, self._settings.smoothing if smooth else 0.0)
        track.raw = landmarks
        track.face = Face(box, damped, distance)
        return track.face

    def _landmarks(self, frame: Frame, box: Array, before: Array | None = None) -> Array:
        view = landmark_view(frame, box)
        known = None if before is None else view.to_view(before)[None]
        return view.to_frame(self._tools.landmarks(view.rgb, view.to_view(box)[None], known)[0]).astype(np.float32)

    def _forget(self) -> None:
        self._track = None
        self._others.clear()

    def _other_at(self, box: Array) -> _Other | None:
        """Whose face was at this place and is not the wanted one; the newest where there are several."""
        return next((other for other in reversed(self._others) if overlap(box, other.box) >= JUMP_IOU), None)

    def _is_other(self, box: Array) -> bool:
        """Whether a face at this place was somebody else a short while ago."""
        other = self._other_at(box)
        return other is not None and self._index < other.until

    def _remember_other(self, box: Array, distance: float) -> None:
        """For a while only: the wanted face, turned or blurred, can be misjudged too."""
        clearly = distance > self._settings.identity_distance + 0.15
        until = self._index + self._settings.verify_every * (4 if clearly else 1) // (1 if clearly else 2)
        others = [other for other in self._others if overlap(box, other.box) < JUMP_IOU]
        self._others = [*others[1 - OTHERS_REMEMBERED :], _Other(box, until)]


def smoothed(before: Array, now: Array, smoothing: float) -> Array:
    """Landmarks between the last frame's and this one's, point by point.

    A point keeps the share `smoothing` of its last place as long as it moved by less than some 2 % of the face, and
    none of it when it really moved: a mouth that opens is not damped.
    """
    if smoothing <= 0:
        return now
    size = max(1.0, float(np.ptp(now, axis=0).max()))
    moved = np.linalg.norm(now - before, axis=1, keepdims=True) / (0.02 * size)
    keep = smoothing * np.exp(-(moved**2))
    return np.asarray(keep * before + (1 - keep) * now, np.float32)
