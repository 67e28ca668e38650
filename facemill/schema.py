"""The tables, which are the interfaces between the stages: what a row is, for people, for mypy and for Parquet.

Every stage reads and writes Parquet folders of one of these schemas. A row is a `TypedDict` whose columns say the
Python type and the Arrow type in one word (`Float32` is a Python float that is stored as float32), so that the schema
is made from the row and a misspelt column is an error of mypy. The name and version stand in the footer, readers check
both, and `tests/facemill/test_schema.py` freezes the columns: changing one means raising its version.

`| None` stands at columns that can be null in a row whose status is `ok`. In other rows every column but the status can
be null: a picture that could not be read has no width. A row may lack keys, which is the same as null when it is
written; a row that was read has all columns that were asked for.

Pictures travel as `struct<bytes, path>`, as Hugging Face's Image feature has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypedDict, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

from facemill.embeddings import DIMENSIONS

Row = TypeVar("Row", bound=Mapping[str, object])

# An encoded picture and a file name for it. As a class its key `bytes` would hide the type of that name.
EncodedPicture = TypedDict("EncodedPicture", {"bytes": bytes, "path": str | None})  # noqa: UP013

Bool = Annotated[bool, pa.bool_()]
Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]
Binary = Annotated[bytes, pa.binary()]
UInt64 = Annotated[int, pa.uint64()]
Float32 = Annotated[float, pa.float32()]
Float64 = Annotated[float, pa.float64()]
String = Annotated[str, pa.string()]
Strings = Annotated[list[str], pa.list_(pa.string())]
Image = Annotated[EncodedPicture, pa.struct([("bytes", pa.binary()), ("path", pa.string())])]
Box = Annotated[list[float], pa.list_(pa.float32(), 4)]  # x0, y0, x1, y1 in pixels of the upright picture
Landmarks = Annotated[list[float], pa.list_(pa.float32(), 136)]  # 68 points x0, y0, x1, y1, … in pixels, upright
Affine = Annotated[list[float], pa.list_(pa.float64(), 6)]  # 2×3, row by row: picture to crop coordinates
Embedding = Annotated[list[float], pa.list_(pa.float32(), DIMENSIONS)]
Looks = Annotated[list[list[float]], pa.list_(pa.list_(pa.float32(), DIMENSIONS))]
Ticks = Annotated[list[int], pa.list_(pa.int64())]  # of a video's clock


class PairOfIdentities(TypedDict):
    """One person of a video who becomes another one, and in how many of its frames."""

    replaced: str  # the identity whose face was there
    new: str  # the identity whose face was put there
    frames: int | None  # in which it was; null where the video was not converted


# A list of structs and not a map: `datasets` reads no maps.
Becomes = Annotated[
    list[PairOfIdentities],
    pa.list_(pa.struct([("replaced", pa.string()), ("new", pa.string()), ("frames", pa.int64())])),
]


class StateColumns(TypedDict, total=False):
    """How a row ended, and where that is not `ok`, why; the codes are those of `facemill.reasons`."""

    status: String  # ok | rejected | failed
    error: String | None  # the reason's code
    detail: String | None  # what was found: a number with its limit, or an error's message


class RawColumns(TypedDict, total=False):
    """One collected picture, without its state."""

    sample_id: String  # SHA-256 of the bytes, 64 hex digits
    identity: String  # a person in the dataset: a name that the user chose
    role: String  # sample | reference
    source: String  # the kind, a name in facemill/sources
    url: String  # where it came from; stable, never a path of one machine
    page: String  # the page that showed it; empty where there is none
    pts: Int64 | None  # of the frame, for pictures taken from a video
    shot: Int32 | None  # of the video that the frame is in, from 0
    licence: String
    author: String
    rights: String  # as params.yaml states it for the source, else the identity: facemill.rights.rights_text
    stated_face: String | None  # which face of a reference is meant, see facemill.references.ReferenceFace
    unit: String  # hash of what the row was asked for: address, content, options; finds it again
    width: Int32  # pixels, upright
    height: Int32
    image: Image


class RawRow(RawColumns, StateColumns, total=False):
    """A row of table `raw`: one collected picture, or the reason why there is none."""


class UniqueRow(RawRow, total=False):
    """One collected picture with the verdict of deduplication.

    `image` is null in rows that are not kept: their bytes stay in `raw`.
    """

    phash: UInt64
    cluster: String  # id of the duplicate cluster: the smallest sample_id in it
    keep: Bool
    duplicate_of: String | None  # sample_id of the picture that is kept instead
    distance: Int32 | None  # Hamming distance of the hashes, 0…64


class FaceColumns(TypedDict, total=False):
    """One detected face, or a picture without one; without its state."""

    face_id: String  # sample_id[:16]-identity-index
    sample_id: String
    identity: String
    role: String
    source: String
    url: String
    pts: Int64 | None
    face_index: Int32  # by falling score; null where no face was found
    box: Box
    score: Float32
    detector: String
    landmarks: Landmarks
    predictor: String  # of the landmarks, with its weights: facemill.landmarks.signature
    affine: Affine
    crop: Image
    face_px: Float32  # short side of the box
    sharpness: Float32
    look: Binary  # what it looks like, see facemill.face_looks.face_look
    yaw: Float32  # degrees; signs as in facemill.align.head_pose
    pitch: Float32
    roll: Float32  # less the quarter turns of a picture in which faces were only found when it was turned
    visibility: Float32  # 0…1: share of the points in the picture, less where the head is turned to a profile
    doubt: Float32  # how far the points move if looked for again, over the eyes' distance: facemill.landmarks.doubt
    presence: Float32 | None  # logit of there being a face, from a predictor that tells it
    embedding: Embedding


class FaceRow(FaceColumns, StateColumns, total=False):
    """A row of table `faces`: one detected face, or a picture without one."""


class VerdictColumns(TypedDict, total=False):
    """The columns that curation adds to those of a face."""

    cluster: String  # of copies of a picture, or a shot of a video: never on both sides of the split
    reference: Bool  # one of the faces that define the identity
    distance: Float32  # of the embedding to the references: facemill.embeddings.identity_distance
    split: String  # train | val, by duplicate cluster; null in rejected rows


class CreditColumns(TypedDict, total=False):
    """Whose work the picture is that a face was found in, read from what its source states."""

    page: String  # that showed the picture; empty where there is none
    licence: String  # as the source words it
    author: String
    licence_id: String  # as SPDX has it, or the source's words; empty where it states nothing
    licence_version: String  # empty where none was stated
    licence_address: String  # of the licence's text; empty where it is not known
    attribution: String  # work, author and licence in a line of text; empty where nobody has to be named
    rights: String  # on what ground the picture may be used, as in `raw`


class DatasetRow(FaceColumns, VerdictColumns, CreditColumns, StateColumns, total=False):
    """A row of table `dataset`: one face with the verdict whether it is trained on."""


class VideoColumns(TypedDict, total=False):
    """One probed video of the archive, without its state."""

    video: String  # path inside the archive, with forward slashes
    sha256: String
    size_bytes: Int64
    codec: String
    width: Int32
    height: Int32
    frames: Int64 | None  # as the container states it
    duration_s: Float64 | None
    audio: String | None  # codec of the first audio stream; null without sound


class VideoRow(VideoColumns, StateColumns, total=False):
    """A row of table `videos`: one video of the archive as it was probed, or why it cannot be used."""


class SegmentColumns(TypedDict, total=False):
    """One segment of a video's plan, without its state."""

    video_sha256: String
    index: Int32
    segment: String  # facemill.video.Segment as JSON
    time_base: String  # seconds per tick of all pts, as a fraction
    frames: Int64  # that were read
    scenes: Ticks  # pts of the frames with which a scene begins
    errors: String  # JSON: [[pts, why that frame could not be looked at], …]
    warnings: Strings  # of the reader
    cut: Bool  # whether the video ended before its container says


