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


def distance(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Euclidean distance along the last axis, broadcast over the others: (…, 128), (…, 128) -> (…)."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(
        np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=-1
    )
    return apart
