"""A dataset table as tensors in memory, and an endless, resumable draw of batches from them.

At 96 px a face takes 37 kB, so that thousands fit anywhere; nothing is decoded twice and training never waits for a
file. What is kept is the centre of each stored crop with some room around the net's view, for rotation and shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from facemill.errors import FacemillError, InputError
from facemill.pictures import RGB, decode
from facemill.schema import DATASET
from facemill.train.augment import Augmentation, Batch, augment, centre

ROOM = 1.25
"""Side of the stored picture over the side of the net's view, where the crop has that much."""
OVERSAMPLING = 1.2
"""Stored pixels for each of the net's, so that the second sampling costs no sharpness."""
OUTSIDE_WEIGHT = 0.2
"""How much a pixel beside the face counts: only the face is pasted, but hair and light help to find the pose."""
FOREHEAD = 0.35
"""How far the weighted region reaches over the brows, over the height from chin to brows."""


@dataclass(frozen=True)
class FaceSet:
    """Faces of one identity in memory; the first axis is the same in all fields."""

    identity: str
    face_ids: tuple[str, ...]
    faces: Tensor  # (N, 3, W, W) uint8 RGB
    weights: Tensor  # (N, 1, W, W) uint8, 255 on the face
    field: float  # side of the stored picture over the side of the net's view

    def __len__(self) -> int:
        return len(self.face_ids)

    def to(self, device: torch.device) -> FaceSet:
        """The same on a device."""
        return FaceSet(self.identity, self.face_ids, self.faces.to(device), self.weights.to(device), self.field)

    def view(self, input_px: int) -> Tensor:
        """(N, 3, P, P) float in 0…1: what the net sees of each face when nothing is random."""
        return centre(self.faces, input_px, self.field)


@dataclass(frozen=True, kw_only=True)
class View:
    """From the stored crop to the net's input; see `facemill.align` for coverage."""

    input_px: int
    crop_coverage: float
    train_coverage: float


