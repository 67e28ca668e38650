"""What the accepted faces of each identity show, read from `dataset` with a part of it in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.align import transform
from facemill.coverage import Coverage, lacks_sentence
from facemill.face_looks import LOOK_BYTES
from facemill.reasons import State
from facemill.schema import DATASET
from tasks.catalogue import Data

_COLUMNS = ["identity", "status", "landmarks", "affine", "yaw", "pitch", "look"]


def read_coverage(root: Path, identities: Collection[str]) -> dict[str, Coverage]:
    """By identity, in the order of their names; one without an accepted face has none in any bin.

    Raises:
        FacemillError: no dataset, or one of another version.
    """
    found = {identity: Coverage.none() for identity in sorted(identities)}
    for part in tables.iterate_parts(root / Data.DATASET, DATASET, _COLUMNS):
        accepted = part.filter(pc.equal(part["status"], State.OK)).drop_null()  # what is not told shows nothing
        for identity in pc.unique(accepted["identity"]).to_pylist():
            if identity in found:
                found[identity] += _coverage_of(accepted.filter(pc.equal(accepted["identity"], identity)))
    return found


def lacks(coverage: Mapping[str, Coverage], becomes: Mapping[str, str]) -> list[str]:
    """What a new face never shows though the one that it replaces does, a sentence for each pair of which that is so.

    Args:
        coverage: by identity.
        becomes: who is replaced by whom, as `convert.becomes` has it.
    """
    pairs = [(old, new) for old, new in becomes.items() if {old, new} <= coverage.keys()]
    said = [lacks_sentence(new, coverage[new], old, coverage[old]) for old, new in pairs]
    return [sentence for sentence in said if sentence]


def _coverage_of(faces: pa.Table) -> Coverage:
    points, affines = tables.matrix(faces, "landmarks", (68, 2)), tables.matrix(faces, "affine", (2, 3))
    upright = np.array([transform(*one) for one in zip(points, affines, strict=True)])
    looks = np.frombuffer(b"".join(faces["look"].to_pylist()), np.uint8).reshape(-1, LOOK_BYTES)
    return Coverage.of(upright, faces["yaw"].to_numpy(), faces["pitch"].to_numpy(), looks)
