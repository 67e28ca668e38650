"""All faces of one segment of a video: where they are in each frame, with landmarks, and what they look like.

    segment ──► frames ──► FaceTracker ──► landmarks of each face, steadied by those of the frame before ──► rows
                                      └──► a clear large view of each face about once a second ──► embeddings

Segments know nothing of each other, so that each can be a piece of work of its own; `join.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import five_points, head_pose
from facemill.boxes import shorter_sides
from facemill.embeddings import DIMENSIONS
from facemill.errors import InputError
from facemill.identity import face_chips
from facemill.landmarks import roll_of
from facemill.media import open_media
from facemill.media.view import View, landmark_view
from facemill.quality import are_trusted
from facemill.reasons import Reason
from facemill.track.match import JUMP_IOU, overlap
from facemill.track.models import FaceModels, SteadyPoints
from facemill.track.search import TurnedSearch
from facemill.track.settings import TrackingSettings
from facemill.track.tracker import (
    ONE_FRAME_ERRORS,
    FaceTracker,
    TrackedFace,
    TrackedFrame,
    TrackSettings,
    word_of,
)
from facemill.video import Frame, Segment
from facemill.video.cuts import THUMBNAIL_PX, Thumbnail, thumbnail

Array = npt.NDArray[Any]

LOOK_EVERY_S, FIRST_LOOK_S = 1.0, 0.2
"""Of each face the best view of each second is embedded, and before that the best one of its first moments: a face that
is soon gone has a look, too."""
LOOK_REACH = 2.2
OTHER_ROLL = np.radians(25)  # by which no head turns in a frame
LARGE_PX = 150  # the embedder sees no more: a face larger than this is no better seen
TURNED_DEG = 60.0  # of yaw: a face turned farther shows little of who it is
DECODER_THREADS = 1  # segments are what runs side by side


@dataclass(frozen=True, kw_only=True)
class SegmentTracks:
    """What was seen in a segment, as plain arrays. F frames, N rows of faces in frames, L looks.

    Attributes:
        time_base: (2,) int64, seconds per tick as a fraction.
        size_wh: (2,) int64, of the frames.
        pts: (F,) int64. scene: (F,) int32, counted from 0 within the segment.
        ends: (2, 32, 32) float32, thumbnails of the first and the last frame: whether the scene goes
            on across the border.
        frame: (N,) int32, which of the F; rows are in order of frames, then of tracks. track: (N,) int32, from 0.
        box: (N, 4) float32; points: (N, 68, 2) float32; both in pixels of the frame.
        yaw: (N,) float32, degrees, NaN where the points have no pose. doubt, presence: (N,) float32, see
            `SteadyPoints`. All three tell whether the points are to be trusted.
        score: (N,) float32, of the detector. detected: (N,) bool, whether it saw the face in this very frame.
        look_track: (L,) int32. look_pts: (L,) int64. looks: (L, 128) float32, embeddings.
        errors: pts → why a frame could not be looked at.
        warnings: of the reader. cut: whether the stream ends before the container says.
        detector, predictor: who saw.
    """

    time_base: npt.NDArray[np.int64]
    size_wh: npt.NDArray[np.int64]
    pts: npt.NDArray[np.int64]
    scene: npt.NDArray[np.int32]
    ends: npt.NDArray[np.float32]
    frame: npt.NDArray[np.int32]
    track: npt.NDArray[np.int32]
    box: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    yaw: npt.NDArray[np.float32]
    doubt: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    detected: npt.NDArray[np.bool_]
    look_track: npt.NDArray[np.int32]
    look_pts: npt.NDArray[np.int64]
    looks: npt.NDArray[np.float32]
    errors: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    cut: bool = False
    detector: str = ""
    predictor: str = ""

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """(F,) times of the frames."""
        return np.asarray(self.pts * (float(self.time_base[0]) / float(self.time_base[1])), np.float64)

    def arrays(self) -> dict[str, Array]:
        """The fields that are arrays, by name."""
        return {one.name: value for one in fields(self) if isinstance(value := getattr(self, one.name), np.ndarray)}

    def facts(self) -> dict[str, Any]:
        """The other fields, as JSON has them."""
        return {
            "errors": [[pts, word] for pts, word in self.errors.items()],
            "warnings": list(self.warnings),
            "cut": self.cut,
            "detector": self.detector,
            "predictor": self.predictor,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> SegmentTracks:
        """The way back of `arrays` and `facts`.

        Raises:
            KeyError, TypeError, ValueError: they are of something else.
        """
        told: dict[str, Any] = dict(facts) | {
            "errors": {int(pts): str(word) for pts, word in facts["errors"]},
            "warnings": tuple(map(str, facts["warnings"])),
        }
        return cls(**{**arrays, **told})


def track_segment(
    path: Path | str,
    segment: Segment | None,
    models: FaceModels,
    settings: TrackingSettings,
    on_frame: Callable[[], None] = lambda: None,
) -> SegmentTracks:
    """Finds and follows all faces of a segment.

    Args:
        path: of the video.
        segment: one of its plan (`facemill.media.plan_segments`), None for the whole video.
        models: what sees.
        settings: how faces are looked for.
        on_frame: called with every frame that is read.

    Raises:
        InputError: the video cannot be read; NOT_A_VIDEO where it has no frame at all.
    """
    with open_media(path, threads=DECODER_THREADS, segment=segment, hdr="tone_map") as reader:
        seen = track_frames(_counted(reader, on_frame), models, settings)
        if seen is None:
            raise InputError(Reason.NOT_A_VIDEO, "no frames")
        facts = {"warnings": tuple(reader.warnings()), "cut": reader.cut}
    return SegmentTracks(**{**vars(seen), **facts})


def track_frames(frames: Iterable[Frame], models: FaceModels, settings: TrackingSettings) -> SegmentTracks | None:
    """`track_segment` of frames that somebody else reads; None where there are none."""
    rows, looks = _Rows(), _Looks(models)
    tracker = FaceTracker(
        _search(models, settings),
        TrackSettings(every=settings.every, every_s=settings.every_s, remember_s=settings.remember_s),
        models.again,
    )
    for tracked in tracker.follow(rows.seen(frames)):
        rows.begin(tracked)
        for face in tracked.faces:
            try:
                seen = rows.landmarks(tracked.frame, face, models)
                if seen is not None:
                    rows.add(face, seen)
                    looks.offer(tracked.frame, face, seen.points[0])
            except ONE_FRAME_ERRORS as error:
                rows.errors[tracked.frame.pts] = word_of(error)
        looks.settle(tracked.frame.time_s)
    looks.settle(None)
    if rows.first is None or rows.last is None:
        return None
    return rows.done(looks, models)


def _search(models: FaceModels, settings: TrackingSettings) -> TurnedSearch:
    least, most = settings.min_face_px, settings.max_side_px
    return TurnedSearch(
        lambda frames: models.find(frames, least, most),
        lambda frames: models.find_turned(frames, least, most),
        settings.turned_every,
    )


def _counted(frames: Iterable[Frame], on_frame: Callable[[], None]) -> Iterator[Frame]:
    for frame in frames:
        on_frame()
        yield frame


class _Rows:
    """Grows frame by frame: what `SegmentTracks` has."""

    def __init__(self) -> None:
        self.first: Frame | None = None
        self.last: Frame | None = None
        self.errors: dict[int, str] = {}
        self._first_thumbnail: Thumbnail = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), np.float32)
        self._pts: list[int] = []
        self._scenes: list[int] = []
        self._rows: list[tuple[int, TrackedFace, SteadyPoints, float]] = []  # frame, face, points and their yaw
        self._before: dict[int, tuple[int, Array, Array]] = {}  # track → frame, box and points where it was last

    def seen(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames, of which the first and the last are remembered."""
        for frame in frames:
            if self.first is None:
                self.first, self._first_thumbnail = frame, thumbnail(frame.luma)
            self.last = frame
            yield frame

    def begin(self, tracked: TrackedFrame) -> None:
        self._pts.append(tracked.frame.pts)
        self._scenes.append(tracked.scene)
        if tracked.error is not None:
            self.errors[tracked.frame.pts] = tracked.error

    def landmarks(self, frame: Frame, face: TrackedFace, models: FaceModels) -> SteadyPoints | None:
        """Of the one face, in pixels of the frame; None where the box lies outside of it."""
        box = face.box_xyxy.astype(float)
        view = landmark_view(frame, box)
        if view.rgb.size == 0:
            return None
        known = self._before.get(face.track)
        steady = known is not None and known[0] == len(self._pts) - 2 and overlap(box, known[1]) >= JUMP_IOU
        before = view.to_view(known[2])[None] if known is not None and steady else None
        fives = None if face.points5 is None else view.to_view(face.points5)[None]
        if before is not None and fives is not None and face.detected:
            rolled = roll_of(fives[0]) - roll_of(five_points(before[0]))
            if abs((rolled + np.pi) % (2 * np.pi) - np.pi) > OTHER_ROLL:  # what was followed was no face's roll
                before = None
        found = models.look(view.rgb, view.to_view(box)[None], before, fives)
        return replace(found, points=view.to_frame(found.points[0])[None].astype(np.float32))

    def add(self, face: TrackedFace, seen: SteadyPoints) -> None:
        at, yaw = len(self._pts) - 1, pose_of(seen.points[0])[0]
        self._rows.append((at, face, seen, yaw))
        if are_trusted(np.array([yaw]), seen.doubt, seen.presence).all():
            self._before[face.track] = (at, face.box_xyxy.astype(float), seen.points[0])
        else:  # the next frame begins anew: points of something else would lead it astray
            self._before.pop(face.track, None)

    def done(self, looks: _Looks, models: FaceModels) -> SegmentTracks:
        assert self.first is not None
        assert self.last is not None
        time_base = Fraction(self.first.time_base)
        faces, points = [face for _, face, _, _ in self._rows], [seen for _, _, seen, _ in self._rows]
        return SegmentTracks(
            time_base=np.array([time_base.numerator, time_base.denominator], np.int64),
            size_wh=np.array([self.first.width, self.first.height], np.int64),
            pts=np.array(self._pts, np.int64),
            scene=np.array(self._scenes, np.int32),
            ends=np.stack([self._first_thumbnail, thumbnail(self.last.luma)]),
            frame=np.array([at for at, _, _, _ in self._rows], np.int32),
            track=np.array([face.track for face in faces], np.int32),
            box=np.array([face.box_xyxy for face in faces], np.float32).reshape(-1, 4),
            points=np.array([seen.points[0] for seen in points], np.float32).reshape(-1, 68, 2),
            yaw=np.array([yaw for _, _, _, yaw in self._rows], np.float32),
            doubt=np.array([seen.doubt[0] for seen in points], np.float32),
            presence=np.array([seen.presence[0] for seen in points], np.float32),
            score=np.array([face.score for face in faces], np.float32),
            detected=np.array([face.detected for face in faces], np.bool_),
            look_track=np.array([look.track for look in looks.done], np.int32),
            look_pts=np.array([look.pts for look in looks.done], np.int64),
            looks=np.array([look.embedding for look in looks.done], np.float32).reshape(-1, DIMENSIONS),
            errors=self.errors,
            detector=models.detector,
            predictor=models.predictor,
        )


