"""Video in and out with PyAV: streamed, upright, with timestamps that stay exact.

    info = probe(path)                              # what is in the file, or the reason why it cannot be used
    with VideoReader(path) as reader:               # frames one after another, RGB on demand
        with VideoWriter(out, reader.info) as writer:
            for frame in reader:
                writer.write(frame)
            writer.commit()                         # closed, verified, flushed, renamed; without it nothing appears

Frames stay in the codec's planar YUV and only the rectangle that changes passes through RGB: what nobody touched
reaches the encoder bit for bit, and the time of a full RGB round trip is saved.

`info.py` probes, `clock.py` finds where the file's clock begins and is set anew, `frame.py` is one picture,
`segments.py` plans where a film may be cut, `reader.py` decodes it or one of its segments, `fields.py` makes whole
frames of interlaced ones, `changes.py` says what changes on the way, `cuts.py` finds where scenes begin, `sound.py`
carries sound and subtitles over and `labels.py` titles, chapters and the like, `encoder.py` says which encoder writes,
`parts.py` writes a film in parts, `joining.py` joins them, `writer.py` does both in one go, `verify.py` re-opens what
was written, `listing.py` finds the videos below a folder. docs/media.md has the classes of odd video and what becomes
of each.
"""

from facemill.video.encoder import EncoderSettings, check_encoder
from facemill.video.frame import Frame, working_format
from facemill.video.info import AudioInfo, Colour, VideoInfo, probe
from facemill.video.joining import join_parts
from facemill.video.listing import list_videos
from facemill.video.parts import Part, PartWriter
from facemill.video.reader import VideoReader, read_frames
from facemill.video.segments import Segment, SegmentPlan, plan_segments
from facemill.video.verify import verify
from facemill.video.writer import VideoWriter

__all__ = [
    "AudioInfo",
    "Colour",
    "EncoderSettings",
    "Frame",
    "Part",
    "PartWriter",
    "Segment",
    "SegmentPlan",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_encoder",
    "join_parts",
    "list_videos",
    "plan_segments",
    "probe",
    "read_frames",
    "verify",
    "working_format",
]
