"""Media that nobody expects, through the workers of a real cluster: each file one row, and what comes out is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import make_clip, times
from media_clips import joined, remux

from facemill import schema, tables
from facemill.video import VideoReader
from tasks import convert
from tasks.params import Params, parse_params

Faces = list[np.ndarray]

SUBTITLES = 20_000


def smaller(faces: Faces) -> Faces:
    return [cv2.resize(face, (200, 176), interpolation=cv2.INTER_AREA) for face in faces]


def other_size(path: Path, faces: Faces) -> Path:
    """A stream whose pictures are smaller from the middle on."""
    first = make_clip(path.with_suffix(".1.ts"), frames=faces, sound=None)
    second = make_clip(path.with_suffix(".2.ts"), frames=smaller(faces), sound=None)
    return _joined_away(path, first, second)


def other_colours(path: Path, faces: Faces) -> Path:
    """BT.709 first, then the same numbers as BT.601 with full range, which is other colours."""
    plain, full = {"color_range": 1, "colorspace": 1}, {"color_range": 2, "colorspace": 6}
    first = make_clip(path.with_suffix(".1.ts"), frames=faces, sound=None, tags=plain)
    second = make_clip(path.with_suffix(".2.ts"), frames=faces, sound=None, tags=full)
    return _joined_away(path, first, second)


def _joined_away(path: Path, first: Path, second: Path) -> Path:
    late = remux(second, second.with_suffix(".late.ts"), offset_s=1.0)
    joined(path, first, late)
    for part in (first, second, late):
        part.unlink()
    return path


def late_sound(path: Path, faces: Faces, hours: float = 2.0) -> Path:
    """Sound that begins two hours after the pictures, or so long before them."""
    clip = make_clip(path.with_suffix(".plain.mp4"), frames=faces)
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.size and packet.dts is not None and packet.pts is not None:
                moved = (packet.stream.type == "audio") == (hours > 0)
                ticks = round(abs(hours) * 3600 / packet.time_base) if moved else 0
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
    clip.unlink()
    return path


def late_pictures(path: Path, faces: Faces) -> Path:
    return late_sound(path, faces, hours=-2.0)


def many_subtitles(path: Path, faces: Faces) -> Path:
    """Very many lines in the time of a few frames."""
    words = path.with_suffix(".srt")
    words.write_text(
        "".join(f"{n + 1}\n00:00:00,{n % 900:03d} --> 00:00:01,000\nword {n}\n\n" for n in range(SUBTITLES))
    )
    clip = make_clip(path.with_suffix(".plain.mp4"), frames=faces)
    with av.open(str(clip)) as before, av.open(str(words)) as lines, av.open(str(path), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        told = after.add_stream_from_template(lines.streams[0])
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
        for packet in lines.demux():
            if packet.size:
                packet.stream = told
                after.mux(packet)
    words.unlink()
    clip.unlink()
    return path


def broken_attachment(path: Path, faces: Faces) -> Path:
    """A font that is said to be longer than the file."""
    clip = make_clip(path.with_suffix(".plain.mp4"), frames=faces)
    name = b"font.ttf"
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        after.add_attachment(name.decode(), "font/ttf", b"no font" * 20)
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
    clip.unlink()
    data = bytearray(path.read_bytes())
    at = data.index(b"no font") - 2  # the length of FileData, in EBML's form for two bytes
    assert data[at - 2 : at] == b"\x46\x5c", data[at - 8 : at + 4].hex()
    data[at : at + 2] = b"\x7f\xfe"
    path.write_bytes(data)
    return path


def picture_as_video(path: Path, faces: Faces) -> Path:
    path.write_bytes(cv2.imencode(".png", faces[0][:, :, ::-1])[1].tobytes())
    return path


def photograph_as_video(path: Path, faces: Faces) -> Path:
    path.write_bytes(cv2.imencode(".jpg", faces[0][:, :, ::-1])[1].tobytes())
    return path


def video_as_picture(path: Path, faces: Faces) -> Path:
    return make_clip(path.with_suffix(".mp4"), frames=faces).rename(path)


def no_frames(path: Path, faces: Faces) -> Path:
    """A head that promises pictures, and none."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        container.start_encoding()
    return path


