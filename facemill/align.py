"""Faces to one frame of reference and back: Procrustes alignment to a mean face by SVD (S9).

An affine is 2×3 float64 and maps picture coordinates to crop coordinates, both with pixel centres at integers:
``crop = A[:, :2] @ picture + A[:, 2]``. A crop is square; its `coverage` is its side over the height of the mean
face's box, so at 1.0 the 68 points fill it from top to bottom, and about 1.6 also holds forehead and cheeks.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from facemill.point_sets import fit

Affine = npt.NDArray[np.float64]


def crop_affine(
    landmarks: npt.NDArray[Any],
    crop_px: int,
    coverage: float,
    *,
    kind: Literal["similarity", "affine"] = "similarity",
    mean_face: npt.NDArray[np.float64] | None = None,
) -> Affine:
    """The affine that brings landmarks onto the mean face in a crop of `crop_px` and that coverage.

    Args:
        landmarks: (68, 2), of which `ALIGNED` count, or (5, 2) as `Faces.points5` has them, where no 68 are wanted.
        crop_px: side of the crop.
        coverage: side of the crop over the height of the mean face's box.
        kind: "affine" also shears and stretches, which flattens a turned head and is for comparing, not for swapping.
        mean_face: (68, 2) in the unit square instead of `MEAN_FACE`.

    Raises:
        ValueError: other shapes or NaN; the points coincide or, for an affine, lie on a line.
    """
    placed = crop_points(crop_px, coverage, mean_face)
    if np.shape(landmarks) == (5, 2):
        return fit(_points("landmarks", landmarks, 5), five_points(placed), kind)
    return fit(_points("landmarks", landmarks, 68)[ALIGNED], placed[ALIGNED], kind)


def crop_points(
    crop_px: int, coverage: float, mean_face: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """(68, 2): where the mean face's points lie in a crop, in pixels."""
    mean = MEAN_FACE if mean_face is None else _points("mean_face", mean_face, 68)
    height = np.ptp(mean[:, 1])
    # the crop reaches from -0.5 to crop_px - 0.5, since pixel centres are at integers
    placed: npt.NDArray[np.float64] = ((mean - 0.5) / (height * coverage) + 0.5) * crop_px - 0.5
    return placed


