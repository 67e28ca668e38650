"""A dataset table as tensors in memory.

What is kept of each crop is its centre with some room around the net's view, for rotation and shift. Crops are read
from Parquet a row group at a time and decoded in threads (OpenCV lets other threads run meanwhile).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill import tables
from facemill.align import transform
from facemill.batches import batched
from facemill.coverage import bins_of
from facemill.errors import FacemillError, InputError
from facemill.pictures import RGB, decode_own
from facemill.schema import DATASET, DatasetRow
from facemill.train.data import FaceSet

ROOM = 1.25
"""Side of the stored picture over the side of the net's view, where the crop has that much."""
OVERSAMPLING = 1.2
"""Stored pixels for each of the net's, so that the second sampling costs no sharpness."""
OUTSIDE_WEIGHT = 0.2
"""How much a pixel beside the face counts: only the face is pasted, but hair and light help to find the pose."""
FOREHEAD = 0.35
"""How far the weighted region reaches over the brows, over the height from chin to brows."""
EYE_MARGIN, EYE_BLUR = 6 / 256, 3.5 / 256
"""Half the side of the dilation and of the blur of the eye masks, over the side of the picture (S16: 13 and 7 px)."""
_GULP = 64  # rows decoded together


@dataclass(frozen=True, kw_only=True)
class CropGeometry:
    """From the stored crop to the net's input; see `facemill.align` for coverage."""

    input_px: int
    crop_coverage: float
    train_coverage: float


