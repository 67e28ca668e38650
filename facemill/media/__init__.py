"""Whatever an archive holds: videos, moving pictures and still ones, read and written by the same calls.

    kind = still_kind(path)                              # "jpeg", "png", …; None: it moves, or is no picture
    with open_media(path, segment=segment) as reader:    # frames one after another; a still picture has one
        with part_writer(reader, part, settings) as writer:
            for frame in reader:
                writer.write(frame)
            made = writer.commit()
    join_media([made], output, path)                     # a still picture is its one part

A still picture is a video of one frame. What it is, its content decides and not its name (`kinds.py`). Its pixels stay
as they are stored (`own_pixels.py`): only what was painted changes, and the file is written in its own format with what
it says of itself (`still_file.py`, `embedded.py`). FFmpeg does not read WebP that moves, Pillow does (`animation.py`).
`view.py` is a part of either at another scale. docs/media.md has the classes of odd pictures and what becomes of each.
"""

from facemill.media.kinds import MediaFacts, kind_in, list_media, still_kind
from facemill.media.opening import (
    MediaReader,
    MediaWriter,
    join_media,
    media_facts,
    open_media,
    part_writer,
    pixel_ratio,
    plan_segments,
)
from facemill.media.still import StillReader
from facemill.media.still_file import written_suffix
from facemill.media.still_frame import StillFrame, region_of

__all__ = [
    "MediaFacts",
    "MediaReader",
    "MediaWriter",
    "StillFrame",
    "StillReader",
    "join_media",
    "kind_in",
    "list_media",
    "media_facts",
    "open_media",
    "part_writer",
    "pixel_ratio",
    "plan_segments",
    "region_of",
    "still_kind",
    "written_suffix",
]