def five_points(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(68, 2) -> (5, 2): middles of the eyes, tip of the nose, corners of the mouth, in the order of `points5`."""
    points = _points("landmarks", landmarks, 68)
    return np.array([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def procrustes(src: npt.NDArray[Any], dst: npt.NDArray[Any], scale: bool = True) -> Affine:
    """The rotation, shift and (if wanted) scale that bring (K, 2) points `src` closest to `dst`, least squares.

    Never a reflection; see `point_sets.fit`.

    Raises:
        ValueError: other shapes, fewer than two points, or points that all coincide.
    """
    src, dst = _points("src", src), _points("dst", dst, len(src))
    return fit(src, dst, "similarity" if scale else "rigid")


def affine_fit(src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> Affine:
    """The affine, shear included, that brings (K, 2) `src` closest to `dst`, least squares; K ≥ 3, not on a line."""
    src, dst = _points("src", src), _points("dst", dst, len(src))
    return fit(src, dst, "affine")


def transform(points: npt.NDArray[Any], affine: Affine) -> npt.NDArray[np.float64]:
    """Takes (…, 2) points of the picture to where an affine puts them; the shape stays."""
    mapped: npt.NDArray[np.float64] = np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]
    return mapped


def invert(affine: Affine) -> Affine:
    """The affine that undoes this one. Raises ValueError when it squeezes the plane to a line."""
    linear = affine[:, :2]
    if abs(np.linalg.det(linear)) < 1e-12:
        raise ValueError(f"the affine cannot be undone: {affine.tolist()}")
    back = np.linalg.inv(linear)
    return np.hstack([back, -(back @ affine[:, 2])[:, None]])


def scale_of(affine: Affine) -> float:
    """How many crop pixels long a line of one picture pixel becomes under an affine."""
    return float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))


def warp(picture: npt.NDArray[np.uint8], affine: Affine, out_px: int) -> npt.NDArray[np.uint8]:
    """The square crop of out_px that `affine` describes, bilinear; past the picture's edge its last pixels go on.

    Where the crop is less than half as fine as the picture, the picture is averaged down first: bilinear sampling
    alone would skip pixels and alias.
    """
    halvings = int(np.floor(np.log2(1.0 / max(scale_of(affine), 1e-3))))
    if halvings > 0:
        picture, affine = _averaged_down(picture, affine, out_px, 2**halvings)
    size_wh, border = (out_px, out_px), cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(picture, affine, size_wh, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def resized(picture: npt.NDArray[np.uint8], size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The picture at another size, each new pixel the mean of those it covers: for making smaller."""
    return np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _averaged_down(
    picture: npt.NDArray[np.uint8], affine: Affine, out_px: int, factor: int
) -> tuple[npt.NDArray[np.uint8], Affine]:
    """The part of the picture that the crop needs at 1/factor, and the affine from there."""
    corners = transform(np.array([[0, 0], [out_px, 0], [0, out_px], [out_px, out_px]]) - 0.5, invert(affine))
    size_wh = np.array(picture.shape[1::-1])
    first = np.clip(np.floor(corners.min(axis=0)) - 2 * factor, 0, size_wh - 1).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0)) + 2 * factor, first + 1, size_wh).astype(int)
    small_wh = np.maximum(1, np.round((last - first) / factor)).astype(int)
    small = resized(picture[first[1] : last[1], first[0] : last[0]], (int(small_wh[0]), int(small_wh[1])))
    step = (last - first) / small_wh
    # small -> picture: x = (x' + 0.5) · step - 0.5 + first
    back = np.hstack([np.diag(step), (0.5 * step - 0.5 + first)[:, None]])
    return small, compose(affine, back)


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that does `inner` first, then `outer`."""
    return np.hstack([outer[:, :2] @ inner[:, :2], (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]])


def head_pose(landmarks: npt.NDArray[Any]) -> tuple[float, float, float]:
    """(yaw, pitch, roll) of the head in degrees, from (68, 2) landmarks; the mean face has 0, 0, 0.

    yaw > 0: the nose points to the picture's right. pitch > 0: it points up. roll > 0: the head is tilted clockwise
    as one sees it. The head is turned by pitch first, then by yaw, then by roll in the plane of the picture, so that
    yaw and pitch are those of the upright crop. Weak perspective: the mean head is fitted to the points in closed form
    (no start value, nothing to diverge), exact for that head seen from far; on people good to some 5–10°, enough for
    limits, not for measuring.
    """
    points = _points("landmarks", landmarks, 68)
    camera = np.linalg.lstsq(_HEAD - _HEAD.mean(axis=0), points - points.mean(axis=0), rcond=None)[
        0
    ].T  # (2, 3), scaled
    u, singular, vt = np.linalg.svd(camera, full_matrices=False)
    if singular[1] < 1e-9:
        raise ValueError("landmarks: the points lie on a line, so the head has no pose")
    right, down = u @ vt  # the nearest pair of orthonormal rows
    towards = np.cross(right, down)
    # The rows of roll @ yaw @ pitch; x right, y down, z away from the camera, and the nose points along -z.
    yaw = np.arcsin(np.clip(towards[0], -1.0, 1.0))
    pitch = np.arctan2(-towards[1], towards[2])
    roll = np.arctan2(down[0], right[0])
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def _points(name: str, points: npt.NDArray[Any], count: int | None = None) -> npt.NDArray[np.float64]:
    array = np.asarray(points, np.float64)
    wanted = "K" if count is None else count
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2 or (count is not None and len(array) != count):
        raise ValueError(f"{name}: expected ({wanted}, 2) points, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return array


ALIGNED = slice(17, 68)
"""Points that alignment uses: brows, nose, eyes, mouth. The jaw follows the turn of the head too much."""

# fmt: off
MEAN_FACE = np.array(
    [
        (0.0000, 0.1997), (0.0053, 0.3324), (0.0205, 0.4648), (0.0497, 0.5913),
        (0.1034, 0.7085), (0.1841, 0.8098), (0.2811, 0.8927), (0.3850, 0.9571),
        (0.5000, 0.9763), (0.6150, 0.9571), (0.7189, 0.8927), (0.8159, 0.8098),
        (0.8966, 0.7085), (0.9503, 0.5913), (0.9795, 0.4648), (0.9947, 0.3324),
        (1.0000, 0.1997), (0.0947, 0.1005), (0.1538, 0.0432), (0.2399, 0.0237),
        (0.3298, 0.0333), (0.4150, 0.0634), (0.5850, 0.0634), (0.6702, 0.0333),
        (0.7601, 0.0237), (0.8462, 0.0432), (0.9053, 0.1005), (0.5000, 0.1761),
        (0.5000, 0.2595), (0.5000, 0.3417), (0.5000, 0.4257), (0.3972, 0.4898),
        (0.4470, 0.5061), (0.5000, 0.5199), (0.5530, 0.5061), (0.6028, 0.4898),
        (0.1942, 0.1893), (0.2491, 0.1580), (0.3147, 0.1589), (0.3729, 0.2022),
        (0.3115, 0.2126), (0.2456, 0.2118), (0.6271, 0.2022), (0.6853, 0.1589),
        (0.7509, 0.1580), (0.8058, 0.1893), (0.7544, 0.2118), (0.6885, 0.2126),
        (0.3094, 0.6481), (0.3799, 0.6163), (0.4515, 0.6010), (0.5000, 0.6124),
        (0.5485, 0.6010), (0.6201, 0.6163), (0.6906, 0.6481), (0.6227, 0.7180),
        (0.5524, 0.7488), (0.5000, 0.7539), (0.4476, 0.7488), (0.3773, 0.7180),
        (0.3383, 0.6512), (0.4509, 0.6437), (0.5000, 0.6487), (0.5491, 0.6437),
        (0.6617, 0.6512), (0.5498, 0.6844), (0.5000, 0.6901), (0.4502, 0.6844),
    ]
)
# fmt: on
"""(68, 2): mean of the 230 faces of HELEN and AFW, symmetric, centred in the unit square (1.0 wide, 0.953 high).

