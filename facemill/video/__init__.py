"""Video in and out with PyAV: streamed, upright, with timestamps that stay exact.

    info = probe(path)                              # what is in the file, or the reason why it cannot be used
    with VideoReader(path) as reader:               # frames one after another, RGB on demand
        with VideoWriter(out, reader.info) as writer:
            for frame in reader:
                writer.write(frame)
            writer.commit()                         # closed, verified, flushed, renamed; without it nothing appears

Frames stay in the codec's planar YUV and only the rectangle that changes passes through RGB: what nobody touched
reaches the encoder bit for bit, and the time of a full RGB round trip is saved.

`info.py` probes, `frame.py` is one picture, `reader.py` decodes, `sound.py` carries audio over, `writer.py` encodes and
publishes, `verify.py` re-opens what was written.
"""

from facemill.video.frame import Frame, working_format
from facemill.video.info import AudioInfo, Colour, VideoInfo, probe
from facemill.video.reader import VideoReader, read_frames
from facemill.video.verify import verify
from facemill.video.writer import EncoderSettings, VideoWriter, check_encoder

__all__ = [
    "AudioInfo",
    "Colour",
    "EncoderSettings",
    "Frame",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_encoder",
    "probe",
    "read_frames",
    "verify",
    "working_format",
]
