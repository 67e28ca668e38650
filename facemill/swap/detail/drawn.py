"""Where a net draws the features of the face that it puts in place of another.

A mouth lies lower in one face than in another, so the points of the old face do not say where the new one's are. They
are told from a few pictures of the old person: each is drawn by the net as it would be in a video, the landmarks of the
drawing are looked for, and what they are away from the old ones is explained by the old shape, linearly (ridge
regression on its main ways of moving). In a video that costs one small product for each face and trembles no more than
the track does; looking for landmarks in every drawing would cost more than all the rest and tremble.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.swap.detail.exemplars import Exemplars, Points, aligned, to_crop

MOST_WAYS = 6
"""Ways of moving that explain where features are drawn; fewer where there are few pictures."""
_PICTURES_A_WAY = 6
MOST_AWAY = 0.12
"""Root mean square by which drawn points lie beside the old ones, in widths of the face, up to which they were found:
of Hopper drawn as Collins and the reverse, two very different faces, 0.03 to 0.06."""
_LEAST_FOUND = 0.5  # share of the pictures in which they must be, else the net draws no face yet
_RIDGE = 0.02**2  # of the face's width: what moves less than this explains little


class DrawnShape:
    """Old landmarks → where the same features are drawn."""

    def __init__(self, old: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> None:
        """
        Args:
            old: (N, 68, 2) landmarks of pictures of the person who is replaced, N ≥ 1.
            drawn: (N, 68, 2) where the net draws them, in the frame of reference of `aligned` applied to `old`.
        """
        shapes = aligned(old)
        away = np.asarray(drawn, np.float64) - shapes
        usual = np.median(away, axis=0)
        self._middle, self._usual = shapes.mean(axis=0), usual
        ways = np.linalg.svd((shapes - self._middle).reshape(len(shapes), -1), full_matrices=False)[2]
        self._ways = ways[: min(MOST_WAYS, len(shapes) // _PICTURES_A_WAY)]
        amounts = self._amounts(shapes)  # (N, W)
        rest = (away - usual).reshape(len(shapes), -1)
        rest *= np.minimum(1.0, _usual_times(rest))[:, None]  # a drawing in which nothing was found right
        gram = amounts.T @ amounts + len(shapes) * _RIDGE * np.eye(len(self._ways))
        self._slopes = np.linalg.solve(gram, amounts.T @ rest) if len(self._ways) else np.zeros((0, rest.shape[1]))

    def __call__(self, landmarks: npt.NDArray[Any], crop_px: int, coverage: float) -> Points:
        """(68, 2) landmarks, anywhere → (68, 2) places of the drawn features in the net's square of `crop_px`."""
        shape = aligned(landmarks)
        drawn = shape + self._usual + (self._amounts(shape[None]) @ self._slopes).reshape(68, 2)
        return to_crop(drawn, crop_px, coverage)

    def _amounts(self, shapes: Points) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = (shapes - self._middle).reshape(len(shapes), -1) @ self._ways.T
        return found


def drawn_shapes(becomes: Mapping[str, str], exemplars: Mapping[str, Exemplars]) -> dict[str, DrawnShape]:
    """By the identity that is replaced, where the net draws its features as those of who is put there.

    Without those of whom no pictures say so, or of whom the net draws nothing yet that has the features of a face: a
    face that is stretched to points that mean nothing is torn.

    Args:
        becomes: the identity that is replaced → the identity whose face is put there.
        exemplars: by identity, those that travel with the model.
    """
    shapes = {}
    for old, new in becomes.items():
        if old in exemplars and new in exemplars[old].drawn_as:
            landmarks, drawn = exemplars[old].drawn_as[new]
            away = np.sqrt(((drawn - aligned(landmarks)) ** 2).sum(axis=2).mean(axis=1))  # (N,)
            found = away <= MOST_AWAY  # not a number in what is no face: False
            if len(found) and found.mean() >= _LEAST_FOUND:
                shapes[old] = DrawnShape(landmarks[found], drawn[found])
    return shapes


def _usual_times(rest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, F) → (N,): three times the usual length of a row over its own."""
    lengths = np.linalg.norm(rest, axis=1)
    found: npt.NDArray[np.float64] = 3 * np.median(lengths) / np.maximum(lengths, 1e-9)
    return found