`mean_face.mean_face` of them; `benchmarks/mean_face.py` prints these lines.
"""
MEAN_FACE.flags.writeable = False

# fmt: off
MEAN_DEPTH = np.array(
    [
        0.806, 0.775, 0.757, 0.741, 0.695, 0.617, 0.523, 0.431, 0.397,
        0.431, 0.523, 0.617, 0.695, 0.741, 0.757, 0.775, 0.806, 0.426,
        0.335, 0.262, 0.203, 0.161, 0.161, 0.203, 0.262, 0.335, 0.426,
        0.170, 0.118, 0.058, 0.000, 0.161, 0.131, 0.114, 0.131, 0.161,
        0.362, 0.319, 0.304, 0.306, 0.303, 0.318, 0.306, 0.304, 0.319,
        0.362, 0.318, 0.303, 0.357, 0.234, 0.169, 0.163, 0.169, 0.234,
        0.357, 0.272, 0.216, 0.209, 0.216, 0.272, 0.339, 0.188, 0.181,
        0.188, 0.339, 0.209, 0.202, 0.209,
    ]
)
# fmt: on
"""(68,): how far each point lies behind the tip of the nose, in units of MEAN_FACE.

Rank-3 factorisation of the same faces under weak perspective (Tomasi & Kanade 1992), x and y held at MEAN_FACE, so that
the mean face has no turn; the same script prints it.
"""
MEAN_DEPTH.flags.writeable = False
_HEAD = np.column_stack([MEAN_FACE, MEAN_DEPTH])
