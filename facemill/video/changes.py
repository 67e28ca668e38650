"""What pictures of a stream are that its first one was not, and what lies beside them that is lost on the way.

A film is read and written by what its first picture says. A broadcast goes from a film to a studio and back in one
stream: what changes then, and is not followed, is at least said.
"""

from __future__ import annotations

from typing import Any

import av
from av.sidedata.sidedata import Type

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video.info import HLG_TRC, PQ_TRC, VideoInfo, side_data

CAPTIONS_LOST = "dropped the captions inside the picture (CEA-608, CEA-708)"
CAPTION_ENCODERS = {"libx264"}  # encoders that write them again
KINDS = {PQ_TRC: "HDR10 (PQ)", HLG_TRC: "HLG"}


class Changes:
    """Looks at each decoded picture of one video.

    Attributes:
        notes: what a person should know, each once.
    """

    def __init__(self, info: VideoInfo, *, refuse_hdr: bool) -> None:
        """`info`: as the video was probed; `refuse_hdr`: whether high dynamic range ends it."""
        self.notes: list[str] = []
        self._info = info
        self._refuse_hdr = refuse_hdr
        self._ratio: Any = None

    def see(self, picture: av.VideoFrame, context: Any) -> None:
        """Takes a picture as it was decoded, by which codec context.

        Raises:
            InputError: HDR_VIDEO: it is of high dynamic range, the first one was not, and it is not wanted.
        """
        if picture.interlaced_frame and not self._info.interlaced:
            self._say("interlaced in parts: fields are woven there, and marked as whole frames")
        trc = int(picture.color_trc)
        if trc in KINDS and not self._info.hdr:
            if self._refuse_hdr:
                raise InputError(
                    Reason.HDR_VIDEO, f"{KINDS[trc]} in parts, after ordinary pictures: cut it there, and convert each"
                )
            self._say(f"{KINDS[trc]} in parts, after ordinary pictures: its colours are taken for ordinary ones")
        ratio = context.sample_aspect_ratio
        if ratio and self._ratio and ratio != self._ratio:
            self._say(f"the shape of pixels changes from {self._ratio} to {ratio}: shown in the first one throughout")
        self._ratio = self._ratio or ratio

    def shown(self, picture: av.VideoFrame, working: av.VideoFrame) -> None:
        """Compares what lies beside a decoded picture with what was kept of it."""
        if captioned(picture) and not captioned(working):
            self._say(CAPTIONS_LOST)

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def captioned(picture: av.VideoFrame) -> bool:
    """Whether a picture brings captions of a broadcast with it."""
    return side_data(picture, Type.A53_CC) is not None
