"""Prints the mean face and its depths of `facemill/align.py`, from the 68-point files of HELEN and AFW.

    python benchmarks/mean_face.py FOLDER      # below it .pts files of 68 lines "x y", such as HELEN and AFW

Each face is brought onto the current mean by the points that alignment uses (brows, nose, eyes, mouth), the mean is
averaged with its mirror image and put centred into the unit square, until it rests. Depths: see `depths`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facemill.align import ALIGNED, procrustes, transform

NOSE_TIP = 30

MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
MIRRORED += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
MIRRORED += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
"""Which point a point becomes in a mirrored picture."""


def mean_face(faces: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 68, 2) landmarks in any picture coordinates -> (68, 2), symmetric, centred in the unit square."""
    mean = normalised(faces[0])
    for _ in range(100):
        placed = [transform(face, procrustes(face[ALIGNED], mean[ALIGNED])) for face in faces]
        previous, mean = mean, normalised(symmetric(np.mean(placed, axis=0)))
        if np.abs(mean - previous).max() < 1e-9:
            break
    return mean


def depths(faces: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 68, 2) landmarks -> (68,), the distance behind the nose tip that explains their turns best.

    In turns: the weak-perspective camera of each face for these depths; the depths, least squares, for these cameras.
    Each face counts mirrored too, so that the depths are symmetric. It rests after some 200 rounds.
    """
    faces = np.concatenate([faces, (faces * [-1, 1])[:, MIRRORED]])
    faces = faces - faces.mean(axis=1, keepdims=True)
    flat = mean - mean.mean(axis=0)
    depth = 1.2 * (mean[:, 0] - 0.5) ** 2  # a start that tells in from out: the middle of a face is in front
    depth[27:36] -= 0.1
    for _ in range(400):
        depth -= depth.mean()
        head = np.column_stack([flat, depth])
        linear = np.linalg.lstsq(head, faces.transpose(1, 0, 2).reshape(68, -1), rcond=None)[0]
        u, singular, vt = np.linalg.svd(linear.reshape(3, -1, 2).transpose(1, 2, 0), full_matrices=False)
        rotation = u @ vt  # (N, 2, 3)
        left_over = faces / singular.mean(axis=1)[:, None, None] - flat @ rotation[:, :, :2].transpose(0, 2, 1)
        towards = rotation[:, :, 2]
        depth = np.einsum("nki,ni->k", left_over, towards) / (towards**2).sum()
    return depth - depth[NOSE_TIP]


def symmetric(face: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mirrored = (face * [-1, 1])[MIRRORED]
    onto = procrustes(mirrored, face)
    half = (face + transform(mirrored, onto)) / 2
    upright = procrustes(half[[27, 8]], np.array([[0.0, 0.0], [0.0, 1.0]]))  # the axis of symmetry becomes vertical
    turned = transform(half, upright)
    return (turned + (turned * [-1, 1])[MIRRORED]) / 2


def normalised(face: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = face.min(axis=0), face.max(axis=0)
    return (face - (low + high) / 2) / (high - low).max() + 0.5


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    files = sorted([*folder.glob("helen/*.pts"), *folder.glob("afw/*.pts")])
    loaded = np.array([np.loadtxt(file) for file in files])
    points = mean_face(loaded)
    print(f"# {len(files)} faces, box {np.ptp(points[:, 0]):.4f} wide, {np.ptp(points[:, 1]):.4f} high")
    for row in range(0, 68, 4):
        print("    " + ", ".join(f"({x:.4f}, {y:.4f})" for x, y in points[row : row + 4]) + ",")
    behind = depths(loaded, points)
    for row in range(0, 68, 9):
        print("    " + ", ".join(f"{z:.3f}" for z in behind[row : row + 9]) + ",")
