"""All faces of a video with track ids: detected at key frames, followed by their pixels between.

    key frame ──► detector, several key frames in one call
    between   ──► each box of the key before is followed by flow; where it ends beside a box of the key after, it is
                  that face, and the small rest of the way is spread over the frames (by their time, not their number)
    only before ─► followed for half of the way to the next key frame;  only after: the same, backwards
    unseen     ──► its id is kept for `remember_s`: its place is followed on, unreported, until a detector sees it again
    a scene cut ─► both sides of it are key frames, nothing goes across, no id is used again

Why flow and not association alone: with a key frame every 8th (MTCNN), faces on a straight line between two boxes that
overlap agree with frame-by-frame detection as in the first row, faces that are followed as in the second. Detections of
neighbouring frames, the third row, agree no better among themselves: what is left is the detector's own trembling.

    median IoU (5th percentile), missed   portrait               stage                  street
    association                           0.948 (0.880)   0 %    0.946 (0.770)  18 %    0.819 (0.601)  40 %
    flow                                  0.951 (0.884)   0 %    0.954 (0.824)   8 %    0.931 (0.819)   8 %
    neighbouring frames                   0.953 (0.881)   0 %    0.944 (0.731)   7 %    0.833 (0.439)   6 %

`python benchmarks/track.py CLIP --every 8 [--association]` measures it. Following in both directions and blending costs
twice the time and gives the same; following the unmatched by half of the way, as here, halves what is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.boxes import HOG_BOXES
from facemill.detect import Detector, Faces
from facemill.errors import InputError
from facemill.landmarks import five_in, hog_square, roll_of
from facemill.track.flow import flow
from facemill.track.match import match
from facemill.video import Frame
from facemill.video.cuts import CutDetector

Array = npt.NDArray[Any]

MAX_HELD_BYTES = 256 * 2**20
"""Of frames that wait for the next key frame: at 1080p 86 frames, at 8K 5."""
ON_ITS_SIDE = np.radians(45)


@dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """When the detector is asked.

    Attributes:
        every: a key frame at least every so many frames; 1 detects in each.
        every_s: likewise in seconds: at 5 frames a second 10 frames are two seconds, too long to follow a face.
        key_batch: key frames that the detector gets at once; on a GPU take more.
        remember_s: how long a face that is not seen keeps its id.
    """

    every: int = 10
    every_s: float = 0.4
    key_batch: int = 4
    remember_s: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 1 or self.key_batch < 1 or not self.every_s > 0 or not self.remember_s >= 0:
            raise ValueError(f"every and key_batch must be 1 or more, times positive, got {self}")


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame.

    track: the same number for the same face throughout a scene, counted from 0 through the video.
    box_xyxy: (4,) float32; points5: (5, 2) float32 or None: as the detector draws them.
    score: of the detector; between key frames what lies between.
    detected: whether the detector saw it in this very frame.
    """

    track: int
    box_xyxy: npt.NDArray[np.float32]
    score: float
    points5: npt.NDArray[np.float32] | None
    detected: bool


@dataclass(frozen=True)
class TrackedFrame:
    """A frame with its faces in the order of their track ids. error: why the detector could not look at it."""

    frame: Frame
    faces: tuple[TrackedFace, ...]
    scene: int
    key: bool
    error: str | None = None


