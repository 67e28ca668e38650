"""Where the new face ends: its jaw is brought to the old one's where it would end further in, so that none of the old
face is left beside it.

A net draws a new person's jaw where that person's is. Where it lies inside the old one, a rim of the old face would be
seen around the new one, its jowls and its shadows; blending over a wide rim hides the seam and shows both. So the
drawing is stretched until its jaw lies on the old one, or below it where the new chin is longer, by the triangles that
also bring detail (`detail/mesh.py`); eyes, nose and mouth stay where they were drawn. What lies behind a jaw in the
drawing (hair, a collar, a background) is the training pictures' and is not shown.

Landmarks lie beside a jaw as often as on it, by some hundredths of a face. Where what is seen just inside the jaw's
points is clearly no part of the cheek next to it, but hair or background, the jaw is taken to lie where the cheek ends.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.swap.detail.exemplars import Points
from facemill.swap.detail.mesh import GRID_PX, FaceMesh, corners_of

MOST_BEYOND = 0.05
"""How far the new chin may lie below the old one, over the height of the landmarks' box: there it covers a neck, while
beside a cheek it would cover hair and background."""
WITHIN = 0.03
"""By how much, of its distance from the nose, the drawn jaw is taken to lie further in: its very edge is half skin."""
LEAST_PX = 128
"""Side to which a smaller drawing is brought while it is stretched: sampled at its own size it would lose detail."""
_JAW, _NOSE, _BROWS = slice(0, 17), slice(27, 36), slice(17, 27)
_CHIN = np.clip((5.0 - np.abs(np.arange(17) - 8)) / 3.0, 0.0, 1.0)  # 1 at the chin, 0 at the cheeks
LIKE, UNLIKE = 9.0, 18.0
"""Differences in Lab from the cheek up to which a place is part of it, and from which on it is none."""
_LAB_WEIGHTS = np.array([0.5, 1.2, 1.2], np.float32)  # of a cheek's shade the least
_FROM_CHIN = np.abs(np.arange(17) - 8)
_CHEEKS = np.clip(np.minimum(_FROM_CHIN - 2, 8 - _FROM_CHIN) / 2, 0, 1)  # 0 at the chin, and where arms of glasses are
_SPOKES = np.linspace(0, 16, 49)
_RADII = np.arange(0.66, 1.141, 0.02)
_CHEEK, _BEHIND = 0.78, 1.05  # up to where on a spoke the cheek is looked at, and from where on what lies behind it
_IN_PLACE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def seen_jaw(crop: npt.NDArray[np.uint8], landmarks: npt.NDArray[Any]) -> Points:
    """The landmarks of a face with the jaw no further out than its cheeks and chin are seen.

    Along a spoke from the nose to each point of the jaw, what is unlike the cheek and like what lies behind the jaw
    (hair, a background), from the point inwards without a gap, is not the face's. A beard is unlike both, a wrinkle
    has skin outside, and points of a chin, below which a neck in its shade may look like a beard, are left alone.

    Args:
        crop: RGB uint8 (P, P, 3).
        landmarks: (68, 2) in its pixels.

    Returns:
        (68, 2).
    """
    points = np.array(landmarks, np.float64)
    middle = points[_NOSE].mean(axis=0)
    jaw = np.stack([np.interp(_SPOKES, np.arange(17), points[_JAW, axis]) for axis in (0, 1)], axis=-1)
    x, y = np.moveaxis(middle + (jaw - middle)[:, None] * _RADII[:, None], -1, 0).astype(np.float32)  # (S, R) each
    lab = cv2.cvtColor(np.ascontiguousarray(crop, np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)
    seen = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # (S, R, 3)
    cheek = cv2.blur(np.median(seen[:, _RADII <= _CHEEK], axis=1)[:, None], (1, 5), borderType=cv2.BORDER_REPLICATE)
    behind = np.median(seen[:, _RADII > _BEHIND], axis=1)[:, None]
    rim = seen[:, (_RADII > _CHEEK) & (_RADII < 1.01)]
    unlike, other = (np.linalg.norm((rim - known) * _LAB_WEIGHTS, axis=2) for known in (cheek, behind))
    outside = np.clip((unlike - LIKE) / (UNLIKE - LIKE), 0.0, 1.0) * np.clip(2.0 - 2.5 * other / (unlike + 1), 0.0, 1.0)
    outside = np.minimum.accumulate(outside[:, ::-1], axis=1)  # no gap from the point inwards
    share = (1 - _CHEEK) * outside.mean(axis=1)
    share = cv2.GaussianBlur(share[:, None], (1, 0), sigmaX=0, sigmaY=3.0, borderType=cv2.BORDER_REPLICATE)[:, 0]
    points[_JAW] += (share[:: len(_SPOKES) // 16] * _CHEEKS)[:, None] * (middle - points[_JAW])
    return points


def outline_of(old: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> Points:
    """Where the points of the new face are to lie: those drawn, with the farther of both jaws.

    Args:
        old: (68, 2) landmarks of the face that is replaced.
        drawn: (68, 2) where the net draws the same features, in the same square.

    Returns:
        (68, 2) in that square.
    """
    points = np.array(drawn, np.float64)
    middle = np.asarray(old, np.float64)[_NOSE].mean(axis=0)
    spokes = old[_JAW] - middle
    lengths = np.maximum(np.linalg.norm(spokes, axis=1), 1e-6)
    spokes = spokes / lengths[:, None]
    beyond = ((drawn[_JAW] - middle) * spokes).sum(axis=1) - lengths
    beyond = np.clip(beyond, 0.0, MOST_BEYOND * _CHIN * float(np.ptp(old[:, 1])))
    beyond = np.convolve(np.pad(beyond, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")  # no corner in the jaw
    points[_JAW] = middle + spokes * (lengths + beyond)[:, None]
    return points


def covering(points: npt.NDArray[Any], old: npt.NDArray[Any]) -> Points:
    """The points that the mask reaches around, (68, 2): those of the new face, with the higher of both brows."""
    covered = np.array(points, np.float64)
    covered[_BROWS, 1] = np.minimum(covered[_BROWS, 1], old[_BROWS, 1])
    return covered


def stretched(
    face: npt.NDArray[np.float32], drawn: npt.NDArray[Any], points: npt.NDArray[Any], coverage: float
) -> npt.NDArray[np.float32]:
    """The drawing with its features at other places.

    Args:
        face: (P, P, 3), what the net drew.
        drawn: (68, 2) in its pixels, where the features lie.
        points: (68, 2) likewise, where they are to lie, as `outline_of` has them.
        coverage: of the square that the net sees, see `facemill.align`.

    Returns:
        (S, S, 3) of the same square, with S = P or a multiple of it that is at least `LEAST_PX`.
    """
    zoom = GRID_PX / len(face)
    source = np.array(drawn, np.float64)
    middle = source[_NOSE].mean(axis=0)
    source[_JAW] += WITHIN * (middle - source[_JAW])
    mesh = FaceMesh((points + 0.5) * zoom - 0.5, _IN_PLACE, coverage)
    side = len(face) * -(-LEAST_PX // len(face))
    x, y = (
        cv2.resize((cells + 0.5) / zoom - 0.5, (side, side), interpolation=cv2.INTER_LINEAR)
        for cells in mesh.map_to(corners_of((source + 0.5) * zoom - 0.5, _IN_PLACE))
    )
    moved = cv2.remap(face, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(moved, 0.0, 1.0), np.float32)
