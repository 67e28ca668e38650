"""What was seen in one segment, as a file: whole or not at all, and read back when it is asked for."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.track.segment import SegmentTracks

PIECES_HELD = 3  # of a video that is joined: a segment and its neighbours
_FACTS = "facts"


def write_piece(path: Path, piece: SegmentTracks) -> None:
    """Writes a piece atomically. Raises FacemillError where the disk is full."""
    facts = np.frombuffer(json.dumps(piece.facts()).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **piece.arrays(), **{_FACTS: facts})  # type: ignore[arg-type]  # mypy takes them for options


def read_piece(path: Path) -> SegmentTracks:
    """The way back of `write_piece`.

    Raises:
        FacemillError: the file is damaged; it is removed, so that the same command makes it again.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        return SegmentTracks.of(arrays, facts)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        path.unlink(missing_ok=True)
        raise FacemillError(f"{path} was damaged and is removed: run the same command again") from error


class StoredPieces(Sequence[SegmentTracks]):
    """The pieces of a video in files, of which a few are in memory at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._read = lru_cache(maxsize=PIECES_HELD)(read_piece)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> SegmentTracks: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SegmentTracks]: ...
    def __getitem__(self, index: int | slice) -> SegmentTracks | Sequence[SegmentTracks]:
        if isinstance(index, slice):
            return StoredPieces(self._paths[index])
        return self._read(self._paths[index])
