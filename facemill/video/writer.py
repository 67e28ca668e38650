"""Encodes frames beside the original sound; the file appears only when it is whole and has been verified.

`with VideoWriter(...) as writer:` owns every handle. `commit` makes a film of the one part that was written, as
`parts.py` makes it of many, re-opens and checks it, flushes it to the disk and gives it its name. Whatever ends the
block otherwise (an error, Ctrl-C) leaves nothing behind; a killed process leaves hidden files `.facemill-new-…`, which
`facemill.files.sweep` removes.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from facemill.files import atomic_path, scratch_path
from facemill.video.clock import Clock
from facemill.video.encoder import EncoderSettings, losses
from facemill.video.frame import Frame
from facemill.video.info import VideoInfo
from facemill.video.parts import Encoding, NotCommitted, join


class VideoWriter:
    """Writes one video in one go.

    Attributes:
        pix_fmt: the format to decode into, so that nothing is converted on the way (`VideoReader(pix_fmt=...)`).
        keeps_fields: whether interlaced pictures are written as such; else whoever reads deinterlaces.
        warnings: what a person should know about the output.
    """

    def __init__(
        self,
        path: Path | str,
        info: VideoInfo,
        settings: EncoderSettings | None = None,
        *,
        sound_from: Path | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            path: the output; its suffix must be in `CONTAINERS`.
            info: of the source: size, timing, colour tags and pixel ratio are taken from it.
            sound_from: the file whose sound, subtitles, chapters and labels are carried over.
            clock: of that file, where it is known; the frames' times are on it.

        Raises:
            FacemillError: a container that cannot be written, or an encoder that this machine cannot open.
        """
        self.path = Path(path)
        self._encoding = Encoding(self.path, info, settings or EncoderSettings())
        self.pix_fmt = self._encoding.pix_fmt
        self.keeps_fields = self._encoding.keeps_fields
        self.warnings = losses(info, self.pix_fmt, self._encoding.settings.name)
        self._info = info
        self._sound_from = Path(sound_from) if sound_from is not None else None
        self._clock = clock
        self._stack = ExitStack()

    @property
    def frames_written(self) -> int:
        """Frames handed to the encoder so far."""
        return self._encoding.frames_written

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self.path))
            part = stack.enter_context(scratch_path(self.path))
            stack.enter_context(self._encoding.into(part))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Without `commit` the temporary file goes."""
        reason = error or NotCommitted()
        self._stack.__exit__(type(reason), reason, trace)  # a full disk becomes a FacemillError here

    def write(self, frame: Frame) -> None:
        """Encodes a frame of the source's size. Its pts is kept; frames come in order of display."""
        self._encoding.write(frame)

    def commit(self) -> None:
        """Closes, verifies, flushes, renames.

        Raises:
            InputError: CONVERSION_FAILED, the written file is not what was put in.
            FacemillError: the disk is full.
        """
        part = self._encoding.finish()
        self.warnings = join([part], self._temporary, self._info, self._sound_from, self._clock)
        self._stack.close()
