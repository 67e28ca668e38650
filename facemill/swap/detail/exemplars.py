"""Exemplars: real pictures of the people whom a model draws, which travel with it and lend a drawn face its detail.

A net of few pixels draws the right light, pose and mouth, and no lashes. The dataset holds sharp pictures of the same
person. Training writes some of them into the model folder, chosen so that between them they show every turn of the
head, mouth, eyes and light that the dataset shows, each with what the net itself makes of it: the difference of the two
is what this net cannot hold (`facemill.swap.detail.from_exemplars`).

The pictures are training faces that were accepted, under the rights of their source, else of their identity. A model
without them draws as ever; whoever takes a person's pictures out of the dataset and trains again has taken them out of
here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from facemill import tables
from facemill.align import ALIGNED, MEAN_FACE, crop_affine, crop_points, head_pose, scale_of, transform, warp
from facemill.batches import batched
from facemill.errors import FacemillError, InputError
from facemill.pictures import RGB, decode_own, encode_png, picture_size, sha256_hex
from facemill.reasons import Reason
from facemill.rights import source_rights
from facemill.schema import DATASET, DatasetRow, Float32, Image, Int32, Landmarks, String, TableSchema

MOST_CANDIDATES = 4096
"""Faces of an identity that are looked at for choosing; of more, those whose ids have the smallest hashes."""
DOUBTFUL = 5.0
"""A face whose landmarks lie so many times further from the identity's own shapes than is usual is left out."""
DOUBTFUL_AT_LEAST = 0.04
"""Root mean square of a point's displacement, in widths of the face, by which it must do so in any case: where most
pictures are alike, a turned head is unusual and right."""
LEAST_SHARPNESS = 0.35
"""Of the sharpness that three quarters of the faces stay under; a softer face counts as that sharp."""
MOST_DRAWN = 64
"""Exemplars of each identity, or some more, that are also drawn as everybody else, to learn where features are then."""
_LIGHT_PX = 32  # side of the small grey face whose light is measured
_BATCH = 32  # pictures that are drawn together

Points = npt.NDArray[np.float64]
Draw = Callable[[npt.NDArray[np.uint8], str], npt.NDArray[np.float32]]
"""(N, P, P, 3) RGB uint8 crops and an identity → the net's drawing of the same, RGB float32 in 0…1."""

Find = Callable[[npt.NDArray[np.uint8], Points], Points]
"""(N, P, P, 3) drawings and (N, 68, 2) places where points are expected → (N, 68, 2) where they are."""


class DrawnIdentity(TypedDict):
    """Landmarks of the net's drawing of a picture as another person."""

    identity: str
    landmarks: list[float]  # 136, in the frame of reference of `aligned`


DrawnAs = Annotated[
    list[DrawnIdentity],
    pa.list_(pa.struct([("identity", pa.string()), ("landmarks", pa.list_(pa.float32(), 136))])),
]


class ExemplarRow(TypedDict, total=False):
    """One real picture of a person, as it travels in a model folder."""

    identity: String
    face_id: String  # its row in the dataset
    sample_id: String  # SHA-256 of the picture that it was cut from, as in table `raw`
    source: String
    url: String
    licence: String  # of the picture that it was cut from, as its source has it; empty if unknown
    author: String
    rights: String  # what its source states, else the basis of its identity: facemill.rights
    crop: Image  # square and aligned, as the dataset has it
    sha256: String  # of the crop's bytes
    landmarks: Landmarks  # in pixels of the crop
    source_scale: Float32  # pixels of the crop for one of the picture that it was cut from
    yaw: Float32  # degrees, as in facemill.align.head_pose
    pitch: Float32
    sharpness: Float32
    drawn: Image  # PNG: what the net makes of it
    drawn_px: Int32  # its side
    drawn_as: DrawnAs  # where the net draws the features when it makes somebody else of it


EXEMPLARS = TableSchema("exemplars", 2, ExemplarRow)