@dataclass(frozen=True)
class _Look:
    track: int
    pts: int
    embedding: npt.NDArray[np.float32]


@dataclass
class _Waiting:
    """The best view of a face so far, until its time is over."""

    until_s: float
    pts: int = 0
    clearness: float = -1.0
    chip: npt.NDArray[np.uint8] | None = None


class _Looks:
    """Keeps the clearest view of each face of about a second, one crop for each face that is there, and embeds it."""

    def __init__(self, models: FaceModels) -> None:
        self.done: list[_Look] = []
        self._models = models
        self._waiting: dict[int, _Waiting] = {}

    def offer(self, frame: Frame, face: TrackedFace, points: npt.NDArray[np.float32]) -> None:
        """Takes the face's crop if it is clearer than the one that waits; looked at are key frames and first ones."""
        waiting = self._waiting.get(face.track)
        if waiting is None:
            waiting = self._waiting[face.track] = _Waiting(frame.time_s + FIRST_LOOK_S)
        elif not face.detected and waiting.chip is not None:
            return
        size = _face_clearness(frame, face, points)
        if size <= waiting.clearness:  # sharpness counts up to 1
            return
        view = View.of(frame, _box_around(points), LOOK_REACH, 1.0)
        if view.rgb.size == 0:
            return
        [chip] = face_chips(view.rgb, view.to_view(points)[None])
        clearness = size * _sharpness(chip)
        if clearness > waiting.clearness:
            waiting.pts, waiting.clearness, waiting.chip = frame.pts, clearness, chip

    def settle(self, now_s: float | None) -> None:
        """Embeds the views whose time is over, None for all; faces that are gone wait no longer than the others."""
        over = sorted(track for track, one in self._waiting.items() if now_s is None or now_s >= one.until_s)
        taken = [(track, one) for track in over if (one := self._waiting[track]).chip is not None]
        embedded = self._models.embed_chips([one.chip for _, one in taken if one.chip is not None])
        for (track, one), embedding in zip(taken, embedded, strict=True):
            self.done.append(_Look(track, one.pts, embedding))
        seen = {track for track, _ in taken}
        for track in over:
            if track in seen and now_s is not None:
                self._waiting[track] = _Waiting(now_s + LOOK_EVERY_S)
            else:  # gone, or out of sight for so long that it begins anew
                del self._waiting[track]


def _box_around(points: Array) -> Array:
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(float)


def _face_clearness(frame: Frame, face: TrackedFace, points: Array) -> float:
    """0…1: less where the face is small, turned away, or partly outside the picture."""
    yaw = abs(pose_of(points)[0])
    if np.isnan(yaw):
        return 0.0
    size = min(1.0, float(shorter_sides(face.box_xyxy[None])[0]) / LARGE_PX)
    inside = float(((points >= 0) & (points <= [frame.width - 1, frame.height - 1])).all(axis=1).mean())
    return size * max(0.0, 1 - yaw / TURNED_DEG) * inside


def _sharpness(chip: npt.NDArray[np.uint8]) -> float:
    """0…1, of the face in a chip: half at a variance of the Laplacian of 50, which a soft press photo has."""
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[30:120, 30:120]
    variance = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return variance / (variance + 50.0)


def pose_of(points: Array) -> tuple[float, float, float]:
    """`facemill.align.head_pose` of (68, 2) points, NaN where they have none."""
    try:
        return head_pose(points)
    except ValueError:  # all points in one place or on a line
        return (np.nan, np.nan, np.nan)