class SegmentRow(SegmentColumns, StateColumns, total=False):
    """A row of table `segments`: one segment of a video as it was tracked, or one row for a video that could not be."""


class TrackColumns(TypedDict, total=False):
    """One face through one scene of a video, without its state.

    Who it is, is decided where references are known (facemill.track.naming), so that other references, targets or
    models never track again.
    """

    video_sha256: String
    track: Int32  # counted from 0 within the video
    from_pts: Int64
    to_pts: Int64  # of its last frame
    from_s: Float64
    to_s: Float64
    frames: Int64  # in which it is
    bridged: Int64  # of them without having been seen, see the table `track_points`
    least_px: Float32  # short side of its box
    most_px: Float32
    detector: String
    predictor: String  # of the landmarks, with its weights: facemill.landmarks.signature
    look_pts: Ticks
    looks: Looks  # embeddings of clear views of it, spread over its length


class TrackRow(TrackColumns, StateColumns, total=False):
    """A row of table `tracks`: one face through one scene of a video."""


class TrackPointColumns(TypedDict, total=False):
    """One face in one frame of a video, without its state."""

    pts: Int64
    track: Int32
    box: Box
    score: Float32  # of the detector
    detected: Bool  # whether it saw the face in this very frame
    bridged: Bool  # not seen at all: between two frames in which it was
    points: Landmarks  # smoothed along the track
    yaw: Float32 | None  # degrees; signs as in facemill.align.head_pose; null where the points have no pose
    pitch: Float32 | None
    roll: Float32 | None
    visibility: Float32  # share of the points that lie in the picture, less where the head is turned to a profile
    doubt: Float32 | None  # as in `faces`, before smoothing; null where bridged
    presence: Float32 | None  # likewise, from a predictor that tells it
    strength: (
        Float32  # 0…1: how much of a new face is to be seen; less where it comes or goes or is covered within a scene
    )


