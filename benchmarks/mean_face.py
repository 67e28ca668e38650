"""Prints the mean face and its depths of `facemill/align.py`, from the 68-point files of HELEN and AFW.

    python benchmarks/mean_face.py FOLDER      # below it .pts files of 68 lines "x y", such as HELEN and AFW

The mean is `facemill.mean_face.mean_face`; depths: see `depths`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facemill.mean_face import MIRRORED, mean_face

NOSE_TIP = 30


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
    return np.asarray(depth - depth[NOSE_TIP])


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