def load_faces(folder: Path, split: str, view: View) -> dict[str, FaceSet]:
    """The accepted faces of one split, by identity in alphabetical order.

    Args:
        folder: a `dataset` table.
        split: `train` or `val`.
        view: which part of the crop to keep, at which size.

    Raises:
        FacemillError: the table is missing or of another version, or a row's crop or landmarks cannot be used.
    """
    columns = ["face_id", "identity", "landmarks", "affine", "crop", "split", "status"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in tables.iterate_rows(folder, DATASET, columns):
        if row["status"] == "ok" and row["split"] == split:
            rows.setdefault(row["identity"], []).append(row)
    return {identity: _face_set(identity, rows[identity], view) for identity in sorted(rows)}


class Feed:
    """Draws batches without end: every face once in an epoch, in a new order each time.

    `place` and the generator are all that resuming needs; two feeds with equal seeds give equal batches.
    """

    def __init__(
        self, sets: Mapping[str, FaceSet], input_px: int, batch: int, augmentation: Augmentation, seed: int
    ) -> None:
        """
        Args:
            sets: by identity, all on one device, all with the same field.
            input_px: side of the net's input.
            batch: faces of each identity in a draw.
            augmentation: strengths.
            seed: of the order and of the augmentation.
        """
        self._sets, self._input_px, self._batch, self._augmentation = sets, input_px, batch, augmentation
        self._orders = {
            identity: Order(len(faces), seed + 7919 * at) for at, (identity, faces) in enumerate(sets.items())
        }
        first = next(iter(sets.values()))
        self.generator = torch.Generator(first.faces.device).manual_seed(seed)
        self._field = first.field
        self._last: dict[str, Tensor] = {}

    def draw(self) -> dict[str, Batch]:
        """The next batch of every identity; colours are matched across identities (S18)."""
        self._last = {identity: order.take(self._batch) for identity, order in self._orders.items()}
        chosen = [(self._sets[identity], rows) for identity, rows in self._last.items()]
        faces = torch.cat([faces.faces[rows.to(faces.faces.device)] for faces, rows in chosen])
        weights = torch.cat([faces.weights[rows.to(faces.weights.device)] for faces, rows in chosen])
        whole = augment(faces, weights, self._input_px, self._field, self._augmentation, self.generator)
        pieces = zip(
            *(torch.split(part, self._batch) for part in (whole.warped, whole.target, whole.weight)), strict=True
        )
        return {identity: Batch(*piece) for identity, piece in zip(self._last, pieces, strict=True)}

    def describe(self) -> str:
        """The face ids of the last draw, for the message of a failed step."""
        return "; ".join(
            f"{identity}: {', '.join(self._sets[identity].face_ids[row] for row in rows.tolist())}"
            for identity, rows in self._last.items()
        )

    @property
    def place(self) -> dict[str, int]:
        """How many faces of each identity were drawn so far."""
        return {identity: order.drawn for identity, order in self._orders.items()}

    @place.setter
    def place(self, place: Mapping[str, int]) -> None:
        for identity, order in self._orders.items():
            order.drawn = place[identity]


class Order:
    """Rows 0…count-1 in a new random order each epoch, as a pure function of (seed, drawn)."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self.drawn = 0
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def take(self, count: int) -> Tensor:
        """The next rows, (count,) int64 on the CPU."""
        rows = [self._row(at) for at in range(self.drawn, self.drawn + count)]
        self.drawn += count
        return torch.stack(rows)

    def _row(self, at: int) -> Tensor:
        epoch, place = divmod(at, self._count)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self._count, generator=generator)
        return self._permutation[place]


def face_weights(landmarks: npt.NDArray[Any], width_px: int) -> npt.NDArray[np.uint8]:
    """(68, 2) landmarks in a picture → (W, W) uint8: 255 on the face, `OUTSIDE_WEIGHT` of it elsewhere, soft edge."""
    brows = landmarks[17:27]
    forehead = brows + FOREHEAD * (brows.mean(0) - landmarks[8])
    hull = cv2.convexHull(np.vstack([landmarks, forehead]).astype(np.float32)).astype(np.int32)
    mask = np.full((width_px, width_px), round(255 * OUTSIDE_WEIGHT), np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), width_px / 32), np.uint8)


def _face_set(identity: str, rows: Sequence[dict[str, Any]], view: View) -> FaceSet:
    faces, weights, fields = zip(*(_face(row, view) for row in rows), strict=True)
    if len(set(fields)) > 1:
        raise FacemillError(f"the crops of {identity} differ in size: extract them again with one extract.crop_px")
    pixels = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous()
    return FaceSet(
        identity, tuple(r["face_id"] for r in rows), pixels, torch.from_numpy(np.stack(weights))[:, None], fields[0]
    )


def _face(row: dict[str, Any], view: View) -> tuple[RGB, npt.NDArray[np.uint8], float]:
    """Pixels, weights and field of one row."""
    try:
        crop = decode(row["crop"]["bytes"])
    except (InputError, TypeError) as error:
        raise FacemillError(
            f"face {row['face_id']} of the dataset has no usable crop ({error}): extract it again"
        ) from error
    landmarks = np.asarray(row["landmarks"], np.float64).reshape(68, 2)
    if not np.isfinite(landmarks).all():
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
    in_crop = transform(landmarks, np.asarray(row["affine"], np.float64).reshape(2, 3))
    return small, face_weights((in_crop - first + 0.5) * width_px / kept_px - 0.5, width_px), field


def _kept_px(crop_px: int, view: View) -> int:
    """Side of the part of the crop that is kept: as odd or even as the crop, so that both have one centre."""
    wanted = crop_px * view.train_coverage * ROOM / view.crop_coverage
    return min(crop_px, crop_px - 2 * round((crop_px - wanted) / 2))
