"""Stage `extract`: the kept rows of table `unique` -> table `faces`.

One row for each face: box, score, 68 landmarks, affine, aligned crop, sharpness, pose, embedding, state `ok`. A picture
without a face is one row, rejected as no_face; one that cannot be decoded is one row, failed with the decoder's reason.
The totals count pictures: in = those with a face (ok) + without (rejected) + failed.

Dask takes the shards; a worker loads each model once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from facemill import tables
from facemill.align import crop_affine, head_pose, resized, warp
from facemill.detect import Detector, Faces, build_detector
from facemill.errors import InputError
from facemill.files import folder_sha256
from facemill.identity import Embedder
from facemill.landmarks import Landmarks68
from facemill.pictures import decode, encode_jpeg
from facemill.quality import face_px, sharpness
from facemill.reasons import Reason, State
from facemill.schema import FACES, UNIQUE
from tasks import shards
from tasks.cluster import one_thread, open_pool
from tasks.params import ExtractParams, Params
from tasks.rows import RowAt, all_rows, read_rows
from tasks.shards import Shard, Totals

_CARRIED = ["sample_id", "identity", "role", "source", "url", "pts", "cluster"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Extracts into `root/data/faces`. Raises FacemillError when `unique` is missing or too many pictures failed."""
    start = time.monotonic()
    source, output = root / "data" / "unique", root / "data" / "faces"
    settings = (source, params.extract)
    plan = shards.plan_shards(kept_rows(source), params.extract.rows_per_shard, settings)
    work = shards.open_work(root, "extract", inputs=folder_sha256(source), params=params.extract.model_dump())
    with open_pool(params.cluster) as pool:
        seconds = shards.run_shards(work, plan, extract_shard, partial(_lost_row, source), FACES, pool, retry=retry)
    shards.publish(work, plan, output)

    faces = tables.read_table(output, FACES, ["status", "error", "face_index"]).to_pylist()
    pictures = [row for row in faces if not row["face_index"]]  # one for each picture: its first face, or no face
    totals = Totals(
        "extract",
        sum(len(shard.items) for shard in plan),
        tables.count_states((row["status"], row["error"]) for row in pictures),
        time.monotonic() - start,
        seconds,
        {"faces": sum(row["face_index"] is not None for row in faces)},
    )
    return shards.finish(root, totals, params.extract.failure_limit)


def kept_rows(source: Path) -> list[RowAt]:
    """The rows of `unique` that are to be worked, in their order."""
    places = all_rows(source, UNIQUE)
    kept = tables.read_table(source, UNIQUE, ["keep"])["keep"].to_pylist()
    return [place for place, keep in zip(places, kept, strict=True) if keep]


def extract_shard(shard: Shard) -> pa.Table:
    """The faces of a shard's pictures: a loop with three ways out, ok, rejected and failed."""
    source, params = shard.settings
    tools = load_tools(params)
    rows: list[dict[str, Any]] = []
    for picture in read_rows(source, shard.items, UNIQUE, [*_CARRIED, "image"]).to_pylist():
        origin = {key: picture[key] for key in _CARRIED}
        try:
            found = faces_of(decode(picture["image"]["bytes"]), origin, tools)
        except InputError as error:
            rows.append(_without_face(origin, error.reason, error.detail))
            continue
        rows += found or [_without_face(origin, Reason.NO_FACE, f"by {tools.detector.name}")]
    return tables.from_rows(rows, FACES)


@dataclass(frozen=True)
class Tools:
    """The models of one process."""

    params: ExtractParams
    detector: Detector
    landmarks: Landmarks68
    embedder: Embedder


@lru_cache(maxsize=1)
def load_tools(params: ExtractParams) -> Tools:
    """Loads the models, once a process for the same parameters."""
    one_thread()  # here too: a worker that its nanny started again has not heard of it
    options: dict[str, Any] = {"upsample": params.upsample} if params.detector == "hog" else {}
    detector = build_detector(params.detector, min_face_px=params.min_face_px, **options)
    return Tools(params, detector, Landmarks68(), Embedder())


def faces_of(picture: npt.NDArray[np.uint8], origin: dict[str, Any], tools: Tools) -> list[dict[str, Any]]:
    """The rows of a picture's faces, strongest first; empty when there is none."""
    found = find(picture, tools.detector, tools.params.max_side_px)
    points = tools.landmarks.predict(picture, found.boxes_xyxy, tools.detector.box_convention)
    embeddings = tools.embedder.embed(picture, points)
    return [
        _face_row(origin, tools.detector.name, index, found.boxes_xyxy[index], float(found.scores[index]))
        | _geometry(picture, points[index], tools.params, _face_id(origin, index))
        | {"embedding": tables.as_float32(embeddings[index])}
        for index in range(len(found))
    ]


def find(picture: npt.NDArray[np.uint8], detector: Detector, max_side_px: int) -> Faces:
    """Detects on a copy of at most max_side_px, and gives the boxes in the picture's own pixels."""
    height, width = picture.shape[:2]
    shrink = min(1.0, max_side_px / max(height, width))
    if shrink == 1.0:
        return detector.detect([picture])[0]
    size_wh = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    found = detector.detect([resized(picture, size_wh)])[0]
    zoom = np.array([width / size_wh[0], height / size_wh[1]] * 2)
    return Faces(((found.boxes_xyxy + 0.5) * zoom - 0.5).astype(np.float32), found.scores)


def _face_row(
    origin: dict[str, Any],
    detector: str,
    index: int,
    box: npt.NDArray[np.float32],
    score: float,
) -> dict[str, Any]:
    return origin | {
        "face_id": _face_id(origin, index),
        "face_index": index,
        "box": tables.as_float32(box),
        "score": score,
        "detector": detector,
        "face_px": face_px(box),
        "status": State.OK,
    }


def _geometry(
    picture: npt.NDArray[np.uint8], points: npt.NDArray[np.float32], params: ExtractParams, face_id: str
) -> dict[str, Any]:
    affine = crop_affine(points, params.crop_px, params.coverage)
    crop = warp(picture, affine, params.crop_px)
    yaw, pitch, roll = head_pose(points)
    return {
        "landmarks": tables.as_float32(points),
        "affine": affine.ravel().tolist(),
        "crop": {"bytes": encode_jpeg(crop), "path": f"{face_id}.jpg"},
        "sharpness": sharpness(crop, params.coverage),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
    }


def _without_face(origin: dict[str, Any], reason: Reason, detail: str) -> dict[str, Any]:
    return origin | {"face_id": _face_id(origin, None), "status": reason.state, "error": reason, "detail": detail}


def _face_id(origin: dict[str, Any], index: int | None) -> str:
    return f"{origin['sample_id'][:16]}-{origin['identity']}-{'none' if index is None else index}"


def _lost_row(source: Path, place: RowAt, reason: Reason, detail: str) -> dict[str, Any]:
    [origin] = read_rows(source, [place], UNIQUE, _CARRIED).to_pylist()
    return _without_face(origin, reason, detail)
