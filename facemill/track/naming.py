"""Who a track is: one decision by all its looks together, and not frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from facemill.embeddings import DIMENSIONS, identity_distance

TrackId = TypeVar("TrackId")


def name_tracks(
    looks: Mapping[TrackId, npt.NDArray[Any]], references: Mapping[str, npt.NDArray[Any]], limit: float
) -> dict[TrackId, str | None]:
    """The identity of each track; None for nobody who is known.

    A track is as far from an identity as the median of its looks is from that identity's references
    (`facemill.embeddings.identity_distance`): a look or two that are blurred or turned away decide nothing. It is
    whoever is nearest, if that is within the limit. Several tracks may be one person, at the same time, too: a mirror,
    a split screen.

    Args:
        looks: (K, 128) embeddings by track; a track without any is nobody.
        references: (R, 128) embeddings by identity, of everybody who is known and not only of those who are wanted.
        limit: the largest Euclidean distance of one person's embeddings.
    """
    return {track: _nearest(own, references, limit) for track, own in looks.items()}


def distances(look: npt.NDArray[Any], references: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """How far the looks (K, 128) of a track are from each identity, see `name_tracks`; infinite without looks."""
    own = np.asarray(look, np.float64).reshape(-1, DIMENSIONS)
    found = {}
    for identity, rows in references.items():
        known = np.asarray(rows, np.float64).reshape(-1, DIMENSIONS)
        empty = not len(own) or not len(known)
        found[identity] = float("inf") if empty else float(np.median(identity_distance(known, own)))
    return found


def _nearest(look: npt.NDArray[Any], references: Mapping[str, npt.NDArray[Any]], limit: float) -> str | None:
    found = distances(look, references)
    best = min(found, key=lambda identity: found[identity], default=None)
    return best if best is not None and found[best] <= limit else None
