"""Pictures and videos in, detection records (S12) out: boxes, tracks, landmarks, pose and close-ups of all faces.

Faces of a video are detected at key frames and followed between (`track/tracker.py`); pictures go through the detector
several at a time. Where nobody is upright, pictures are searched turned by quarters, key frames now and then. The 68
landmarks are looked for anew in each frame, in a view of the face that is large enough.
Whatever cannot be read ends in a record with the reason, and the next file goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import crop_affine, head_pose, warp
from facemill.batches import batched
from facemill.detect import Faces, build_detector
from facemill.detection_records import EndRecord, FaceRecord, FileRecord, FrameRecord, Point, Record
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, write_bytes
from facemill.foreign_files import fitting_name, open_regular
from facemill.landmarks import build_predictor, landmark_box, signature
from facemill.media.view import Still, View, Viewable, landmark_view
from facemill.media_files import PICTURE_SUFFIXES, read_limited
from facemill.pictures import decode, encode_jpeg, encode_png, sha256_hex, sniff
from facemill.reasons import Reason, State
from facemill.track.models import FaceModels
from facemill.track.search import TurnedSearch
from facemill.track.settings import TrackingSettings
from facemill.track.tracker import FaceTracker, TrackSettings, whole_frames
from facemill.turned_faces import faces_at_any_roll, turned_faces
from facemill.video import Frame, VideoReader

Array = npt.NDArray[Any]

MAX_PICTURE_BYTES = 256_000_000
PICTURES_AT_ONCE = 8
CROP_REACH = 3.0
"""Half of the side of the part that a close-up is cut from, over the face's: a turned square of coverage 1.6 needs 2.3,
a wider one takes its last pixels further."""


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """How faces are looked for and what is kept of them. Plain data.

    Attributes:
        detector: a registered name, or several ("hog,mtcnn"); `options`: as `build_detector` has them, files as paths.
        min_face_px: smaller faces are not looked for.
        predictor: of the landmarks, a registered name; `predictor_options`: as `build_predictor` has them.
        every: in videos, frames from one key frame to the next; 1 detects in each; None: 10, at most 0.4 s.
        landmarks: whether the 68 points and the pose are wanted.
        crops: folder of the close-ups, None for none; `crop_format`: jpeg or png.
        crop_px, coverage: of the close-ups, as in `align.crop_affine`.
    """

    detector: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    predictor: str = "dlib"
    predictor_options: Mapping[str, Any] = field(default_factory=dict)
    min_face_px: int = 40
    every: int | None = None
    landmarks: bool = True
    crops: str | None = None
    crop_format: str = "jpeg"
    crop_px: int = 256
    coverage: float = 1.6

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise FacemillError(f"every must be 1 frame or more, got {self.every}")
        if self.crop_format not in _ENCODERS:
            raise FacemillError(f"crop_format must be one of {', '.join(_ENCODERS)}, got {self.crop_format!r}")
        if self.crop_px < 16 or not 0.5 <= self.coverage <= 4:
            raise FacemillError(f"crop_px ≥ 16 and coverage 0.5…4 wanted, got {self.crop_px} and {self.coverage}")

    @property
    def tracking(self) -> TrackSettings:
        return TrackSettings() if self.every is None else TrackSettings(every=self.every, every_s=float("inf"))


class Recorder:
    """The models of one process; not for two threads at a time."""

    def __init__(self, settings: RecordSettings) -> None:
        self.settings = settings
        self._detector = build_detector(
            settings.detector, min_face_px=settings.min_face_px, device=settings.device, **settings.options
        )
        wanted = settings.landmarks or settings.crops is not None
        self._landmarks = build_predictor(settings.predictor, **settings.predictor_options) if wanted else None

    def record(self, files: Iterable[tuple[Path, str]]) -> Iterator[Record]:
        """Records of files, each with the name that it gets, in this order.

        Raises:
            FacemillError: close-ups cannot be written. Files that cannot be read become records.
        """
        for group in batched(files, PICTURES_AT_ONCE):
            stills: list[tuple[Path, str]] = []
            for path, name in group:
                if is_picture(path):
                    stills.append((path, name))
                    continue
                yield from self._pictures(stills)
                stills = []
                yield from self._video(path, name)
            yield from self._pictures(stills)

    def _video(self, path: Path, name: str) -> Iterator[Record]:
        head, counts = self._head(name), _Counts()
        opened = False
        try:
            with VideoReader(path) as reader:
                info = reader.info
                yield FileRecord(
                    **asdict(head)
                    | {"sha256": file_sha256(path), "media": "video", "width": info.width, "height": info.height}
                    | {"fps": str(info.fps) if info.fps else None, "frames": info.frames}
                    | {"time_base": str(info.time_base)}
                )
                opened = True
                for frame in self._frames(reader, name):
                    yield counts.add(frame)
                if reader.cut:
                    raise InputError(Reason.VIDEO_TRUNCATED, f"{reader.frames_read} frames could be read")
                warnings = tuple(reader.warnings())
        except _FILE_ERRORS as error:
            if not opened:
                yield head
            yield counts.end(*_reason(error))
            return
        yield counts.end(warnings=warnings)

    def _frames(self, frames: Iterable[Frame], name: str) -> Iterator[FrameRecord]:
        search = TurnedSearch(whole_frames(self._detector), self._turned, TrackingSettings.turned_every)
        again = self._models.again if self._landmarks is not None else None
        tracker = FaceTracker(search, self.settings.tracking, again)
        for index, tracked in enumerate(tracker.follow(frames)):
            faces = [
                self._face(tracked.frame, f"{name}/{index:06d}-{face.track}", face.box_xyxy, face.score, face.points5)
                | {"track": face.track, "detected": face.detected}
                for face in tracked.faces
            ]
            yield FrameRecord(
                index=index,
                pts=tracked.frame.pts,
                time_s=tracked.frame.time_s,
                scene=tracked.scene,
                error=tracked.error,
                faces=tuple(FaceRecord(**face) for face in faces),
            )

    def _turned(self, frames: Sequence[Frame]) -> list[Faces]:
        return [turned_faces(self._detector, frame.rgb) for frame in frames]

    @cached_property
    def _models(self) -> FaceModels:
        """What looks for a face again that was lost in a video: loaded with the first one."""
        settings = self.settings
        return FaceModels(
            settings.detector, settings.device, settings.options,
            landmarks=settings.predictor, landmark_options=settings.predictor_options,
        )  # fmt: skip

    def _pictures(self, files: Sequence[tuple[Path, str]]) -> Iterator[Record]:
        opened = [_opened(path) for path, _ in files]
        found = self._detected([read.rgb for read in opened if read.rgb is not None])
        for (_, name), read in zip(files, opened, strict=True):
            counts = _Counts()
            head = asdict(self._head(name)) | {"sha256": read.sha256, "media": "picture"}
            if read.rgb is None:
                yield FileRecord(**head)
                yield counts.end(read.reason, read.detail)
                continue
            height, width = read.rgb.shape[:2]
            yield FileRecord(**head | {"width": width, "height": height, "frames": 1})
            faces = next(found)
            if isinstance(faces, Exception):
                yield counts.end(*_reason(faces))
                continue
            yield counts.add(FrameRecord(index=0, faces=tuple(self._still_faces(Still(read.rgb), name, faces))))
            yield counts.end()

    def _detected(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Iterator[Faces | Exception]:
        """One answer for each picture; if the detector fails on one of them, the others are asked for alone."""
        try:
            yield from faces_at_any_roll(self._detector, pictures)
            return
        except _FILE_ERRORS:
            pass
        for picture in pictures:
            try:
                yield faces_at_any_roll(self._detector, [picture])[0]
            except _FILE_ERRORS as error:
                yield error

    def _still_faces(self, picture: Still, name: str, faces: Faces) -> Iterator[FaceRecord]:
        for row, box in enumerate(faces.boxes_xyxy):
            points5 = None if faces.points5 is None else faces.points5[row]
            yield FaceRecord(**self._face(picture, f"{name}/{row}", box, float(faces.scores[row]), points5))

    def _face(
        self, picture: Viewable, crop_name: str, box: Array, score: float, points5: Array | None
    ) -> dict[str, Any]:
        face: dict[str, Any] = {"box": tuple(map(float, box)), "score": score}
        if points5 is not None:
            face["points5"] = _as_points(points5)
        landmarks = self._points_of(picture, box, points5)
        if landmarks is None:
            return face
        face["landmarks"] = _as_points(landmarks)
        try:
            yaw, pitch, roll = head_pose(landmarks)
        except ValueError:  # all points in one place or line: no face, whatever the detector said
            return face
        face["pose"] = {"yaw": yaw, "pitch": pitch, "roll": roll}
        if self.settings.crops is not None:
            face["crop"] = self._cut(Path(self.settings.crops), picture, crop_name, landmarks)
        return face

    def _points_of(self, picture: Viewable, box: Array, points5: Array | None) -> Array | None:
        """(68, 2) in pixels of the picture; None where they are not wanted or the box lies outside."""
        if self._landmarks is None:
            return None
        view = landmark_view(picture, box)
        if view.rgb.size == 0:
            return None
        own, fives = view.to_view(box)[None], None if points5 is None else view.to_view(points5)[None]
        found = self._landmarks.predict(view.rgb, own, self._detector.box_convention, points5=fives)
        return view.to_frame(found[0])

    def _cut(self, folder: Path, picture: Viewable, name: str, landmarks: Array) -> str | None:
        """Writes a close-up and gives its path below the folder."""
        view = View.of(picture, landmark_box(landmarks[None])[0].astype(float), CROP_REACH, 1.0)
        if view.rgb.size == 0:
            return None
        side, coverage = self.settings.crop_px, self.settings.coverage
        crop = warp(view.rgb, crop_affine(view.to_view(landmarks), side, coverage), side)
        suffix, encode = _ENCODERS[self.settings.crop_format]
        # A name that is no UTF-8 has been written out, and may be longer than that of the file.
        below = PurePosixPath(*map(fitting_name, PurePosixPath(f"{name}{suffix}").parts))
        try:
            write_bytes(folder / below, encode(crop))
        except OSError as error:
            raise FacemillError(f"close-ups cannot be written below {folder} ({error.strerror})") from error
        return str(below)

    def _head(self, name: str) -> FileRecord:
        settings = self.settings
        used: dict[str, Any] = {} if self._landmarks is None else {"landmarks": signature(settings.predictor)}
        used |= {"min_face_px": settings.min_face_px, "every": settings.every, "device": settings.device}
        return FileRecord(file=name, detector=self._detector.name, options=used | _without_folders(settings.options))


def _without_folders(options: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by their name: where they lie says nothing, and records of two machines should be equal."""
    return {
        key: _without_folders(value) if isinstance(value, Mapping) else value.name if isinstance(value, Path) else value
        for key, value in options.items()
    }


