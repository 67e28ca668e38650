"""Detection records (S12): where each face is in each frame of a video, or in a picture, as JSON Lines.

One object a line, three kinds of them; for each file one `file`, then its `frame`s in order, then one `end`:

    {"kind": "file", "schema": "facemill.detections", "version": 1, "file": "clips/a.mp4", "sha256": "…",
     "media": "video", "width": 480, "height": 480, "fps": "30", "time_base": "1/15360", "frames": 1008,
     "detector": "mtcnn", "options": {"min_face_px": 40, …}}
    {"kind": "frame", "index": 0, "pts": 0, "time_s": 0.0, "scene": 0, "faces": [{"track": 0, "box": [x0, y0, x1, y1],
     "score": 0.999, "detected": true, "landmarks": [[x, y], … 68], "points5": [[x, y], … 5] or null,
     "pose": {"yaw": -3.1, "pitch": 4.0, "roll": 0.2}, "crop": null}]}
    {"kind": "end", "status": "ok", "reason": null, "detail": null, "frames": 1008, "faces": 1008, "tracks": 1,
     "warnings": []}

Lines and not one document, so that a film of two hours is written and read in little memory, a reader can follow while
it is written, and what was written before a crash can be read; the `end` tells that a file is complete. A file that
cannot be used has status `failed`, a reason of `facemill.reasons` and the frames up to there. Coordinates are x, y in
pixels of the upright picture, pixel centres at integers, to a hundredth; `pts` counts ticks of `time_base` seconds,
`time_s` is the same in seconds. A picture is one frame with index 0 without times; its faces have no track. Angles are
degrees, signs as in `align.head_pose`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from facemill.errors import FacemillError
from facemill.reasons import Reason, State

SCHEMA, VERSION = "facemill.detections", 1
LANDMARKS, POINTS = 68, 5
_PIXEL_DIGITS, _SCORE_DIGITS, _ANGLE_DIGITS, _TIME_DIGITS = 2, 4, 1, 6

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What was looked at and how. All of a file that could not be opened but its name may be None."""

    file: str
    detector: str
    options: dict[str, Any]
    sha256: str | None = None
    media: Literal["video", "picture"] | None = None
    width: int | None = None
    height: int | None = None
    fps: str | None = None  # a fraction such as "30000/1001": the average
    time_base: str | None = None  # a fraction: seconds for one tick of pts
    frames: int | None = None  # as the container states them


@dataclass(frozen=True, kw_only=True)
class FaceRecord:
    """One face. `detected` is false where it was followed from a neighbouring frame; `crop` names its close-up."""

    box: tuple[float, float, float, float]
    score: float
    track: int | None = None
    detected: bool = True
    landmarks: tuple[Point, ...] | None = None
    points5: tuple[Point, ...] | None = None
    pose: dict[str, float] | None = None
    crop: str | None = None


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """One frame. `error` says why the detector could not look at it."""

    index: int
    faces: tuple[FaceRecord, ...]
    pts: int | None = None
    time_s: float | None = None
    scene: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndRecord:
    """The last record of a file: how its detection ended, with how many frames, faces and tracks."""

    status: str
    reason: str | None = None
    detail: str | None = None
    frames: int
    faces: int
    tracks: int
    warnings: tuple[str, ...] = field(default=())


Record: TypeAlias = FileRecord | FrameRecord | EndRecord


def to_line(record: Record) -> str:
    """The record as one line of JSON with a line feed; ASCII, since file names may hold what UTF-8 cannot."""
    values = dataclasses.asdict(record)
    if isinstance(record, FileRecord):
        values = {"schema": SCHEMA, "version": VERSION} | values
    if isinstance(record, FrameRecord):
        values["time_s"] = None if record.time_s is None else round(record.time_s, _TIME_DIGITS)
        values["faces"] = [_rounded(face) for face in record.faces]
    return json.dumps({"kind": _KINDS[type(record)]} | values, separators=(",", ":"), allow_nan=False) + "\n"


def read_records(lines: Iterable[str | bytes], name: str = "records") -> Iterator[Record]:
    """Reads and checks records one after another, for instance of an open file.

    Raises:
        FacemillError: a line that is not such a record, numbers that do not belong together, records out of order, or
            an `end` that is missing or does not agree with what came before; it names the line.
    """
    order = _Order()
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            record = _parse(line)
            order.accept(record)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            _refuse(f"{name}, line {number}", error)
        yield record
    if order.file is not None:
        _refuse(f"{name}, after line {number}", ValueError(f"{order.file} has no end: the writing was interrupted"))


class _Order:
    """file, its frames with rising index and pts, end; and the sums."""

    def __init__(self) -> None:
        self._start(None)

    def _start(self, file: str | None) -> None:
        self.file: str | None = file
        self._frames = self._faces = 0
        self._tracks: set[int] = set()
        self._pts: int | None = None

    def accept(self, record: Record) -> None:
        if isinstance(record, FileRecord):
            _require(self.file is None, f"{self.file} has no end")
            self._start(record.file)
            return
        _require(self.file is not None, "it belongs to no file")
        if isinstance(record, FrameRecord):
            _require(record.index == self._frames, f"expected index {self._frames}, got {record.index}")
            _require(None in (self._pts, record.pts) or _rises(self._pts, record.pts), "pts does not rise")
            self._pts = record.pts
            self._frames += 1
            self._faces += len(record.faces)
            self._tracks |= {face.track for face in record.faces if face.track is not None}
            return
        counted = (self._frames, self._faces, len(self._tracks))
        stated = (record.frames, record.faces, record.tracks)
        _require(stated == counted, f"end states (frames, faces, tracks) {stated}, but {counted} came before")
        self.file = None


