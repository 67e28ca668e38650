"""Small clips with known truth, made while the tests run."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TONE_HZ, RATE_HZ = 440, 44_100


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A smooth gradient with a bright square that moves 3 px a frame; its corner at the top left is red."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([40 + x * 120 // width, 60 + y * 120 // height, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    rgb[: height // 4, : width // 4] = (200, 30, 30)
    left = 3 * index % max(1, width - 24)
    rgb[height // 2 : height // 2 + 16, left : left + 16] = (230, 230, 230)
    return rgb


def make_clip(
    path: Path,
    *,
    frames: Sequence[np.ndarray] | int = 12,
    size: tuple[int, int] = (96, 64),
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12_800),
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: str | None = "aac",
    rotation: int = 0,
    tags: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a clip. `frames`: RGB pictures or their number; `pts`: their times, else evenly spaced; `sound`: codec."""
    pictures = [picture(index, *size) for index in range(frames)] if isinstance(frames, int) else list(frames)
    height, width = pictures[0].shape[:2] if pictures else size[::-1]
    step = int(1 / (rate * time_base))
    times = list(pts) if pts is not None else [index * step for index in range(len(pictures))]
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base
        if codec.startswith("libx26"):
            stream.codec_context.options = {"crf": "12", "preset": "ultrafast", "g": "10"}
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        audio: Any = container.add_stream(sound, rate=RATE_HZ, layout="mono") if sound else None
        for rgb, at in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            _add_tone(container, audio, seconds=float((times[-1] + step) * time_base))
    return path


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of every packet of the first stream of a kind, in order of time."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [packet for packet in container.demux(stream) if packet.size]
        return sorted((packet.pts * packet.time_base, bytes(packet)) for packet in found)


def times(path: Path) -> list[Fraction]:
    """Presentation times of all frames in seconds."""
    return [at for at, _ in packets(path, "video")]


def _add_tone(container: Any, stream: Any, seconds: float) -> None:
    samples = np.sin(2 * np.pi * TONE_HZ * np.arange(int(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32) * 0.2
    fmt = stream.codec_context.format.name if stream.codec_context.format else "fltp"
    resampler = av.AudioResampler(fmt, "mono", RATE_HZ, frame_size=stream.codec_context.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
