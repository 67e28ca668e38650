"""Encodes frames beside the original sound; the file appears only when it is whole and has been verified.

`with VideoWriter(...) as writer:` owns every handle. `commit` makes a film of the one part that was written, as
`joining.py` makes it of many, re-opens and checks it, flushes it to the disk and gives it its name. Whatever ends the
block otherwise (an error, Ctrl-C) leaves nothing behind; a killed process leaves hidden files `.facemill-new-…`, which
`facemill.files.sweep` removes.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from facemill.files import scratch_path
from facemill.video.clock import Clock
from facemill.video.encoder import EncoderSettings
from facemill.video.info import VideoInfo
from facemill.video.joining import join
from facemill.video.parts import FrameWriter


class VideoWriter(FrameWriter):
    """Writes one video in one go."""

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
            path, info, settings: as `FrameWriter` has them.
            sound_from: the file whose sound, subtitles, chapters and labels are carried over.
            clock: of that file, where it is known; the frames' times are on it.
        """
        super().__init__(path, info, settings)
        self._info = info
        self._sound_from = Path(sound_from) if sound_from is not None else None
        self._clock = clock

    def _part_path(self, stack: ExitStack) -> Path:
        """The film is made of a part that lies beside it and goes in the end."""
        return stack.enter_context(scratch_path(self.path))

    def commit(self) -> None:
        """Closes, verifies, flushes, renames.

        Raises:
            InputError: CONVERSION_FAILED, the written file is not what was put in.
            FacemillError: the disk is full.
        """
        part = self._encoding.finish()
        joined = join([part], self._temporary, self._info, self._sound_from, self._clock)
        self.warnings = list(dict.fromkeys([*self.warnings, *joined]))
        self._stack.close()
