"""Stage `extract`: the kept rows of table `unique` -> table `faces`.

One row for each face: box, score, 68 landmarks, affine, aligned crop, sharpness, pose, embedding, state `ok`. A picture
without a face is one row, rejected as no_face; one that cannot be decoded is one row, failed with the decoder's reason.
The totals count pictures: in = those with a face (ok) + without (rejected) + failed.

Dask takes the shards; a worker loads each model once. The pictures of a shard are searched together, everything else is
done picture by picture. Which pictures share a search changes no bit (`facemill.detect.Detector.detect`), so that a
row's key need not name its company; only on a GPU a box may move by a few thousandths of a pixel. The same table with
the same parameters gives the same bytes; a picture that makes the search fail is found by searching one at a time, and
is one row, failed with what was raised.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from facemill import tables
from facemill.align import crop_affine, head_pose, resized, warp
from facemill.detect import Detector, Faces, build_detector
from facemill.errors import InputError
from facemill.face_looks import face_look
from facemill.identity import Embedder
from facemill.landmarks import LandmarkPredictor, build_predictor, doubt, signature
from facemill.pictures import RGB, decode, encode_jpeg
from facemill.quality import face_px, sharpness, visibility
from facemill.reasons import Reason, State
from facemill.schema import FACES, UNIQUE, FaceRow, UniqueRow
from facemill.turned_faces import boxes_turned_back, turned_back
from tasks.catalogue import Data
from tasks.params import ExtractParams, Params
from tasks.work.cluster import one_thread, open_pool
from tasks.work.deciders import read_deciders
from tasks.work.plugin_files import deciding_options, file_stamps, placed_options
from tasks.work.results import LaterPart, Shard, WorkItem, content_key, drop_unreached, make_parts, open_store
from tasks.work.rows import RowAt, read_rows
from tasks.work.totals import Totals, finish, publish_parts

BATCH_PX = 32_000_000
"""Pixels of the pictures that are held decoded at a time (96 MB), unless one alone has more."""
_CARRIED = ["sample_id", "identity", "role", "source", "url", "pts"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Extracts into `root/data/faces`. Raises FacemillError when `unique` is missing or too many pictures failed."""
    start = time.monotonic()
    source, output = root / Data.UNIQUE, root / Data.FACES
    settings = params.extract.model_dump(mode="json", exclude={"rows_per_shard", "failure_limit"})
    settings |= deciding_options(params.extract, root).keys()
    placed = params.extract.model_copy(update=placed_options(params.extract, root).keys())
    store = open_store(root, "extract", FACES, code=read_deciders(root, "extract", params).key, settings=settings)
    plan = [LaterPart(part.stem, partial(pictures_of, part)) for part in tables.checked_parts(source, UNIQUE)]
    with open_pool(params.cluster) as pool:
        made = make_parts(
            store, plan, extract_shard, _lost_row, pool,
            settings=placed, rows_per_shard=params.extract.rows_per_shard, retry=retry,
        )  # fmt: skip
    publish_parts(made.paths, output)

    counts, faces = count_pictures(output)
    totals = Totals(
        "extract",
        sum(len(part.items) for part in plan),
        counts,
        time.monotonic() - start,
        made.seconds,
        made.worked,
        kept_bytes=drop_unreached(store),
        extra={"faces": faces},
    )
    return finish(root, totals, params.extract.failure_limit)


def count_pictures(output: Path) -> tuple[dict[str, dict[str, int]], int]:
    """The pictures of `faces` by state and reason, each by its first face or by having none; and how many faces."""
    faces = 0

    def states() -> Iterator[tuple[str, str | None]]:
        nonlocal faces
        for part in tables.iterate_parts(output, FACES, ["status", "error", "face_index"]):
            index = part["face_index"]
            faces += len(part) - index.null_count
            pictures = part.filter(pc.or_(pc.is_null(index), pc.equal(pc.fill_null(index, 0), 0)))
            yield from zip(pictures["status"].to_pylist(), pictures["error"].to_pylist(), strict=True)

    return tables.count_states(states()), faces


def extract_shard(shard: Shard) -> list[list[FaceRow]]:
    """The rows of each picture: a loop with three ways out, ok, rejected and failed."""
    tools = load_tools(shard.settings, file_stamps(shard.settings))
    rows: list[list[FaceRow]] = []
    for batch in _batches(_read(shard.items)):
        found = iter(find([picture for _, picture in batch if not isinstance(picture, InputError)], tools))
        for origin, picture in batch:
            if isinstance(picture, InputError):
                rows.append([_without_face(origin, picture.reason, picture.detail)])
                continue
            faces = next(found)
            if isinstance(faces, Exception):
                detail = f"{type(faces).__name__}: {faces}"
                rows.append([_without_face(origin, Reason.PROCESSING_ERROR, detail)])
                continue
            rows.append(faces_of(picture, faces, origin, tools) or [_nobody(picture, origin, tools)])
    return rows