def sound_alone(path: Path, faces: Faces) -> Path:
    clip = make_clip(path.with_suffix(".plain.mp4"), frames=faces)
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.audio[0])
        for packet in before.demux(before.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    clip.unlink()
    return path


def one_frame(path: Path, faces: Faces) -> Path:
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    return make_clip(path, frames=faces[:1], sound=None, codec=codec)


def huge(path: Path, faces: Faces) -> Path:
    frame = np.full((4320, 7680, 3), 90, np.uint8)
    frame[:2048, :2048] = cv2.resize(faces[0], (2048, 2048), interpolation=cv2.INTER_CUBIC)
    return make_clip(path, frames=[frame] * 2, sound=None)


def fast(path: Path, faces: Faces) -> Path:
    return make_clip(path, frames=faces * 6, rate=240, time_base=Fraction(1, 24_000))


def slow(path: Path, faces: Faces) -> Path:
    return make_clip(path, frames=faces, pts=[0, 128_000, 256_000, 384_000], rate=1, sound=None)


@dataclass(frozen=True)
class Expected:
    """What a row says: the frames that came out, or the reason why none did, and a warning."""

    frames: int = 0
    reason: str | None = None
    said: str = ""


EXPECTED: dict[str, tuple[Callable[[Path, Faces], Path], Expected]] = {
    "size.ts": (other_size, Expected(8, said="the picture size changes to 200×176 at 1 s: scaled")),
    "colours.ts": (other_colours, Expected(8)),
    "late sound.mkv": (late_sound, Expected(4)),
    "late sound.mp4": (late_sound, Expected(4)),
    "late pictures.mkv": (late_pictures, Expected(4)),
    "late pictures.mp4": (late_pictures, Expected(4)),
    "subtitles.mkv": (many_subtitles, Expected(4, said=f"{SUBTITLES - 1} falling timestamps of stream 2 were moved")),
    "attachment.mkv": (broken_attachment, Expected(4, said="dropped video stream 2 (h264)")),
    "picture.mp4": (picture_as_video, Expected(1, said="a picture (PNG) in the name of a video")),
    "photograph.mkv": (photograph_as_video, Expected(1, said="a picture (JPEG) in the name of a video")),
    "video.png": (video_as_picture, Expected(4)),
    "none.mp4": (no_frames, Expected(reason="not_a_video")),
    "none.mkv": (no_frames, Expected(reason="not_a_video")),
    "sound.mp4": (sound_alone, Expected(reason="not_a_video")),
    "one.mp4": (one_frame, Expected(1)),
    "one.avi": (one_frame, Expected(1)),
    "one.ts": (one_frame, Expected(1)),
    "fast.mp4": (fast, Expected(24)),
    "slow.mp4": (slow, Expected(4)),
    "slow.mkv": (slow, Expected(4)),
}


def converted(folder: Path, names: dict[str, Any], faces: Faces, model: Path) -> dict[str, dict[str, Any]]:
    """The rows of an archive of some of those files."""
    (folder / "in").mkdir()
    for name, (make, _) in names.items():
        make(folder / "in" / name, faces)
    convert.convert_folder(parameters(), folder / "in", folder / "out", model)
    return {
        row["video"]: row
        for row in tables.iterate_rows(folder / "out" / ".facemill" / "conversions", schema.CONVERSIONS)
    }


def parameters() -> Params:
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    group = {
        "becomes": {"hopper": "collins"},
        "encoder": {"preset": "ultrafast"},
        "detail": "match",
        "occlusion": "none",
    }
    values = {
        "identities": {"hopper": person, "collins": person},
        "archive": {"kind": "sample"},
        "convert": group | {"verify": "thorough"},
    }
    return parse_params(values | {"cluster": {"kind": "local", "workers": 2}})


@pytest.fixture(scope="module")
def faces(hopper: np.ndarray) -> Faces:
    small = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    return [np.roll(small, index, axis=1) for index in range(4)]


@pytest.fixture(scope="module")
def done(faces: Faces, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of the originals and the converted, and the rows."""
    folder = tmp_path_factory.mktemp("odd")
    return folder, converted(folder, EXPECTED, faces, model)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_odd_file_ends_in_the_state_that_fits_it(done: tuple[Path, dict[str, dict[str, Any]]], name: str) -> None:
    (folder, rows), expected = done, EXPECTED[name][1]
    row = rows[name]
    assert (row["error"], row["frames_out"]) == (expected.reason, expected.frames or None), row
    if expected.reason is None:
        assert row["frames_swapped"] == expected.frames
        assert row["warnings"] == ([expected.said] if expected.said else [])
        output = folder / "out" / row["output"]
        if Path(name).suffix not in (".png", ".mp4", ".mkv") or expected.frames > 1:
            before, after = times(folder / "in" / name), times(output)
            assert [at - after[0] for at in after] == pytest.approx([at - before[0] for at in before], abs=1e-3)


def test_colours_that_change_in_the_middle_look_as_they_did(done: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, rows = done
    with av.open(str(folder / "in" / "colours.ts")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with VideoReader(folder / "out" / rows["colours.ts"]["output"]) as reader:
        after = [frame.rgb for frame in reader]
    corner = (slice(0, 40), slice(0, 40))  # no face is there
    assert np.abs(shown[4][corner].astype(int) - shown[0][corner]).mean() > 2
    change = shown[4][corner].mean(axis=(0, 1)) - shown[0][corner].mean(axis=(0, 1))
    assert after[4][corner].mean(axis=(0, 1)) - after[0][corner].mean(axis=(0, 1)) == pytest.approx(change, abs=2)


@pytest.mark.slow
def test_eight_thousand_pixels_in_a_line(faces: Faces, model: Path, tmp_path: Path) -> None:
    rows = converted(tmp_path, {"8k.mp4": (huge, None)}, faces, model)
    assert (rows["8k.mp4"]["frames_out"], rows["8k.mp4"]["frames_swapped"]) == (2, 2)