def exemplar_table(
    dataset: Path,
    rights: Mapping[str, str],
    count: int,
    draw: Draw,
    *,
    input_px: int,
    coverage: float,
    find: Find | None = None,
) -> pa.Table:
    """Chooses training faces of each identity, and has the net draw them.

    The same dataset gives the same rows, whatever the spread of its rows over parts.

    Args:
        dataset: a `dataset` table.
        rights: identity → the basis of its rights, for pictures whose source states none; only these identities are
            looked at.
        count: faces of each identity at most.
        draw: the trained net.
        input_px: side of what the net sees.
        coverage: of what the net sees, see `facemill.align`.
        find: looks for landmarks in drawings; without it nobody knows where the net draws features.

    Raises:
        FacemillError: the table is missing, or the crop of a chosen face cannot be read.
    """
    chosen = set(_chosen(dataset, rights, count))
    rows = [
        row
        for row in tables.iterate_rows(
            dataset, DATASET, [*_COLUMNS, "sample_id", "source", "url", "licence", "author", "rights", "sharpness"]
        )
        if row["face_id"] in chosen
    ]
    rows.sort(key=lambda row: (row["identity"], row["face_id"]))
    made: list[ExemplarRow] = []
    for identity in sorted(rights):
        own = [row for row in rows if row["identity"] == identity]
        others = [name for name in sorted(rights) if name != identity] if find else []
        shown = {row["face_id"] for row in own[:: max(1, len(own) // MOST_DRAWN)]}
        for batch in batched(own, _BATCH):
            places = [_points_in_crop(row) for row in batch]
            affines = [crop_affine(points, input_px, coverage) for points in places]
            crops = np.stack(
                [
                    warp(decode_own(row["crop"]["bytes"]), affine, input_px)
                    for row, affine in zip(batch, affines, strict=True)
                ]
            )
            expected = np.array([transform(points, affine) for points, affine in zip(places, affines, strict=True)])
            drawn_as: list[list[DrawnIdentity]] = [[] for _ in batch]
            few = [at for at, row in enumerate(batch) if row["face_id"] in shown]
            for other in others if few else ():
                assert find is not None
                for at, points in zip(few, find(_eight_bit(draw(crops[few], other)), expected[few]), strict=True):
                    shape = tables.as_float32(from_crop(points, input_px, coverage))
                    drawn_as[at].append({"identity": other, "landmarks": shape})
            for at, face in enumerate(draw(crops, identity)):
                made.append(_row(batch[at], places[at], face, rights[identity]) | {"drawn_as": drawn_as[at]})
    return tables.from_rows(made, EXEMPLARS)


@dataclass(frozen=True)
class Exemplars:
    """The exemplars of one identity, N of them.

    Attributes:
        identity: whose they are.
        ids: of the faces in the dataset.
        encoded: square pictures, aligned as the dataset is; `crop` decodes one.
        landmarks: (N, 68, 2) in pixels of the crops.
        drawn: (N, P, P, 3) uint8, what the net makes of each.
        source_scale: (N,) pixels of the crop for one of the picture that it was cut from; above 1 it was enlarged.
        drawn_as: another identity → (M, 68, 2) landmarks of some of the pictures, and (M, 68, 2) of what the net draws
            when it makes that identity of them, in the frame of reference of `aligned`.
    """

    identity: str
    ids: tuple[str, ...]
    encoded: tuple[bytes, ...]
    landmarks: Points
    drawn: npt.NDArray[np.uint8]
    source_scale: npt.NDArray[np.float64]
    drawn_as: Mapping[str, tuple[Points, Points]] = field(default_factory=dict)

    def crop(self, number: int) -> RGB:
        """The picture, (S, S, 3) RGB uint8."""
        return decode_own(self.encoded[number])

    def __len__(self) -> int:
        return len(self.ids)


def read_exemplars(path: Path, identities: Sequence[str]) -> dict[str, Exemplars]:
    """Those of some identities from the file of a model folder, each picture checked against its hash.

    Returns:
        Without an identity that has none.

    Raises:
        FacemillError: the file is missing, damaged or no such table, or a picture is not what its hash says.
    """
    wanted: dict[str, list[ExemplarRow]] = defaultdict(list)
    for row in tables.part_rows(path, EXEMPLARS):
        if row["identity"] in identities:
            wanted[row["identity"]].append(row)
    return {identity: _exemplars(identity, rows, path) for identity, rows in wanted.items()}


def aligned(landmarks: npt.NDArray[Any]) -> Points:
    """(…, 68, 2) landmarks → the same brought onto the mean face by the similarity of `align.crop_affine`.

    In units of `MEAN_FACE`: the face is 1 wide. Many at once, in closed form: with points as complex numbers the
    similarity of least squares is z ↦ a·z + b, a = Σ conj(z)·m / Σ |z|² over centred points (S9).
    """
    points = np.asarray(landmarks, np.float64)
    z, mean = points[..., 0] + 1j * points[..., 1], MEAN_FACE[:, 0] + 1j * MEAN_FACE[:, 1]
    middle = z[..., ALIGNED].mean(axis=-1, keepdims=True)
    z, centred = z - middle, mean[ALIGNED] - mean[ALIGNED].mean()
    size = (np.abs(z[..., ALIGNED]) ** 2).sum(axis=-1, keepdims=True)
    turn = (np.conj(z[..., ALIGNED]) * centred).sum(axis=-1, keepdims=True) / np.maximum(size, 1e-12)
    placed = turn * z + mean[ALIGNED].mean()
    return np.stack([placed.real, placed.imag], axis=-1)


def to_crop(shape: Points, crop_px: int, coverage: float) -> Points:
    """(68, 2) in units of the mean face → in pixels of the square that `crop_affine` makes."""
    first, last = crop_points(crop_px, coverage)[[0, 8]]
    scale = float((last - first)[1] / (MEAN_FACE[8] - MEAN_FACE[0])[1])
    placed: Points = (shape - MEAN_FACE[0]) * scale + first
    return placed


def from_crop(points: npt.NDArray[Any], crop_px: int, coverage: float) -> Points:
    """(68, 2) in pixels of the square that `crop_affine` makes → in units of the mean face, as before `to_crop`."""
    first, last = crop_points(crop_px, coverage)[[0, 8]]
    scale = float((last - first)[1] / (MEAN_FACE[8] - MEAN_FACE[0])[1])
    shape: Points = (np.asarray(points, np.float64) - first) / scale + MEAN_FACE[0]
    return shape


def features(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, 68, 2) → (N, 8): turn of the head, mouth, eyes and brows, scaled so that 1 is a difference that shows."""
    shape = aligned(landmarks)
    poses = np.array([head_pose(points)[:2] for points in landmarks]).reshape(-1, 2)

    def gap(first: Sequence[int], second: Sequence[int]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.linalg.norm(
            shape[:, list(first)].mean(axis=1) - shape[:, list(second)].mean(axis=1), axis=-1
        )
        return found

    return np.column_stack(
        [
            poses[:, 0] / 12,
            poses[:, 1] / 10,
            gap((61, 62, 63), (67, 66, 65)) / 0.05,  # the gap between the lips
            gap((48,), (54,)) / 0.06,
            (shape[:, 57, 1] - shape[:, 33, 1]) / 0.06,
            gap((37, 38), (41, 40)) / 0.02,
            gap((43, 44), (47, 46)) / 0.02,
            gap((19, 24), (37, 44)) / 0.04,
        ]
    )


def cover(found: npt.NDArray[np.float64], quality: npt.NDArray[np.float64], count: int) -> list[int]:
    """Rows that between them reach as far as possible: the most usual one, then always the one furthest from all taken.

    Args:
        found: (N, F) features.
        quality: (N,) above 0; a distance counts as that much of itself.
        count: rows at most; those with equal features are taken once.
    """
    if not len(found):
        return []
    chosen = [int(np.argmin(np.linalg.norm(found - np.median(found, axis=0), axis=1) / quality))]
    nearest = np.linalg.norm(found - found[chosen[0]], axis=1)
    while len(chosen) < min(count, len(found)):
        best = int(np.argmax(nearest * quality))
        if nearest[best] == 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(found - found[best], axis=1))
    return chosen


def doubtful(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(N, 68, 2) landmarks of one person → (N,): those that do not lie as this person's do.

    A shape is explained by the person's main ways of moving (principal components over all pictures, as many as the
    number of pictures can carry); what they leave over is compared with what they usually leave over.
    """
    shapes = aligned(landmarks).reshape(len(landmarks), -1)
    rest = shapes - np.median(shapes, axis=0)
    # what is far from everything must not shape the components
    kept = _usual(np.linalg.norm(rest, axis=1) / np.sqrt(68), np.ones(len(shapes), bool), 2.5 * DOUBTFUL_AT_LEAST)
    for _ in range(2):
        few = shapes[kept]
        middle = np.median(few, axis=0)
        components = np.linalg.svd(few - middle, full_matrices=False)[2][: min(8, len(few) // 6)]
        rest = shapes - middle
        rest = rest - rest @ components.T @ components
        kept = _usual(np.linalg.norm(rest, axis=1) / np.sqrt(68), kept, DOUBTFUL_AT_LEAST)
    return ~kept


def _usual(away: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_], at_least: float) -> npt.NDArray[np.bool_]:
    """Which of (N,) distances are usual among those that were kept so far."""
    middle = float(np.median(away[kept]))
    spread = 1.4826 * float(np.median(np.abs(away[kept] - middle)))
    return away <= middle + max(DOUBTFUL * spread, at_least)


_COLUMNS = ["face_id", "identity", "split", "status", "landmarks", "affine", "crop"]


def _chosen(dataset: Path, identities: Mapping[str, str], count: int) -> list[str]:
    """Ids of the faces that are taken."""
    by_identity: dict[str, list[str]] = defaultdict(list)
    for row in tables.iterate_rows(dataset, DATASET, ["face_id", "identity", "split", "status"]):
        if row["status"] == "ok" and row["split"] == "train" and row["identity"] in identities:
            by_identity[row["identity"]].append(row["face_id"])
    candidates = {
        face_id
        for ids in by_identity.values()
        for face_id in sorted(ids, key=lambda one: hashlib.sha256(one.encode()).digest())[:MOST_CANDIDATES]
    }
    seen: dict[str, list[tuple[str, Points, npt.NDArray[np.float64], float]]] = defaultdict(list)
    for row in tables.iterate_rows(dataset, DATASET, [*_COLUMNS, "sharpness"]):
        if row["face_id"] in candidates:
            try:
                points, light = _points_in_crop(row), _light(decode_own(row["crop"]["bytes"]), _points_in_crop(row))
            except (InputError, ValueError, TypeError) as error:
                raise FacemillError(
                    f"face {row['face_id']} of the dataset cannot be used ({error}): extract it again"
                ) from error
            seen[row["identity"]].append((row["face_id"], points, light, row["sharpness"] or 0.0))
    chosen = []
    for found in seen.values():
        found.sort(key=lambda one: one[0])
        landmarks = np.array([one[1] for one in found])
        sharp = np.array([one[3] for one in found])
        usable = np.flatnonzero(~doubtful(landmarks))
        quality = np.clip(sharp / max(float(np.quantile(sharp, 0.75)), 1e-6), LEAST_SHARPNESS, 1.0)
        all_features = np.column_stack([features(landmarks), np.array([one[2] for one in found])])
        chosen += [found[usable[at]][0] for at in cover(all_features[usable], quality[usable], count)]
    return chosen


def _light(crop: RGB, points: Points) -> npt.NDArray[np.float64]:
    """(3,): from which side the light falls, from above or below, and how bright the face is; 1 is a difference that
    shows."""
    affine = crop_affine(points, _LIGHT_PX, 1.0)
    grey = cv2.cvtColor(warp(crop, affine, _LIGHT_PX), cv2.COLOR_RGB2GRAY).astype(np.float64) + 8.0
    left, right = np.log(grey[:, : _LIGHT_PX // 2].mean()), np.log(grey[:, _LIGHT_PX // 2 :].mean())
    top, bottom = np.log(grey[: _LIGHT_PX // 2].mean()), np.log(grey[_LIGHT_PX // 2 :].mean())
    return np.array([(right - left) / 0.3, (bottom - top) / 0.3, np.log(grey.mean()) / 0.5])


def _points_in_crop(row: DatasetRow) -> Points:
    landmarks = np.asarray(row["landmarks"], np.float64).reshape(68, 2)
    placed = transform(landmarks, np.asarray(row["affine"], np.float64).reshape(2, 3))
    if not np.isfinite(placed).all():
        raise ValueError("its landmarks are not numbers")
    return placed


def _eight_bit(faces: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """RGB in 0…1 → uint8; what is not a number becomes black."""
    return np.clip(np.rint(np.nan_to_num(faces) * 255), 0, 255).astype(np.uint8)


def _row(row: DatasetRow, points: Points, face: npt.NDArray[np.float32], rights: str) -> ExemplarRow:
    drawn = _eight_bit(face)
    yaw, pitch, _ = head_pose(points)
    return {
        "identity": row["identity"],
        "face_id": row["face_id"],
        "sample_id": row["sample_id"],
        "source": row["source"],
        "url": row["url"],
        "licence": row["licence"] or "",
        "author": row["author"] or "",
        "rights": source_rights(row["rights"]) or rights,
        "crop": row["crop"],
        "sha256": sha256_hex(row["crop"]["bytes"]),
        "landmarks": tables.as_float32(points),
        "source_scale": scale_of(np.asarray(row["affine"], np.float64).reshape(2, 3)),
        "yaw": yaw,
        "pitch": pitch,
        "sharpness": row["sharpness"],
        "drawn": {"bytes": encode_png(drawn), "path": None},
        "drawn_px": len(drawn),
    }


def _exemplars(identity: str, rows: Sequence[ExemplarRow], path: Path) -> Exemplars:
    remedy = "train the model again, or take the file away to convert without exemplars"
    drawn = []
    drawn_as: dict[str, list[tuple[list[float], list[float]]]] = defaultdict(list)
    for row in rows:
        if sha256_hex(row["crop"]["bytes"]) != row["sha256"]:
            raise FacemillError(f"{path}: picture {row['face_id']} is not what its hash says: {remedy}")
        try:
            _must_be_square(row["crop"]["bytes"])
            drawn.append(decode_own(row["drawn"]["bytes"]))
        except InputError as error:
            raise FacemillError(f"{path}: picture {row['face_id']} is damaged ({error}): {remedy}") from error
        for other in row["drawn_as"] or ():
            drawn_as[other["identity"]].append((row["landmarks"], other["landmarks"]))
    landmarks = np.array([row["landmarks"] for row in rows], np.float64).reshape(-1, 68, 2)
    if (
        any(one.shape[0] != one.shape[1] for one in drawn)
        or not np.isfinite(landmarks).all()
        or len({one.shape for one in drawn}) != 1
    ):
        raise FacemillError(f"{path}: the exemplars of {identity} have no usable landmarks or sizes: {remedy}")
    return Exemplars(
        identity=identity,
        ids=tuple(row["face_id"] for row in rows),
        encoded=tuple(row["crop"]["bytes"] for row in rows),
        landmarks=landmarks,
        drawn=np.stack(drawn),
        source_scale=np.array([row["source_scale"] for row in rows], np.float64),
        drawn_as={name: _pairs(found) for name, found in drawn_as.items()},
    )


def _must_be_square(data: bytes) -> None:
    """Raises InputError for what is no picture, or none that was aligned."""
    size = picture_size(data)
    if size is None or size[0] != size[1]:
        raise InputError(Reason.UNREADABLE, f"a picture of {size or 'unknown size'}")


def _pairs(found: Sequence[tuple[list[float], list[float]]]) -> tuple[Points, Points]:
    array = np.array(found, np.float64).reshape(len(found), 2, 68, 2)
    return array[:, 0], array[:, 1]
