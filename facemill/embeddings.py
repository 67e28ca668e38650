"""Embeddings of faces as numbers: how many there are, how far two lie apart, and what counts as the same person.

Apart from `facemill.identity`, which computes them: whoever only compares need not wait for torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

DIMENSIONS = 128
"""Numbers of an embedding by dlib's ResNet."""
SAME_PERSON = 0.6
"""Euclidean distance under which two embeddings are of one person, as dlib's author gives it."""


def identity_distance(references: npt.NDArray[Any], faces: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far faces are from a person of whom there are some references: (K, 128), (…, 128) -> (…).

    The root mean square of the distances to the nearer half of the references, so that it means what a distance between
    two faces means, however many references there are. The distance to the nearest alone falls with their number, for
    strangers too: on LFW at 0.55 the precision with 30 references is 0.949, with this one 1.000; the mean over all of
    them would ask of a profile that it looks like the frontal ones (`benchmarks/references.py`).
    """
    apart = distance(np.asarray(references)[:, None], np.reshape(faces, (1, -1, DIMENSIONS)))  # (K, N)
    nearest = np.sort(apart, axis=0)[: -(-len(apart) // 2)]
    found: npt.NDArray[np.float64] = np.sqrt((nearest**2).mean(axis=0))
    return found.reshape(np.shape(faces)[:-1])


def distance(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Euclidean distance along the last axis, broadcast over the others: (…, 128), (…, 128) -> (…)."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(
        np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=-1
    )
    return apart