def _parse(line: str | bytes) -> Record:
    values = json.loads(line)
    _require(isinstance(values, dict), "not an object")
    kind = values.pop("kind", None)
    if kind == "file":
        schema, version = (values.pop(name, None) for name in ("schema", "version"))
        _require(schema == SCHEMA, f"expected schema {SCHEMA!r}, got {schema!r}")
        _require(version == VERSION, f"expected version {VERSION}, got {version!r}")
        return _file(FileRecord(**values))
    if kind == "frame":
        faces = values.pop("faces")
        _require(isinstance(faces, list), "faces must be a list")
        return _frame(FrameRecord(faces=tuple(_face(face) for face in faces), **values))
    _require(kind == "end", f"kind must be file, frame or end, got {kind!r}")
    return _end(EndRecord(**values | {"warnings": tuple(values.get("warnings", ()))}))


def _file(record: FileRecord) -> FileRecord:
    _require(isinstance(record.file, str) and isinstance(record.detector, str), "file and detector must be texts")
    _require(isinstance(record.options, dict), "options must be an object")
    _require(record.media in (None, "video", "picture"), f"media must be video or picture, got {record.media!r}")
    for size in (record.width, record.height):
        _require(size is None or (_is_whole(size) and size > 0), f"width and height must be positive, got {size!r}")
    for text in (record.fps, record.time_base):
        _require(text is None or bool(_FRACTION.fullmatch(text)), f"fps, time_base: positive fractions, got {text!r}")
    digest = record.sha256
    _require(digest is None or (len(digest) == 64 and int(digest, 16) >= 0), f"sha256: 64 hex digits, got {digest!r}")
    return record


def _frame(record: FrameRecord) -> FrameRecord:
    _require(_is_whole(record.index) and record.index >= 0, f"index must be 0 or more, got {record.index!r}")
    _require(record.pts is None or _is_whole(record.pts), f"pts must be a whole number, got {record.pts!r}")
    _require(record.time_s is None or _is_finite(record.time_s), f"time_s must be a number, got {record.time_s!r}")
    return record


def _face(values: Any) -> FaceRecord:
    _require(isinstance(values, dict), "a face must be an object")
    box = values["box"]
    _require(isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)), f"box: 4 numbers, got {box!r}")
    _require(box[2] > box[0] and box[3] > box[1], f"box must have right > left and bottom > top, got {box!r}")
    _require(_is_finite(values["score"]), f"score must be a number, got {values['score']!r}")
    track = values.get("track")
    _require(track is None or (_is_whole(track) and track >= 0), f"track must be 0 or more, got {track!r}")
    pose = values.get("pose")
    if pose is not None:
        _require(isinstance(pose, dict) and set(pose) == {"yaw", "pitch", "roll"}, "pose: yaw, pitch and roll")
        _require(all(map(_is_finite, pose.values())), f"pose must hold numbers, got {pose!r}")
    points = {
        "landmarks": _points("landmarks", values.get("landmarks"), LANDMARKS),
        "points5": _points("points5", values.get("points5"), POINTS),
    }
    return FaceRecord(**values | {"box": tuple(box)} | points)


def _end(record: EndRecord) -> EndRecord:
    _require(record.status in (State.OK, State.FAILED), f"status must be ok or failed, got {record.status!r}")
    _require((record.reason is None) == (record.status == State.OK), "a reason belongs to status failed")
    _require(record.reason is None or record.reason in set(Reason), f"no such reason: {record.reason!r}")
    return record


def _points(name: str, points: Any, count: int) -> tuple[Point, ...] | None:
    if points is None:
        return None
    shaped = isinstance(points, list) and len(points) == count
    _require(shaped and all(isinstance(point, list) and len(point) == 2 for point in points), f"{name}: {count} points")
    _require(all(_is_finite(value) for point in points for value in point), f"{name} must hold numbers")
    return tuple((float(x), float(y)) for x, y in points)


def _rounded(face: FaceRecord) -> dict[str, Any]:
    values = dict(vars(face))
    values["box"] = [round(edge, _PIXEL_DIGITS) for edge in face.box]
    values["score"] = round(face.score, _SCORE_DIGITS)
    for name in ("landmarks", "points5"):
        if values[name] is not None:
            values[name] = [[round(x, _PIXEL_DIGITS), round(y, _PIXEL_DIGITS)] for x, y in values[name]]
    if face.pose is not None:
        values["pose"] = {name: round(angle, _ANGLE_DIGITS) for name, angle in face.pose.items()}
    return values


def _rises(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now > before


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _refuse(place: str, error: Exception) -> NoReturn:
    said = f"no {error}" if isinstance(error, KeyError) else str(error)
    raise FacemillError(f"{place}: not a detection record ({said}); run `facemill detect` again") from error


_FRACTION = re.compile(r"[1-9]\d{0,17}(/[1-9]\d{0,17})?")
_KINDS: dict[type, str] = {FileRecord: "file", FrameRecord: "frame", EndRecord: "end"}
