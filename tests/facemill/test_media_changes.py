"""What changes within a stream, or lies inside its pictures, is kept or said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.codec.context import Flags
from clips import make_clip
from media_clips import joined, remux, transcode

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video import VideoReader
from facemill.video.changes import captioned

FIELDS = Flags.interlaced_dct.value | Flags.interlaced_me.value
DROPPED = "dropped the captions inside the picture (CEA-608, CEA-708)"


def changing(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Path:
    """A broadcast whose second half has other tags than its first."""
    clips = [make_clip(folder / f"{number}.mp4", sound=None, tags=tags) for number, tags in enumerate((first, second))]
    parts = [remux(clip, folder / f"{number}.ts", 1 + 0.48 * number) for number, clip in enumerate(clips)]
    return joined(folder / "in.ts", *parts)


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        ({}, {"flags": FIELDS}, "interlaced in parts: fields are woven there, and marked as whole frames"),
        (
            {"sample_aspect_ratio": Fraction(16, 15)},
            {"sample_aspect_ratio": Fraction(64, 45)},
            "the shape of pixels changes from 16/15 to 64/45: shown in the first one throughout",
        ),
        ({}, {}, None),
    ],
    ids=["fields", "pixel ratio", "nothing"],
)
def test_what_changes_in_the_middle_is_said(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], note: str | None
) -> None:
    assert transcode(changing(tmp_path, first, second), tmp_path / "out.mp4") == ([note] if note else [])


@pytest.mark.parametrize(("trc", "name"), [(16, "HDR10 (PQ)"), (18, "HLG")])
def test_high_dynamic_range_that_comes_later_is_refused_or_said(tmp_path: Path, trc: int, name: str) -> None:
    source = changing(tmp_path, {}, {"color_trc": trc, "color_primaries": 9, "colorspace": 9})
    with pytest.raises(InputError, match="in parts, after ordinary pictures: cut it there") as caught:
        transcode(source, tmp_path / "out.mp4")
    assert caught.value.reason == Reason.HDR_VIDEO
    with VideoReader(source, hdr="keep") as reader:
        assert len(list(reader)) == 24
    assert any(note.startswith(f"{name} in parts") for note in reader.warnings())


def captions(path: Path, **options: Any) -> Path:
    """H.264 with a message in front of each picture, as ATSC A/53 part 4 has it."""
    clip = make_clip(path.with_name("plain.mp4"), sound=None, **options)
    words = b"\xb5\x00\x31GA94\x03\x42\xff\xfc\x94\x20\xfd\x80\x80\xff"
    message = b"\x06\x04" + bytes([len(words)]) + words + b"\x80"
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        if rotation := options.get("rotation"):
            stream.set_display_rotation(rotation)
        for packet in before.demux():
            if packet.size:
                captioned_packet: Any = av.Packet(len(message).to_bytes(4, "big") + message + bytes(packet))
                for name in ("pts", "dts", "time_base", "duration", "is_keyframe"):
                    setattr(captioned_packet, name, getattr(packet, name))
                captioned_packet.stream = stream
                after.mux(captioned_packet)
    return path


@pytest.mark.parametrize(
    ("encoder", "options", "kept"),
    [("libx264", {}, True), ("mpeg4", {}, False), ("libx265", {}, False), ("libx264", {"rotation": 90}, False)],
    ids=["libx264", "mpeg4", "libx265", "turned"],
)
def test_captions_are_kept_or_said_to_be_lost(
    tmp_path: Path, encoder: str, options: dict[str, Any], kept: bool
) -> None:
    source = captions(tmp_path / "in.mp4", **options)
    notes = transcode(source, tmp_path / "out.mp4", name=encoder, preset="auto")
    assert notes == ([] if kept else [DROPPED])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert all(captioned(frame) == kept for frame in container.decode(video=0))
