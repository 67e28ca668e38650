"""Videos written as a conversion writes them, moved to other containers and times, and put behind one another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import av
import av.error
from clips import times

from facemill.video import (
    EncoderSettings,
    VideoReader,
    VideoWriter,
)


def transcode(source: Path, target: Path, **settings: Any) -> list[str]:
    """Reads and writes as a conversion does. Returns what is said about it."""
    with VideoReader(source) as reader:
        encoder = EncoderSettings(**{"crf": 4, "preset": "ultrafast", **settings})
        with VideoWriter(target, reader.info, encoder, sound_from=source, clock=reader.clock) as writer:
            reader.pix_fmt = writer.pix_fmt
            reader.deinterlace = reader.info.interlaced and not writer.keeps_fields
            for frame in reader:
                writer.write(frame)
            writer.commit()
    return [*reader.warnings(), *writer.warnings]


def remux(source: Path, target: Path, offset_s: float = 0.0) -> Path:
    """The same packets in another container, at times that are later."""
    with av.open(str(source)) as before, av.open(str(target), "w", options={"muxdelay": "0"}) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size and packet.dts is not None and packet.pts is not None:
                ticks = round(offset_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
    return target


def joined(target: Path, *parts: Path) -> Path:
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def gaps(path: Path) -> list[float]:
    return [round(float(later - earlier), 4) for earlier, later in itertools.pairwise(times(path))]