@dataclass
class _Held:
    """A frame that waits for the next key frame."""

    frame: Frame
    scene: int
    key: bool = False
    found: Faces | None = None
    ids: tuple[int, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class _Unseen:
    """A face that no detector sees at the moment."""

    track: int
    box: Array
    last_seen_s: float


Search = Callable[[Sequence[Frame]], Sequence[Faces]]
"""Finds the faces of each frame, in its pixels."""


Again = Callable[[Frame, Array, float], Faces]
"""Looks for one face that the detector has lost: in a frame, around a box (4,), with the roll in radians that it had
last. Gives that face with its five points, which say how it is rolled now, or nothing."""


def whole_frames(detector: Detector) -> Search:
    """Shows frames to a detector as they are."""
    return lambda frames: detector.detect([_rgb(frame) for frame in frames])


class FaceTracker:
    """State of one video. Use one tracker for one video; `tracks` counts the ids that it gave."""

    def __init__(self, search: Search, settings: TrackSettings | None = None, again: Again | None = None) -> None:
        """
        Args:
            search: finds the faces of key frames; `whole_frames(detector)` shows them to a detector as they are.
            settings: when it is asked.
            again: looks for a face that `search` did not see in a key frame although it was there before.
        """
        self._again = again
        self._rolls: dict[int, float] = {}  # track → roll in radians of faces that five points are known of
        self.tracks = 0
        self._search = search
        self._settings = settings or TrackSettings()
        self._cuts = CutDetector()
        self._unseen: list[_Unseen] = []

    def follow(self, frames: Iterable[Frame]) -> Iterator[TrackedFrame]:
        """Every frame once, in order. At most `every` · `key_batch` + 1 frames and MAX_HELD_BYTES are held back."""
        held: list[_Held] = []
        scene = 0
        for frame in frames:
            if self._cuts.is_cut(frame.luma) and held:
                held[-1].key = True  # the last of its scene: what comes between is bracketed
                scene += 1
            full = (len(held) + 1) * frame.size_bytes > MAX_HELD_BYTES
            held.append(_Held(frame, scene, key=full or self._is_due(held, frame, scene)))
            waiting = sum(one.key and one.found is None for one in held)
            if held[-1].key and (full or waiting >= self._settings.key_batch):
                yield from self._settle(held)
        if held:
            held[-1].key = True
            yield from self._settle(held)
            yield self._as_detected(held[-1])

    def _is_due(self, held: Sequence[_Held], frame: Frame, scene: int) -> bool:
        if not held or held[-1].scene != scene:
            return True
        distance = next((back for back, one in enumerate(reversed(held), 1) if one.key), len(held))
        since_s = frame.time_s - held[-distance].frame.time_s
        return distance >= self._settings.every or since_s >= self._settings.every_s - 1e-6

    def _settle(self, held: list[_Held]) -> Iterator[TrackedFrame]:
        """Detects in the key frames held, the newest among them, and gives all but that one, which stays."""
        keys = [place for place, one in enumerate(held) if one.key]
        self._detect([held[place] for place in keys if held[place].found is None])
        if not held[keys[0]].ids:  # the very first of the video, or one without faces
            self._identify(held[keys[0]], {})
        for start, end in pairwise(keys):
            between = self._bridge(held[start : end + 1])
            yield self._as_detected(held[start])
            yield from between
        del held[: keys[-1]]

    def _detect(self, keys: Sequence[_Held]) -> None:
        """A frame that the detector cannot look at costs that frame, not the video."""
        if not keys:
            return
        frames = [one.frame for one in keys]
        try:
            found: list[Faces | str] = [*self._search(frames)]
        except ONE_FRAME_ERRORS:
            found = [_guarded(self._search, frame) for frame in frames]
        for one, faces in zip(keys, found, strict=True):
            one.found, one.error = (Faces.empty(), faces) if isinstance(faces, str) else (faces, None)

    def _bridge(self, part: Sequence[_Held]) -> list[TrackedFrame]:
        """Names the faces of the last frame of `part` and finds those of the frames between its two ends."""
        first, last = part[0], part[-1]
        assert first.found is not None
        assert last.found is not None
        if first.scene != last.scene:  # neighbours, with a cut between
            self._unseen.clear()
            self._rolls.clear()
            self._identify(last, {})
            return []
        # Rows: first the `seen` faces of the first frame, then those remembered from before it. All are followed to the
        # last frame, whose detected faces (columns) they are matched with there.
        seen = len(first.found)
        starts = np.vstack([first.found.boxes_xyxy, *[one.box[None] for one in self._unseen]]).astype(float)
        ways = _ways(part, starts)
        partners = _partners(starts, ways[-1], last.found.boxes_xyxy, seen)
        ids = [*first.ids, *[one.track for one in self._unseen]]
        last.found = self._found_again(last.frame, last.found, ids, ways, partners)
        self._identify(last, {column: ids[row] for row, column in partners.items()})
        # Seen at both ends: from one to the other. Seen in the first alone: up to the middle.
        shares = _shares_of_time(part)
        faces: list[list[TrackedFace]] = [[] for _ in part]
        for row in range(seen):
            if row in partners:
                whole = _between(ways[:, row], last.found.boxes_xyxy[partners[row]], shares)
                _add_whole(faces, ids[row], whole, first.found[[row]], last.found[[partners[row]]], shares)
            else:
                _add_alone(faces, ids[row], ways[:, row], first.found[[row]], shares < 0.5)
        fresh = [column for column in range(len(last.found)) if column not in _seen_columns(partners, seen)]
        if fresh:
            # Seen in the last alone: followed backwards from there to the middle, NaN before it.
            back = _ways(part[len(part) // 2 :][::-1], last.found.boxes_xyxy[fresh].astype(float))[::-1]
            back = np.concatenate([np.full((len(part) - len(back), len(fresh), 4), np.nan), back])
            for place, column in enumerate(fresh):
                _add_alone(faces, last.ids[column], back[:, place], last.found[[column]], shares >= 0.5)
        self._remember(ids, ways, partners, seen, first.frame.time_s, last.frame.time_s)
        alive = {*last.ids, *[one.track for one in self._unseen]}
        self._rolls = {track: roll for track, roll in self._rolls.items() if track in alive}
        return [
            TrackedFrame(one.frame, _by_track(found), one.scene, key=False)
            for one, found in zip(part[1:-1], faces[1:-1], strict=True)
        ]

    def _found_again(
        self, frame: Frame, found: Faces, ids: Sequence[int], ways: Array, partners: dict[int, int]
    ) -> Faces:
        """The faces of a key frame with those that are seen only where somebody looks for them; adds their partners.

        A face that was on its side is looked for even if something was found at its place: what looks like an upright
        face there is most often none.
        """
        if self._again is None:
            return found
        for row, track in enumerate(ids):
            roll = self._rolls.get(track, 0.0)
            if row in partners and abs(roll) < ON_ITS_SIDE:
                continue
            try:
                face = self._again(frame, _last_known(ways[:, row]), roll)
            except ONE_FRAME_ERRORS:  # the frame itself has been looked at
                continue
            if not len(face):
                continue
            if row in partners:
                order = [len(found) if column == partners[row] else column for column in range(len(found))]
                found = _joined(found, face)[order]
            elif not match(face.boxes_xyxy, found.boxes_xyxy):
                partners[row] = len(found)
                found = _joined(found, face)
        return found

    def _identify(self, key: _Held, known: dict[int, int]) -> None:
        """Ids for the faces of a key frame: the known ones by row, new ones for the others."""
        assert key.found is not None
        fresh = iter(range(self.tracks, self.tracks + len(key.found)))
        key.ids = tuple(known[row] if row in known else next(fresh) for row in range(len(key.found)))
        self.tracks += len(key.found) - len(known)
        if key.found.points5 is not None:
            self._rolls |= {track: roll_of(five) for track, five in zip(key.ids, key.found.points5, strict=True)}
        else:
            self._rolls |= dict.fromkeys(key.ids, 0.0)

    def _remember(
        self, ids: Sequence[int], ways: Array, partners: dict[int, int], seen: int, start_s: float, end_s: float
    ) -> None:
        seen_s = [start_s] * seen + [one.last_seen_s for one in self._unseen]
        self._unseen = [
            _Unseen(ids[row], _last_known(ways[:, row]), seen_s[row])
            for row in range(len(ids))
            if row not in partners and end_s - seen_s[row] <= self._settings.remember_s
        ]

    def _as_detected(self, key: _Held) -> TrackedFrame:
        assert key.found is not None
        points = [None] * len(key.ids) if key.found.points5 is None else key.found.points5
        rows = zip(key.ids, key.found.boxes_xyxy, key.found.scores, points, strict=True)
        faces = [TrackedFace(track, box, float(score), five, True) for track, box, score, five in rows]
        return TrackedFrame(key.frame, _by_track(faces), key.scene, True, key.error)


def _joined(found: Faces, other: Faces) -> Faces:
    """The faces of two searches of one frame. Those without five points are taken to be upright."""
    fives = [
        np.array([five_in(hog_square(box, HOG_BOXES)) for box in one.boxes_xyxy], np.float32).reshape(-1, 5, 2)
        if one.points5 is None
        else one.points5
        for one in (found, other)
    ]
    boxes = np.concatenate([found.boxes_xyxy, other.boxes_xyxy])
    return Faces(boxes, np.concatenate([found.scores, other.scores]), np.concatenate(fives), found.found_by)


def _ways(part: Sequence[_Held], starts: Array) -> npt.NDArray[np.float64]:
    """(frames, N, 4): the boxes `starts` of the first frame followed to the last, NaN from where they are lost."""
    ways = [starts]
    for before, after in pairwise(part):
        ways.append(flow(before.frame.luma, after.frame.luma, ways[-1]))
    return np.stack(ways)


def _partners(starts: Array, ends: Array, found: Array, seen: int) -> dict[int, int]:
    """Row of `starts` -> row of `found`. First by where flow ended, then by where the face was; the `seen` first."""
    partners: dict[int, int] = {}
    for rows in (range(seen), range(seen, len(starts))):
        for places in (ends, starts):
            free_rows = [row for row in rows if row not in partners]
            free = [column for column in range(len(found)) if column not in partners.values()]
            for row, column in match(places[free_rows], found[free]):
                partners[free_rows[row]] = free[column]
    return partners


def _seen_columns(partners: dict[int, int], seen: int) -> set[int]:
    return {column for row, column in partners.items() if row < seen}


def _shares_of_time(part: Sequence[_Held]) -> npt.NDArray[np.float64]:
    """(frames,) 0…1: how much of the time between the two ends has passed. Frames may be spaced unevenly."""
    pts = np.array([one.frame.pts for one in part], float)
    return np.asarray((pts - pts[0]) / max(1.0, pts[-1] - pts[0]))


def _between(way: Array, end: Array, shares: Array) -> Array:
    """(frames, 4): the way, bent so that it ends in `end`; a straight line where flow lost the face."""
    if not np.isfinite(way).all():
        return np.asarray(way[0] + shares[:, None] * (end - way[0]))
    # (frames, 2) each. The error at the end is spread over the time: added to the centres, multiplied into the sizes.
    centres, sizes = (way[:, :2] + way[:, 2:]) / 2, way[:, 2:] - way[:, :2]
    centres = centres + shares[:, None] * ((end[:2] + end[2:]) / 2 - centres[-1])
    sizes = sizes * ((end[2:] - end[:2]) / sizes[-1]) ** shares[:, None]
    return np.hstack([centres - sizes / 2, centres + sizes / 2])


def _add_whole(
    faces: list[list[TrackedFace]], track: int, boxes: Array, first: Faces, last: Faces, shares: Array
) -> None:
    for place in range(1, len(boxes) - 1):
        share = float(shares[place])
        score = (1 - share) * float(first.scores[0]) + share * float(last.scores[0])
        five = None
        if first.points5 is not None and last.points5 is not None:
            before, after = (_carried(one, boxes[place]) for one in (first, last))
            five = ((1 - share) * before + share * after).astype(np.float32)
        faces[place].append(TrackedFace(track, boxes[place].astype(np.float32), score, five, False))


def _add_alone(faces: list[list[TrackedFace]], track: int, way: Array, known: Faces, near: Array) -> None:
    """A face that has no partner at the other end, in those frames that are `near` its own."""
    for place in range(1, len(way) - 1):
        box = way[place]
        if near[place] and np.isfinite(box).all():
            five = None if known.points5 is None else _carried(known, box).astype(np.float32)
            faces[place].append(TrackedFace(track, box.astype(np.float32), float(known.scores[0]), five, False))


def _carried(face: Faces, box: Array) -> Array:
    """The five points of a face, (5, 2), where they lie in another box of it."""
    own = face.boxes_xyxy[0].astype(float)
    assert face.points5 is not None
    return np.asarray((face.points5[0] - own[:2]) / (own[2:] - own[:2]) * (box[2:] - box[:2]) + box[:2])


def _last_known(way: Array) -> Array:
    return np.asarray(way[np.isfinite(way).all(axis=1)][-1])


def _by_track(faces: Sequence[TrackedFace]) -> tuple[TrackedFace, ...]:
    return tuple(sorted(faces, key=lambda face: face.track))


def _rgb(frame: Frame) -> npt.NDArray[np.uint8]:
    return frame.region((0, 0, frame.width, frame.height))[0]  # not `frame.rgb`, which would be kept


def _guarded(search: Search, frame: Frame) -> Faces | str:
    try:
        return search([frame])[0]
    except ONE_FRAME_ERRORS as error:
        return word_of(error)


ONE_FRAME_ERRORS = (InputError, ValueError, RuntimeError, cv2.error)
"""What costs the frame that raised it, and not the video."""


def word_of(error: Exception) -> str:
    """Why a frame could not be looked at: the reason's code, or the name of the error."""
    return str(error.reason) if isinstance(error, InputError) else type(error).__name__