def load_faces(folder: Path, split: str, view: CropGeometry) -> dict[str, FaceSet]:
    """The accepted faces of one split, by identity in alphabetical order, each identity's by their ids.

    So what is learned does not depend on how the table's rows are spread over its parts.

    Args:
        folder: a `dataset` table.
        split: `train` or `val`.
        view: which part of the crop to keep, at which size.

    Raises:
        FacemillError: the table is missing or of another version, or a row's crop or landmarks cannot be used.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for row in _rows(folder, split, ["identity", "face_id"]):
        ids[row["identity"]].append(row["face_id"])
    filling: dict[str, _Filling] = {}
    rows = _rows(folder, split, ["face_id", "identity", "landmarks", "affine", "crop"])
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        for gulp in batched(rows, _GULP):
            for row, face in zip(gulp, pool.map(lambda each: _face(each, view), gulp), strict=True):
                identity = row["identity"]
                if identity not in filling:
                    filling[identity] = _Filling(identity, sorted(ids[identity]), face)
                filling[identity].add(row["face_id"], face)
    return {identity: filling[identity].done() for identity in sorted(filling)}


def turns(folder: Path, balance: int) -> dict[str, Tensor]:
    """How often each training face is drawn in an epoch, by identity, in the order of `load_faces`: (N,) int64.

    A face whose look (a bin of each kind of facemill.coverage) is rarer than the commonest one of its identity comes as
    many times more often, at most `balance` times; one that tells nothing of it comes once. What decides is made of
    landmarks and crop, which `dataset_sha256` holds.

    Raises:
        FacemillError: the table is missing or of another version.
    """
    found: dict[str, list[tuple[str, tuple[int, ...] | None]]] = defaultdict(list)
    for row in _rows(folder, "train", ["identity", "face_id", "landmarks", "affine", "yaw", "pitch", "look"]):
        found[row["identity"]].append((row["face_id"], _look(row)))
    return {identity: _turns([look for _, look in sorted(faces)], balance) for identity, faces in found.items()}


def _look(row: DatasetRow) -> tuple[int, ...] | None:
    told = [row[name] for name in ("landmarks", "affine", "yaw", "pitch", "look")]
    if any(each is None for each in told):
        return None
    points = transform(np.reshape(row["landmarks"], (68, 2)), np.reshape(row["affine"], (2, 3)))
    grey = np.frombuffer(row["look"], np.uint8)[None]
    bins = bins_of(points[None], np.array([row["yaw"]]), np.array([row["pitch"]]), grey)
    return tuple(int(number[0]) for number in bins.values())


def _turns(looks: list[tuple[int, ...] | None], balance: int) -> Tensor:
    counts = Counter(look for look in looks if look is not None)
    most = max(counts.values(), default=1)
    return torch.tensor([1 if look is None else min(balance, round(most / counts[look])) for look in looks])


def dataset_sha256(folder: Path) -> str:
    """SHA-256, 64 hex digits, of all that training takes from a `dataset` table: its accepted faces and references.

    The same rows give the same hash however they are spread over parts, and whatever else was rejected.

    Raises:
        FacemillError: the table is missing or of another version.
    """
    columns = ["face_id", "identity", "split", "status", "reference", "landmarks", "affine", "crop", "embedding"]
    found = []
    for row in tables.iterate_rows(folder, DATASET, columns):
        if row["status"] == "ok" or row["reference"]:
            content = hashlib.sha256(row["crop"]["bytes"])
            content.update(json.dumps({**row, "crop": None}, sort_keys=True).encode())
            found.append(f"{row['face_id']} {content.hexdigest()}\n")
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def face_weights(landmarks: npt.NDArray[Any], width_px: int) -> npt.NDArray[np.uint8]:
    """(68, 2) landmarks in a picture → (W, W) uint8: 255 on the face, `OUTSIDE_WEIGHT` of it elsewhere, soft edge."""
    brows = landmarks[17:27]
    forehead = brows + FOREHEAD * (brows.mean(0) - landmarks[8])
    mask = np.full((width_px, width_px), round(255 * OUTSIDE_WEIGHT), np.uint8)
    cv2.fillConvexPoly(mask, _hull(np.vstack([landmarks, forehead])), 255)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), width_px / 32), np.uint8)


def face_eyes(landmarks: npt.NDArray[Any], width_px: int) -> npt.NDArray[np.uint8]:
    """(68, 2) landmarks in a picture → (W, W) uint8: 255 on the eyes (points 36–47), widened, with a soft edge."""
    mask = np.zeros((width_px, width_px), np.uint8)
    for eye in (slice(36, 42), slice(42, 48)):
        cv2.fillConvexPoly(mask, _hull(landmarks[eye]), 255)
    margin, blur = (2 * round(share * width_px) + 1 for share in (EYE_MARGIN, EYE_BLUR))
    wide = cv2.dilate(mask, np.ones((margin, margin), np.uint8))
    return np.asarray(cv2.GaussianBlur(wide, (blur, blur), 0), np.uint8)


@dataclass(frozen=True)
class _Face:
    pixels: RGB
    weights: npt.NDArray[np.uint8]
    eyes: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32]
    field: float


class _Filling:
    """The tensors of one identity, filled row by row: no second copy of a large set is ever held."""

    def __init__(self, identity: str, ids: list[str], first: _Face) -> None:
        side, count = len(first.pixels), len(ids)
        self._identity, self._field, self._ids = identity, first.field, tuple(ids)
        self._place = {face_id: at for at, face_id in enumerate(ids)}
        self._faces = torch.empty(count, 3, side, side, dtype=torch.uint8)
        self._weights = torch.empty(count, 1, side, side, dtype=torch.uint8)
        self._eyes = torch.empty_like(self._weights)
        self._landmarks = torch.empty(count, 68, 2)

    def add(self, face_id: str, face: _Face) -> None:
        if face.field != self._field:
            raise FacemillError(
                f"the crops of {self._identity} differ in size: extract them again with one extract.crop_px"
            )
        at = self._place[face_id]
        self._faces[at] = torch.from_numpy(face.pixels).permute(2, 0, 1)
        self._weights[at, 0] = torch.from_numpy(face.weights)
        self._eyes[at, 0] = torch.from_numpy(face.eyes)
        self._landmarks[at] = torch.from_numpy(face.landmarks)

    def done(self) -> FaceSet:
        tensors = (self._faces, self._weights, self._eyes, self._landmarks)
        return FaceSet(self._identity, self._ids, *tensors, self._field)


def _rows(folder: Path, split: str, columns: list[str]) -> Iterator[DatasetRow]:
    for row in tables.iterate_rows(folder, DATASET, [*columns, "split", "status"]):
        if row["status"] == "ok" and row["split"] == split:
            yield row


def _face(row: DatasetRow, view: CropGeometry) -> _Face:
    """What is kept of one row."""
    try:
        crop = decode_own(row["crop"]["bytes"])
    except (InputError, TypeError) as error:
        raise FacemillError(
            f"face {row['face_id']} of the dataset has no usable crop ({error}): extract it again"
        ) from error
    try:
        landmarks = np.asarray(row["landmarks"], np.float64).reshape(68, 2)
        in_crop = transform(landmarks, np.asarray(row["affine"], np.float64).reshape(2, 3))
    except (TypeError, ValueError) as error:
        raise FacemillError(
            f"face {row['face_id']} of the dataset lacks landmarks or its place ({error}): extract it again"
        ) from error
    if not np.isfinite(in_crop).all():
        raise FacemillError(
            f"face {row['face_id']} of the dataset has landmarks that are not numbers: extract it again"
        )
    crop_px = len(crop)
    kept_px = _kept_px(crop_px, view)
    first = (crop_px - kept_px) // 2
    field = kept_px / crop_px * view.crop_coverage / view.train_coverage
    width_px = round(view.input_px * field * OVERSAMPLING)
    centre_px = crop[first : first + kept_px, first : first + kept_px]
    small = np.asarray(cv2.resize(centre_px, (width_px, width_px), interpolation=cv2.INTER_AREA), np.uint8)
    kept = (in_crop - first + 0.5) * width_px / kept_px - 0.5
    return _Face(small, face_weights(kept, width_px), face_eyes(kept, width_px), kept.astype(np.float32), field)


def _kept_px(crop_px: int, view: CropGeometry) -> int:
    """Side of the part of the crop that is kept: as odd or even as the crop, so that both have one centre."""
    wanted = crop_px * view.train_coverage * ROOM / view.crop_coverage
    return min(crop_px, crop_px - 2 * round((crop_px - wanted) / 2))


def _hull(points: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.asarray(cv2.convexHull(points.astype(np.float32)), np.int32)