def _nobody(picture: RGB, origin: FaceRow, tools: Tools) -> FaceRow:
    """The row of a picture in which nothing was found: smaller faces than its detail says were not looked for."""
    height, width = picture.shape[:2]
    least_px = round(tools.params.min_face_px * max(1.0, max(height, width) / tools.params.max_side_px))
    if min(height, width) < least_px:
        detail = f"not looked for: the picture has {width}×{height} px, and faces smaller than {least_px} px are not"
        return _without_face(origin, Reason.FACE_TOO_SMALL, detail)
    return _without_face(origin, Reason.NO_FACE, f"by {tools.detector.name}, from {least_px} px on, turned as well")


def pictures_of(part: Path) -> Iterator[WorkItem]:
    """The kept pictures of a part of `unique`, known by all of them that reaches a row."""
    for at, row in enumerate(tables.part_rows(part, UNIQUE, ["keep", *_CARRIED])):
        if row["keep"]:
            yield WorkItem(content_key(_origin(row)), (row, RowAt(str(part), at)))


def _read(items: Iterable[tuple[UniqueRow, RowAt]]) -> Iterator[UniqueRow]:
    rows, places = zip(*items, strict=True)
    for row, image in zip(rows, read_rows(places, UNIQUE, ["image"]), strict=True):
        yield row | image


def _batches(pictures: Iterable[UniqueRow]) -> Iterator[list[tuple[FaceRow, RGB | InputError]]]:
    """The pictures decoded, each with the columns that its rows carry, in batches of about BATCH_PX at most."""
    batch: list[tuple[FaceRow, RGB | InputError]] = []
    pixels = 0
    for row in pictures:
        origin = _origin(row)
        try:
            picture = decode(row["image"]["bytes"], max_pixels=None)  # collect has judged it
        except InputError as error:
            batch.append((origin, error))
            continue
        size = picture.shape[0] * picture.shape[1]
        if batch and pixels + size > BATCH_PX:
            yield batch
            batch, pixels = [], 0
        batch.append((origin, picture))
        pixels += size
    if batch:
        yield batch


@dataclass(frozen=True)
class Tools:
    """The models of one worker process, loaded once for all its shards."""

    params: ExtractParams
    detector: Detector
    landmarks: LandmarkPredictor
    embedder: Embedder


@lru_cache(maxsize=1)
def load_tools(params: ExtractParams, stamps: str = "") -> Tools:
    """Loads the models, once a process for the same parameters and the same files that they name.

    Args:
        stamps: of those files, see `tasks.work.plugin_files.file_stamps`.
    """
    one_thread()  # here too: a worker that its nanny started again has not heard of it
    detector = build_detector(params.detector, min_face_px=params.min_face_px, **params.detector_options)
    landmarks = build_predictor(params.landmarks, **params.landmark_options)
    return Tools(params, detector, landmarks, Embedder())


@dataclass(frozen=True)
class Found:
    """The faces of a picture.

    Attributes:
        faces: in pixels of the picture turned by `turns`, in which they are upright enough for the detector.
        turns: quarter turns, anticlockwise, as `numpy.rot90` counts them.
    """

    faces: Faces
    turns: int = 0


def find(pictures: Sequence[RGB], tools: Tools) -> list[Found | Exception]:
    """The faces of each picture, from copies of at most max_side_px that are searched together.

    A picture in which nothing is found is searched again, turned by a quarter, a half and three quarters: scans and
    phones' pictures lie on their side, and detectors look for upright faces. The turn with the strongest face counts.
    A picture that makes the detector fail is found by asking for one at a time, and has its error instead.
    """
    copies = [_copy_for_search(picture, tools.params.max_side_px) for picture in pictures]
    found: list[Found | Exception] = [
        faces if isinstance(faces, Exception) else Found(faces) for faces in _search(copies, tools.detector)
    ]
    nowhere = [at for at, each in enumerate(found) if isinstance(each, Found) and not len(each.faces)]
    for turns in (1, 2, 3) if nowhere else ():
        turned = [np.ascontiguousarray(np.rot90(copies[at], turns)) for at in nowhere]
        for at, faces in zip(nowhere, _search(turned, tools.detector), strict=True):
            best = found[at]
            if isinstance(faces, Faces) and isinstance(best, Found) and _strength(faces) > _strength(best.faces):
                found[at] = Found(faces, turns)
    return [
        each if isinstance(each, Exception) else _in_pixels_of(picture, copy, each)
        for picture, copy, each in zip(pictures, copies, found, strict=True)
    ]