class TrackPointRow(TrackPointColumns, StateColumns, total=False):
    """A row of table `track_points`: one face in one frame of a video. The part's name says which video it is."""


class ConversionColumns(TypedDict, total=False):
    """What became of one video of the archive, without its state."""

    video: String
    output: String  # path inside the output archive; null where nothing was written
    input_sha256: String
    output_sha256: String
    model_sha256: String
    dataset: String  # fingerprint of the dataset that the model was trained on
    becomes: Becomes  # who was to become whom
    frames_in: Int64
    frames_out: Int64
    frames_swapped: Int64  # in which at least one face was replaced
    frames_passed: Int64  # without any of those faces: untouched
    frames_failed: Int64  # passed through after an error
    passed_on: Bool  # the file is the source's, byte for byte, since nobody in it was to be replaced
    warnings: Strings


class ConversionRow(ConversionColumns, StateColumns, total=False):
    """A row of table `conversions`: what became of one video of the archive."""


@dataclass(frozen=True)
class TableSchema(Generic[Row]):
    """A table's name and version and the type of its rows.

    Attributes:
        name: as the footer of each part has it.
        version: likewise; raised with every change of the columns.
        row: a `TypedDict` whose values are `Annotated` with an Arrow type.
        arrow: the columns, the name and the version as Arrow has them; pictures marked as Hugging Face's Image.
    """

    name: str
    version: int
    row: type[Row]
    arrow: pa.Schema = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        columns = {name: _arrow_type(hint) for name, hint in get_type_hints(self.row, include_extras=True).items()}
        metadata = {"facemill.table": self.name, "facemill.version": str(self.version)}
        if images := [name for name, kind in columns.items() if kind == _arrow_type(Image)]:
            features = {name: {"_type": "Image"} for name in images}
            metadata["huggingface"] = json.dumps({"info": {"features": features}})
        object.__setattr__(self, "arrow", pa.schema(list(columns.items()), metadata=metadata))

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in their order."""
        return list(self.arrow.names)

    def check(self, columns: Iterable[str]) -> None:
        """Raises ValueError if the table has no column of one of these names."""
        if unknown := sorted(set(columns) - set(self.arrow.names)):
            raise ValueError(f"no column {unknown} in table {self.name}")


def _arrow_type(hint: object) -> pa.DataType:
    """The Arrow type that a column is annotated with, `| None` left aside."""
    found: Any = (
        hint
        if get_origin(hint) is Annotated
        else next(kind for kind in get_args(hint) if get_origin(kind) is Annotated)
    )
    return found.__metadata__[0]


RAW = TableSchema("raw", 4, RawRow)
UNIQUE = TableSchema("unique", 4, UniqueRow)
FACES = TableSchema("faces", 7, FaceRow)
DATASET = TableSchema("dataset", 9, DatasetRow)
VIDEOS = TableSchema("videos", 1, VideoRow)
SEGMENTS = TableSchema("segments", 1, SegmentRow)
TRACKS = TableSchema("tracks", 1, TrackRow)
TRACK_POINTS = TableSchema("track_points", 2, TrackPointRow)
CONVERSIONS = TableSchema("conversions", 3, ConversionRow)

ALL: dict[str, TableSchema[Any]] = {
    one.name: one for one in (RAW, UNIQUE, FACES, DATASET, VIDEOS, SEGMENTS, TRACKS, TRACK_POINTS, CONVERSIONS)
}


def name_of(schema: pa.Schema) -> str:
    """The table's name, as its footer has it; `?` where there is none."""
    return str((schema.metadata or {}).get(b"facemill.table", b"?"), "utf-8")


def version_of(schema: pa.Schema) -> int:
    """The table's schema version, as its footer has it; 0 where there is none."""
    return int((schema.metadata or {}).get(b"facemill.version", b"0"))