def is_picture(path: Path) -> bool:
    """By its name, and where that is no picture's by its first bytes. Pipes and devices are not opened."""
    if path.suffix.lower() in PICTURE_SUFFIXES or not path.is_file():
        return path.suffix.lower() in PICTURE_SUFFIXES
    try:
        with open_regular(path) as stream:
            return sniff(stream.read(64)) is not None
    except OSError:
        return False


@dataclass
class _Counts:
    """Of one file."""

    frames: int = 0
    faces: int = 0
    tracks: set[int] = field(default_factory=set)

    def add(self, frame: FrameRecord) -> FrameRecord:
        self.frames += 1
        self.faces += len(frame.faces)
        self.tracks |= {face.track for face in frame.faces if face.track is not None}
        return frame

    def end(self, reason: Reason | None = None, detail: str | None = None, warnings: tuple[str, ...] = ()) -> EndRecord:
        status = State.OK if reason is None else State.FAILED
        return EndRecord(
            status=status.value,
            reason=None if reason is None else reason.value,
            detail=detail or None,
            frames=self.frames,
            faces=self.faces,
            tracks=len(self.tracks),
            warnings=warnings,
        )


@dataclass(frozen=True)
class _Read:
    """A picture, or why there is none."""

    sha256: str | None
    rgb: npt.NDArray[np.uint8] | None
    reason: Reason | None = None
    detail: str = ""


def _opened(path: Path) -> _Read:
    digest = None
    try:
        data = read_limited(path, MAX_PICTURE_BYTES)
        digest = sha256_hex(data)
        return _Read(digest, decode(data))
    except InputError as error:
        return _Read(digest, None, error.reason, error.detail)


def _reason(error: Exception) -> tuple[Reason, str]:
    if isinstance(error, InputError):
        return error.reason, error.detail
    return Reason.PROCESSING_ERROR, type(error).__name__


def _as_points(points: Array) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in points)


_FILE_ERRORS = (InputError, ValueError, RuntimeError, OSError, cv2.error)
_ENCODERS = {"jpeg": (".jpg", encode_jpeg), "png": (".png", encode_png)}