def faces_of(picture: RGB, found: Found, origin: FaceRow, tools: Tools) -> list[FaceRow]:
    """The rows of a picture's faces, strongest first; empty when there is none."""
    faces, convention = found.faces, tools.detector.box_convention
    turned = np.ascontiguousarray(np.rot90(picture, found.turns)) if found.turns else picture
    points, presence = tools.landmarks.look(turned, faces.boxes_xyxy, convention, points5=faces.points5)
    doubts = doubt(tools.landmarks, turned, points)
    poses = [head_pose(each) for each in points]
    embeddings = tools.embedder.embed(turned, points)
    boxes = boxes_turned_back(faces.boxes_xyxy, picture.shape, found.turns).astype(np.float32)
    points = turned_back(points, picture.shape, found.turns).astype(np.float32)
    return [
        _face_row(origin, faces.found_by or tools.detector.name, index, boxes[index], float(score))
        | _geometry(picture, points[index], poses[index], tools.params, _face_id(origin, index))
        | {"doubt": float(doubts[index]), "presence": None if np.isnan(presence[index]) else float(presence[index])}
        | {"embedding": tables.as_float32(embeddings[index]), "predictor": signature(tools.landmarks.name)}
        for index, score in enumerate(faces.scores)
    ]


def _search(pictures: Sequence[RGB], detector: Detector) -> list[Faces | Exception]:
    try:
        return [*detector.detect(pictures)]
    except Exception:  # of one picture, whichever: asked alone, that one gets it as its row's reason
        return [_find_alone(picture, detector) for picture in pictures]


def _strength(faces: Faces) -> float:
    return float(faces.scores.max()) if len(faces) else -np.inf


def _copy_for_search(picture: RGB, max_side_px: int) -> RGB:
    height, width = picture.shape[:2]
    shrink = min(1.0, max_side_px / max(height, width))
    if shrink == 1.0:
        return picture
    return resized(picture, (max(1, round(width * shrink)), max(1, round(height * shrink))))


def _find_alone(picture: RGB, detector: Detector) -> Faces | Exception:
    try:
        [faces] = detector.detect([picture])
    except Exception as error:  # whatever it is: the row has it, and its neighbours are kept
        return error
    return faces


def _in_pixels_of(picture: RGB, copy: RGB, found: Found) -> Found:
    if copy is picture:
        return found
    zoom = np.array([picture.shape[1] / copy.shape[1], picture.shape[0] / copy.shape[0]])
    zoom = zoom[::-1] if found.turns % 2 else zoom
    boxes = ((found.faces.boxes_xyxy + 0.5) * np.tile(zoom, 2) - 0.5).astype(np.float32)
    fives = found.faces.points5
    points5 = None if fives is None else ((fives + 0.5) * zoom - 0.5).astype(np.float32)
    return replace(found, faces=replace(found.faces, boxes_xyxy=boxes, points5=points5))


def _face_row(
    origin: FaceRow,
    detector: str,
    index: int,
    box: npt.NDArray[np.float32],
    score: float,
) -> FaceRow:
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
    picture: RGB,
    points: npt.NDArray[np.float32],
    pose: tuple[float, float, float],
    params: ExtractParams,
    face_id: str,
) -> FaceRow:
    affine = crop_affine(points, params.crop_px, params.coverage)
    crop = warp(picture, affine, params.crop_px)
    yaw, pitch, roll = pose
    return {
        "landmarks": tables.as_float32(points),
        "affine": affine.ravel().tolist(),
        "crop": {"bytes": encode_jpeg(crop), "path": f"{face_id}.jpg"},
        "sharpness": sharpness(crop, params.coverage),
        "look": face_look(crop, params.coverage),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "visibility": float(visibility(points[None], np.array([yaw]), np.array(picture.shape[1::-1]))[0]),
    }


def _origin(row: UniqueRow) -> FaceRow:
    """The columns that a picture's faces carry on."""
    return {
        "sample_id": row["sample_id"],
        "identity": row["identity"],
        "role": row["role"],
        "source": row["source"],
        "url": row["url"],
        "pts": row["pts"],
    }


def _without_face(origin: FaceRow, reason: Reason, detail: str) -> FaceRow:
    return origin | {"face_id": _face_id(origin, None), "status": reason.state, "error": reason, "detail": detail}


def _face_id(origin: FaceRow, index: int | None) -> str:
    return f"{origin['sample_id'][:16]}-{origin['identity']}-{'none' if index is None else index}"


def _lost_row(item: tuple[UniqueRow, RowAt], reason: Reason, detail: str) -> FaceRow:
    return _without_face(_origin(item[0]), reason, detail)
