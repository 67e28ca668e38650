"""The tables, which are the interfaces between the stages.

Every stage reads and writes Parquet folders of one of these schemas. The name and version stand in the footer, readers
check both, and `tests/facemill/test_schema.py` freezes the columns: changing one means raising its version.
Pictures travel as `struct<bytes, path>`, as Hugging Face's Image feature has it.
"""

from __future__ import annotations

import json

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOX = pa.list_(pa.float32(), 4)  # x0, y0, x1, y1 in pixels of the upright picture
LANDMARKS = pa.list_(pa.float32(), 136)  # 68 points as x0, y0, x1, y1, … in pixels of the upright picture
AFFINE = pa.list_(pa.float64(), 6)  # 2×3, row by row: picture coordinates to crop coordinates
EMBEDDING = pa.list_(pa.float32(), 128)

_STATE = [pa.field("status", pa.string()), pa.field("error", pa.string()), pa.field("detail", pa.string())]


def _schema(name: str, version: int, fields: list[pa.Field[pa.DataType]], *images: str) -> pa.Schema:
    metadata = {"facemill.table": name, "facemill.version": str(version)}
    if images:
        metadata["huggingface"] = json.dumps({"info": {"features": {column: {"_type": "Image"} for column in images}}})
    return pa.schema(fields, metadata=metadata)


_RAW_FIELDS = [
    pa.field("sample_id", pa.string()),  # SHA-256 of the bytes, 64 hex digits
    pa.field("identity", pa.string()),  # a person in the dataset: a name that the user chose
    pa.field("role", pa.string()),  # sample | reference
    pa.field("source", pa.string()),  # the kind: sample, folder, video, google
    pa.field("url", pa.string()),  # where it came from; stable, never a path of one machine
    pa.field("page", pa.string()),  # the page that showed it, where there is one
    pa.field("pts", pa.int64()),  # of the frame, for pictures taken from a video
    pa.field("licence", pa.string()),
    pa.field("author", pa.string()),
    pa.field("rights", pa.string()),  # the basis stated in params.yaml
    pa.field("width", pa.int32()),  # pixels, upright
    pa.field("height", pa.int32()),
    pa.field("image", IMAGE),
    *_STATE,
]

RAW = _schema("raw", 1, _RAW_FIELDS, "image")

UNIQUE = _schema(
    "unique",
    1,
    [
        *_RAW_FIELDS,  # `image` is null in rows that are not kept: their bytes stay in `raw`
        pa.field("phash", pa.uint64()),
        pa.field("cluster", pa.string()),  # id of the duplicate cluster: the smallest sample_id in it
        pa.field("keep", pa.bool_()),
        pa.field("duplicate_of", pa.string()),  # sample_id of the picture that is kept instead
        pa.field("distance", pa.int32()),  # Hamming distance of the hashes, 0…64
    ],
    "image",
)

_FACE_FIELDS = [
    pa.field("face_id", pa.string()),  # sample_id[:16]-identity-index
    pa.field("sample_id", pa.string()),
    pa.field("identity", pa.string()),
    pa.field("role", pa.string()),
    pa.field("source", pa.string()),
    pa.field("url", pa.string()),
    pa.field("pts", pa.int64()),
    pa.field("cluster", pa.string()),
    pa.field("face_index", pa.int32()),  # by falling score; null where no face was found
    pa.field("box", BOX),
    pa.field("score", pa.float32()),
    pa.field("detector", pa.string()),
    pa.field("landmarks", LANDMARKS),
    pa.field("affine", AFFINE),
    pa.field("crop", IMAGE),
    pa.field("face_px", pa.float32()),  # short side of the box
    pa.field("sharpness", pa.float32()),
    pa.field("yaw", pa.float32()),  # degrees; signs as in facemill.align.head_pose
    pa.field("pitch", pa.float32()),
    pa.field("roll", pa.float32()),
    pa.field("embedding", EMBEDDING),
]

FACES = _schema("faces", 1, [*_FACE_FIELDS, *_STATE], "crop")

DATASET = _schema(
    "dataset",
    1,
    [
        *_FACE_FIELDS,
        pa.field("reference", pa.bool_()),  # one of the faces that define the identity
        pa.field("distance", pa.float32()),  # of the embedding to the nearest reference
        pa.field("split", pa.string()),  # train | val, by duplicate cluster; null in rejected rows
        *_STATE,
    ],
    "crop",
)

VIDEOS = _schema(
    "videos",
    1,
    [
        pa.field("video", pa.string()),  # path inside the archive, with forward slashes
        pa.field("sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("frames", pa.int64()),  # as the container states it; null where it does not
        pa.field("duration_s", pa.float64()),
        pa.field("audio", pa.string()),  # codec of the first audio stream; null without sound
        *_STATE,
    ],
)

CONVERSIONS = _schema(
    "conversions",
    1,
    [
        pa.field("video", pa.string()),
        pa.field("output", pa.string()),  # path inside the output archive; null where nothing was written
        pa.field("input_sha256", pa.string()),
        pa.field("output_sha256", pa.string()),
        pa.field("model_sha256", pa.string()),
        pa.field("dataset", pa.string()),  # fingerprint of the dataset that the model was trained on
        pa.field("source_identity", pa.string()),  # the face that is replaced
        pa.field("target_identity", pa.string()),  # the face that is put there
        pa.field("frames_in", pa.int64()),
        pa.field("frames_out", pa.int64()),
        pa.field("frames_swapped", pa.int64()),
        pa.field("frames_passed", pa.int64()),  # without that face: untouched
        pa.field("frames_failed", pa.int64()),  # passed through after an error
        pa.field("warnings", pa.list_(pa.string())),
        *_STATE,
    ],
)

ALL = {"raw": RAW, "unique": UNIQUE, "faces": FACES, "dataset": DATASET, "videos": VIDEOS, "conversions": CONVERSIONS}


def name_of(schema: pa.Schema) -> str:
    """The table's name, as its footer has it."""
    return str((schema.metadata or {}).get(b"facemill.table", b"?"), "utf-8")


def version_of(schema: pa.Schema) -> int:
    """The table's schema version, as its footer has it; 0 where there is none."""
    return int((schema.metadata or {}).get(b"facemill.version", b"0"))
