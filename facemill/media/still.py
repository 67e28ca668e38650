"""A still picture read as a video of one frame, and written as the one part of which that video consists."""

from __future__ import annotations

import hashlib
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from facemill.errors import InputError
from facemill.files import atomic_path, file_sha256, keep_date, write_bytes
from facemill.media.embedded import Carried
from facemill.media.kinds import read_still
from facemill.media.still_file import check_still, repainted
from facemill.media.still_frame import StillFrame
from facemill.media_files import VIDEO_SUFFIXES
from facemill.picture_headers import sniff
from facemill.pictures import decode
from facemill.reasons import Reason
from facemill.video import Frame, Part


@dataclass(frozen=True)
class StillInfo:
    """What of a video's info a still picture has, too; `width` and `height` as it is shown, in pixels."""

    kind: str
    width: int
    height: int
    interlaced: bool = False
    frames: int = 1


class StillReader:
    """The one frame of a still picture; iterate once.

    Attributes:
        info: kind and size.
        cut: never: a picture that is cut off is an error.
        pix_fmt, deinterlace: as a `VideoReader` has them; a still picture has its own format.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            InputError: as `facemill.pictures.decode`; NOT_A_PICTURE, where it is several.
        """
        self.path = Path(path)
        data = read_still(self.path)
        kind = sniff(data) or ""
        check_still(data, kind)
        self.sha256 = hashlib.sha256(data).hexdigest()
        rgb = decode(data)
        self._frame: StillFrame | None = StillFrame(np.require(rgb, requirements=["C", "W"]))
        self.info = StillInfo(kind, self._frame.width, self._frame.height)
        self.cut = False
        self.pix_fmt = "rgb24"
        self.deinterlace = False
        self.frames_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._frame = None

    def __iter__(self) -> Iterator[Frame]:
        frame, self._frame = self._frame, None
        if frame is not None:
            self.frames_read = 1
            yield frame

    def warnings(self) -> list[str]:
        """What a person should know about the input."""
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            return []
        return [f"a picture ({self.info.kind.upper()}) in the name of a video"]


class StillWriter:
    """Writes a still picture with what was painted, as `facemill.video.PartWriter` does a part.

    Attributes:
        warnings: what a person should know about the output, after `commit`.
    """

    keeps_fields = True
    pix_fmt = "rgb24"

    def __init__(self, path: Path, reader: StillReader) -> None:
        self.path, self.warnings = Path(path), list[str]()
        self._reader = reader
        self._frame: StillFrame | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._frame = None

    def write(self, frame: Frame) -> None:
        """Takes the frame as it is by now."""
        if not isinstance(frame, StillFrame) or self._frame is not None:
            raise ValueError("a still picture has one frame, and its own")
        self._frame = frame

    def commit(self) -> Part:
        """Encodes, verifies, flushes, renames.

        Raises:
            InputError: CONVERSION_FAILED, what was written is not what was put in; UNREADABLE, the source is another
                one by now.
            FacemillError: the disk is full.
        """
        if self._frame is None:
            raise InputError(Reason.CONVERSION_FAILED, "verification: no frames")
        data = read_still(self._reader.path)
        if hashlib.sha256(data).hexdigest() != self._reader.sha256:
            raise InputError(Reason.UNREADABLE, "the file has changed while it was converted")
        changes = self._frame.changes
        written = repainted(data, changes) if changes else Carried(data)
        self.warnings += written.notes
        write_bytes(self.path, written.data)
        info = self._reader.info
        return Part(
            path=self.path,
            sha256=file_sha256(self.path),
            encoder=info.kind,
            pix_fmt=self.pix_fmt,
            size_wh=(info.width, info.height),
            time_base=Fraction(1),
            reorder_depth=0,
            header_sha256="",
            pts=array("q", [0]),
            durations=array("q", [0]),
            keys=array("b", [1]),
        )


def join_still(part: Part, output: Path, source: Path) -> list[str]:
    """Makes the finished picture of its one part; it has the date of its source.

    Raises:
        InputError: CONVERSION_FAILED: the part is not as it was written.
        FacemillError: the disk is full.
    """
    with atomic_path(output) as temporary:
        shutil.copyfile(part.path, temporary)
        if file_sha256(temporary) != part.sha256:
            raise InputError(Reason.CONVERSION_FAILED, f"verification: part {part.path.name} is not as it was written")
        keep_date(source, temporary)
    return []
