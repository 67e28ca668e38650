"""Classes of video that are not plain: what comes out is what players show of what went in, or it is said."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import pytest
from clips import make_clip, packets, picture, times
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.errors import FacemillError, InputError
from facemill.reasons import Reason
from facemill.video import (
    EncoderSettings,
    Frame,
    VideoReader,
    VideoWriter,
    check_encoder,
    list_videos,
    probe,
    read_frames,
)
from facemill.video.clock import Clock
from facemill.video.info import Orientation
from facemill.video.writer import container_holds

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "media_faults"
HOUR_10 = 36_000


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


# --- one clock ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [0.0, 0.1086, 1.4, HOUR_10])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_broadcast_begins_at_0_whenever_its_clock_does(tmp_path: Path, offset_s: float, suffix: str) -> None:
    source = remux(make_clip(tmp_path / "in.mp4"), tmp_path / "in.ts", offset_s)
    assert transcode(source, tmp_path / f"out{suffix}") == []
    first_sound, first_picture = packets(source, "audio")[0][0], times(source)[0]
    apart = float(packets(tmp_path / f"out{suffix}", "audio")[0][0] - times(tmp_path / f"out{suffix}")[0])
    assert min(float(times(tmp_path / f"out{suffix}")[0]), 0.05) == pytest.approx(0.02, abs=0.03)
    assert apart == pytest.approx(float(first_sound - first_picture), abs=0.0011 if suffix == ".mkv" else 1e-4)
    assert gaps(tmp_path / f"out{suffix}") == pytest.approx([0.04] * 11, abs=0.0011)


@pytest.mark.parametrize("sound", ["aac", None])
@pytest.mark.parametrize("second_begins_s", [0.0, 0.3, 500.0, HOUR_10])
def test_a_clock_that_is_set_anew_runs_on(tmp_path: Path, sound: str | None, second_begins_s: float) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=25, sound=sound)
    parts = [remux(clip, tmp_path / "a.ts", 10.0), remux(clip, tmp_path / "b.ts", second_begins_s)]
    notes = transcode(joined(tmp_path / "joined.ts", *parts), tmp_path / "out.mp4")
    assert notes == ["the clock was set anew 1 times: picture and sound run on"]
    found = gaps(tmp_path / "out.mp4")
    assert len(found) == 49
    at_the_join = found.pop(24)
    assert found == [0.04] * 48
    assert 0.04 <= at_the_join <= (0.04 if sound is None else 0.1)
    if sound:  # nothing of it is lost, and it lies beside the same pictures
        heard = packets(tmp_path / "out.mp4", "audio")
        assert len(heard) == 2 * len(packets(clip, "audio"))
        second = next(at for at, data in heard[30:] if data == heard[5][1]) - heard[5][0]
        assert float(second) == pytest.approx(float(times(tmp_path / "out.mp4")[25]), abs=0.03)


def test_three_parts_run_on(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", sound=None)
    parts = [remux(clip, tmp_path / f"{number}.ts", at) for number, at in enumerate((7.0, 3.0, 90.0))]
    transcode(joined(tmp_path / "joined.ts", *parts), tmp_path / "out.mkv")
    assert gaps(tmp_path / "out.mkv") == [0.04] * 35


def test_one_wrong_stamp_is_not_a_clock_set_anew(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", sound=None, options={"movflags": "faststart"})
    with av.open(str(clip)) as before, av.open(str(tmp_path / "one.ts"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(packet for packet in before.demux() if packet.size):
            assert packet.pts is not None
            assert packet.dts is not None
            packet.stream = stream
            packet.pts += 90_000
            packet.dts += 90_000
            if number == 6:
                packet.pts, packet.dts = packet.pts + 1, packet.dts + 1
            after.mux(packet)
    assert Clock.of(tmp_path / "one.ts").times_set_anew == 0


@pytest.mark.parametrize(("codec", "frames"), [("libx264", 30), ("mpeg4", 30)])
def test_avi_has_times_of_display_although_it_stores_none(tmp_path: Path, codec: str, frames: int) -> None:
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.max_b_frames = 2
        stream.codec_context.options = {"crf": "10"} if codec == "libx264" else {"qscale": "3"}
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert transcode(tmp_path / "in.avi", tmp_path / "out.mp4") == []
    assert gaps(tmp_path / "out.mp4") == [0.04] * (frames - 1)
    shown = [frame.rgb for frame in read_frames(tmp_path / "out.mp4")]
    places = [np.nonzero(rgb[40, :, 0] > 200)[0].mean() for rgb in shown[:20]]  # where the square is
    assert places == sorted(places)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("first", [1, 977, 9777])
def test_a_first_stamp_that_is_no_whole_millisecond_is_exact(tmp_path: Path, suffix: str, first: int) -> None:
    pts = [first + 3003 * index for index in range(6)]
    clip = make_clip(tmp_path / "in.mkv", pts=None, frames=6)
    source = tmp_path / "late.ts"
    with av.open(str(clip)) as before, av.open(str(source), "w", options={"muxdelay": "0"}) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        order = sorted((p for p in before.demux() if p.size), key=lambda p: p.pts * p.time_base)
        video = iter(pts)
        for packet in order:
            if packet.stream.type == "video":
                packet.time_base = Fraction(1, 90_000)
                packet.pts = packet.dts = next(video)
            packet.stream = streams[packet.stream.index]
            after.mux(packet)
    transcode(source, tmp_path / f"out{suffix}")
    assert [later - times(source)[0] for later in times(source)] == [
        at - times(tmp_path / f"out{suffix}")[0] for at in times(tmp_path / f"out{suffix}")
    ]


def test_the_last_frame_lasts_as_long_as_it_did(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=4, sound=None)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        frames = list(reader)
        frames[-1].duration = 5000
        for frame in frames:
            writer.write(frame)
        writer.commit()
    with av.open(str(tmp_path / "out.mp4")) as container:
        durations = [packet.duration for packet in container.demux(video=0) if packet.size]
    assert max(durations) == 5000


def test_matroska_packets_without_a_time_of_decoding_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(source)) as container:
        assert any(packet.dts is None for packet in container.demux(video=0) if packet.size)
    assert transcode(source, tmp_path / "out.mkv") == []
    assert times(tmp_path / "out.mkv") == times(source)


# --- pixels and tags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "hflip", "vflip"), list(itertools.product((0, 90, 180, 270), (0, 1), (0, 1))))
def test_every_display_matrix_is_applied(tmp_path: Path, degrees: int, hflip: int, vflip: int) -> None:
    """FFmpeg's own player filter is the judge: transpose and flips by the matrix that the file holds."""
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(degrees, hflip=bool(hflip), vflip=bool(vflip))
        for index in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")))
        container.mux(stream.encode(None))
    transcode(source, tmp_path / "out.mp4")
    stored = picture(0, 96, 64)
    # turned counter-clockwise, then av_display_matrix_flip mirrors what is shown
    shown = np.rot90(stored, degrees // 90)[:: -1 if vflip else 1, :: -1 if hflip else 1]
    found = next(read_frames(tmp_path / "out.mp4")).rgb
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).mean() < 4
    assert probe(tmp_path / "out.mp4").orientation == Orientation()


@given(st.booleans(), st.booleans(), st.booleans())
def test_an_orientation_agrees_with_the_matrix_that_it_comes_from(turn: bool, x: bool, y: bool) -> None:
    one = Orientation(turn, x, y)
    sx, sy = -1 if x else 1, -1 if y else 1
    matrix = [0, sy, 0, sx, 0, 0, 0, 0, 1] if turn else [sx, 0, 0, 0, sy, 0, 0, 0, 1]
    assert Orientation.of(matrix) == one
    samples = np.arange(6).reshape(2, 3)
    place = np.argwhere(one.apply(samples) == 2)[0]  # the stored point x = 2, y = 0
    target = np.array([matrix[0] * 2, matrix[1] * 2])
    height, width = one.apply(samples).shape
    assert place.tolist() == [target[1] % height if sy > 0 else height - 1 + target[1],
                              target[0] % width if sx > 0 else width - 1 + target[0]]  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264rgb", "rgb24"),
        ("huffyuv", "rgb24"),
        ("ffv1", "bgr0"),
        ("png", "rgb24"),
        ("ffv1", "gray"),
        ("ffv1", "yuvj420p"),
    ],
)
def test_data_and_tags_agree_for_every_kind_of_pixels(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 96)[None], 64, 0)[..., None], 3, 2).astype(np.uint8)
    source = tmp_path / {"png": "in.mov", "huffyuv": "in.avi"}.get(codec, "in.mkv")
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        if pix_fmt.startswith("yuvj"):
            stream.pix_fmt, stream.codec_context.color_range = "yuv420p", 2
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(ramp, format="rgb24")
            if not stream.pix_fmt.startswith("yuv"):
                frame = frame.reformat(format=pix_fmt)
            else:
                frame = frame.reformat(format="yuv420p", dst_color_range=2, src_color_range=2)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    transcode(source, tmp_path / "out.mp4", crf=0)
    found = next(read_frames(tmp_path / "out.mp4"))
    assert np.abs(found.rgb[8:56].astype(int) - ramp[8:56]).max() <= 4
    if pix_fmt == "gray":
        from facemill.video.frame import planes

        assert all((plane == 128).all() for plane in planes(found.picture)[1:])


def test_what_is_pasted_into_black_and_white_has_no_colour() -> None:
    grey = np.repeat(np.linspace(30, 220, 64 * 64).reshape(64, 64)[..., None], 3, 2).astype(np.uint8)
    frame = Frame.from_rgb(grey, 0, Fraction(1, 25))
    region, origin = frame.region((8, 8, 40, 40))
    frame.paste(np.full_like(region, (200, 40, 40)), origin[:2], np.ones(region.shape[:2], bool))
    rgb = frame.rgb.astype(int)
    assert (rgb.max(axis=2) - rgb.min(axis=2)).max() <= 4
    assert np.abs(rgb[20, 20] - 88).max() < 8  # its brightness


@pytest.mark.parametrize(("encoder", "bits"), [("libx264", 10), ("libx265", 10), ("mpeg4", 8)])
def test_ten_bits_stay_ten_where_the_encoder_can(tmp_path: Path, encoder: str, bits: int) -> None:
    source = make_clip(tmp_path / "in.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=3)
    notes = transcode(source, tmp_path / "out.mp4", name=encoder, preset="auto")
    assert probe(tmp_path / "out.mp4").bit_depth == bits
    assert ("10 bits a channel became 8" in notes) == (bits == 8)


def test_a_region_of_ten_bits_is_pasted_and_the_rest_is_identical(tmp_path: Path) -> None:
    from facemill.video.frame import planes

    source = make_clip(tmp_path / "in.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=1)
    with VideoReader(source, pix_fmt="yuv420p10le") as reader:
        frame = next(iter(reader))
        before = [np.array(plane) for plane in planes(frame.picture)]
        region, (x, y, _, _) = frame.region((10, 10, 50, 40))
        changed = np.zeros(region.shape[:2], bool)
        changed[8:12, 8:12] = True
        frame.paste(255 - region, (x, y), changed)
        assert frame.luma.dtype == np.uint8
        assert (before[0] != planes(frame.picture)[0]).sum() == 16


def interlaced_clip(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "preset": "ultrafast", "flags": "+ildct+ilme", "x264-params": "tff=1"}
        stream: Any = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(6):
            woven = picture(2 * index, 96, 64)
            woven[1::2] = picture(2 * index + 1, 96, 64)[1::2]
            frame = av.VideoFrame.from_ndarray(woven, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_fields_are_kept_or_made_into_whole_frames_and_said(tmp_path: Path, encoder: str) -> None:
    source = interlaced_clip(tmp_path / "in.mp4")
    assert probe(source).interlaced
    notes = transcode(source, tmp_path / "out.mp4", name=encoder)
    kept = encoder == "libx264"
    assert probe(tmp_path / "out.mp4").interlaced == kept
    assert [note for note in notes if "interlaced" in note or "fields" in note] == notes
    assert times(tmp_path / "out.mp4") == times(source)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.field_order in ((2,) if kept else (0, 1))
    # a row of the moving square and the one below it: apart by a field, or of one time
    rgb = list(read_frames(tmp_path / "out.mp4"))[3].rgb.astype(int)
    assert (np.abs(rgb[38] - rgb[39]).max() > 60) == kept


@pytest.mark.parametrize("size", [(48, 32), (192, 128), (64, 96)])
def test_a_size_that_changes_in_the_middle_is_scaled_and_said(tmp_path: Path, size: tuple[int, int]) -> None:
    first = make_clip(tmp_path / "a.mp4", frames=10, sound=None)
    second = make_clip(tmp_path / "b.mp4", frames=10, size=size, sound=None)
    source = joined(tmp_path / "in.ts", remux(first, tmp_path / "a.ts"), remux(second, tmp_path / "b.ts", 0.4))
    notes = transcode(source, tmp_path / "out.mp4")
    assert any(f"changes to {size[0]}×{size[1]} at 0 s" in note for note in notes)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == (96, 64)
    last = list(read_frames(tmp_path / "out.mp4"))[-1].rgb.astype(int)
    if size != (64, 96):
        assert np.abs(last - cv2.resize(picture(9, *size), (96, 64))).mean() < 6
    else:
        assert last[:, :20].max() < 12  # black beside it
        assert last[:, 40:56].mean() > 60


@pytest.mark.parametrize("profile", [4, 5, 7, 8, 10])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_dolby_vision_is_refused_by_name(tmp_path: Path, profile: int, suffix: str) -> None:
    """The box as the muxers write it, into a clip without any other tag, as profile 5 is."""
    source = make_clip(tmp_path / f"in{suffix}", codec="libx265", frames=3, sound=None)
    box = bytes([1, 0, profile << 1, 0x25]) + bytes(20)
    data = source.read_bytes()
    inside = b"dvcC" + box if suffix == ".mp4" else b"dvvC\x41\xed\x98" + box
    source.write_bytes(data + (len(inside) + 4).to_bytes(4, "big") + inside)
    with pytest.raises(InputError, match=f"Dolby Vision, profile {profile}") as caught:
        list(read_frames(source))
    assert caught.value.reason == Reason.HDR_VIDEO


# --- nothing lost without a word -----------------------------------------------------------------------------------


def labelled(path: Path, subtitle: str | None = None) -> Path:
    clip = make_clip(path.with_name("plain.mp4"), frames=25)
    with av.open(str(clip)) as before, av.open(str(path), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        second: Any = after.add_stream_from_template(before.streams.audio[0])
        streams[1].metadata["language"], second.metadata["language"] = "eng", "ger" if path.suffix == ".mov" else "deu"
        streams[1].disposition, second.disposition = 0, 1
        after.metadata.update(
            {"title": "Interview 7", "artist": "NARA", "date": "1983", "comment": "reel 12",
             "creation_time": "1983-05-06T10:00:00.000000Z"}
        )  # fmt: skip
        base = Fraction(1, 1000)
        after.set_chapters(
            [
                {"id": 0, "start": 0, "end": 500, "time_base": base, "metadata": {"title": "Question"}},
                {"id": 1, "start": 500, "end": 1000, "time_base": base, "metadata": {"title": "Answer"}},
            ]
        )
        if path.suffix == ".mkv":
            after.add_attachment("font.ttf", "font/ttf", b"not a real font")
        for packet in before.demux():
            if not packet.size:
                continue
            copies = [streams[packet.stream.index]] + ([second] if packet.stream.type == "audio" else [])
            for target in copies:
                one = av.Packet(bytes(packet))
                one.pts, one.dts, one.time_base = packet.pts, packet.dts, packet.time_base
                one.duration, one.is_keyframe, one.stream = packet.duration, packet.is_keyframe, target
                after.mux(one)
    return path


@pytest.mark.parametrize(("given_as", "becomes"), list(itertools.product([".mp4", ".mkv", ".mov"], repeat=2)))
def test_titles_dates_chapters_languages_and_defaults_are_kept(tmp_path: Path, given_as: str, becomes: str) -> None:
    source = labelled(tmp_path / f"in{given_as}")
    os.utime(source, ns=(10**18, 10**18))
    notes = transcode(source, tmp_path / f"out{becomes}")
    with av.open(str(source)) as before, av.open(str(tmp_path / f"out{becomes}")) as after:
        found = {key.lower(): value for key, value in after.metadata.items()}
        for key in ("title", "artist", "date", "comment", "creation_time"):
            value = {key.lower(): value for key, value in before.metadata.items()}.get(key)
            assert found.get(key) == value or any(key in note for note in notes), (key, found, notes)
        assert [one["metadata"]["title"] for one in after.chapters()] == ["Question", "Answer"]
        assert [one["start"] * one["time_base"] for one in after.chapters()] == [0, Fraction(1, 2)]
        spoken = [audio.language for audio in after.streams.audio]
        assert spoken[0] == "eng"
        assert spoken[1] in ("deu", "ger")
        assert [audio.disposition & 1 for audio in after.streams.audio] == [
            audio.disposition & 1 for audio in before.streams.audio
        ]
        attached = [stream for stream in after.streams if stream.type == "attachment"]
    if given_as == ".mkv":
        assert len(attached) == 1 or any("font.ttf" in note for note in notes)
    assert (tmp_path / f"out{becomes}").stat().st_mtime_ns == 10**18


def test_transparency_is_named_when_it_goes(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mov"), "w") as container:
        stream: Any = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "argb"
        rgba = np.dstack([picture(0, 96, 64), np.full((64, 96), 128, np.uint8)])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="argb")))
        container.mux(stream.encode(None))
    assert "alpha dropped: no pixel is transparent any more" in transcode(tmp_path / "in.mov", tmp_path / "out.mp4")


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "rate"), [("pcm_u8", 6000), ("pcm_s16le", 5512), ("libmp3lame", 11_025), ("pcm_s16le", 192_000)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_of_any_rate_is_carried(tmp_path: Path, codec: str, rate: int, suffix: str) -> None:
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio: Any = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = (np.sin(np.arange(rate) * 2 * np.pi * 440 / rate) * 0.3).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(audio.codec_context.format.name, "mono", rate, frame_size=size)
        for part in [*resampler.resample(sound), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    transcode(source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        heard = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert heard == pytest.approx(1.0, abs=0.4)


# --- safety --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
        ("list.avi", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_a_text_that_names_other_files_opens_none(tmp_path: Path, name: str, text: str) -> None:
    make_clip(tmp_path / "other.mp4", frames=3)
    remux(tmp_path / "other.mp4", tmp_path / "other.ts")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        probe(tmp_path / name)
    assert caught.value.reason == Reason.NOT_A_VIDEO


@pytest.mark.parametrize("name", ["concat:a.mp4", "pipe:0.mp4", "http:x.mp4", "a|b.mp4", "%d.mp4", "-y.mp4"])
def test_a_name_that_is_a_protocol_elsewhere_is_a_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", frames=3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    transcode(Path(name), Path("out " + name))
    assert len(times(tmp_path / ("out " + name))) == 3


def test_a_picture_of_too_many_pixels_is_refused_before_it_takes_the_memory(tmp_path: Path) -> None:
    source = tmp_path / "wide.mov"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 12_000, 6_000, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((6_000, 12_000), np.uint8), format="gray")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="67108864 pixels") as caught:
        probe(source)
    assert caught.value.reason == Reason.NOT_A_VIDEO


# --- the files that were reported ----------------------------------------------------------------------------------


@pytest.mark.skipif(not FAULTS.is_dir(), reason=f"wants the reported files in {FAULTS}")
@pytest.mark.parametrize(
    ("name", "frames", "first_s", "lasts_s"),
    [
        ("08_tv_start10h.ts", 50, 0.0232, 2.04),
        ("09_joined_mute.ts", 50, 0.0, 2.0),
        ("13_h264.avi", 50, 0.08, 2.08),
        ("14_mp3_11k.avi", 15, 0.08, 0.72),
        ("14_pcm6k.avi", 15, 0.08, 0.68),
        ("16_camera.m2ts", 50, 0.0232, 2.04),
        ("16_phone.3gp", 50, 0.0, 2.02),
        ("16_anim.gif", 10, 0.0, 1.0),
        ("18_smaller_mute.ts", 50, 0.0, 2.0),
        ("18_smaller_sound.ts", 50, 0.0232, 2.09),
    ],
)
def test_reported_files_come_out_as_players_show_them(
    tmp_path: Path, name: str, frames: int, first_s: float, lasts_s: float
) -> None:
    transcode(FAULTS / name, tmp_path / "out.mp4")
    found = times(tmp_path / "out.mp4")
    assert (len(found), float(found[0])) == (frames, pytest.approx(first_s, abs=1e-3))
    assert max(gaps(tmp_path / "out.mp4")) <= 0.1
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(lasts_s, abs=0.03)


# --- what counts as a video ------------------------------------------------------------------------------------------


def test_content_decides_which_files_are_videos(tmp_path: Path) -> None:
    """Whatever they are called; what is named as a video is listed even where it is none."""
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    for name in ("phone.3gp", "camera.MOD", "no suffix", "clip.bak", "день.m2v"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    remux(clip, tmp_path / "tape.vob.ts").rename(tmp_path / "tape.dat")
    (tmp_path / "cut.xyz").write_bytes(clip.read_bytes()[:1500])
    (tmp_path / "letter.mp4").write_text("Dear Sir or Madam")
    (tmp_path / "notes.txt").write_text("not for us\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    cv2.imwrite(str(tmp_path / "still.png"), picture(0, 96, 64))
    cv2.imwrite(str(tmp_path / "still.jpg"), picture(0, 96, 64))
    cv2.imwrite(str(tmp_path / "other.jpg"), picture(0, 96, 64))
    for name, frames in (("moves.gif", 4), ("stands.gif", 1)):
        with av.open(str(tmp_path / name), "w") as container:
            stream: Any = container.add_stream("gif", rate=10)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8"
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24").reformat(format="rgb8")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    told: list[str] = []
    found = {path.name for path in list_videos(tmp_path, told.append)}
    assert found == {
        "clip.mp4", "phone.3gp", "camera.MOD", "no suffix", "clip.bak", "день.m2v", "tape.dat", "cut.xyz", "letter.mp4",
        "moves.gif",
    }  # fmt: skip
    assert len(told) == 1
    assert "6 files are no videos" in told[0]
    assert "2 .jpg" in told[0]


@pytest.mark.parametrize("encoder", ["h264_nvenc", "hevc_nvenc", "libsvtav1"])
def test_a_preset_of_another_encoder_is_refused_with_those_there_are(encoder: str) -> None:
    with pytest.raises(FacemillError, match=r"auto, or (one of default, slow|a number from -2 to 13)"):
        check_encoder(EncoderSettings(name=encoder, preset="veryfast"))


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg4"])
def test_every_encoder_opens_with_its_usual_preset(tmp_path: Path, encoder: str) -> None:
    transcode(make_clip(tmp_path / "in.mp4", frames=3), tmp_path / "out.mp4", name=encoder, preset="auto", crf=30)
    assert len(times(tmp_path / "out.mp4")) == 3


@pytest.mark.parametrize(
    ("encoder", "container", "holds"),
    [
        ("libx264", "mov", True), ("libx265", "mov", True), ("libsvtav1", "mp4", True), ("libsvtav1", "mov", False),
        ("libvpx-vp9", "mov", False), ("libvpx-vp9", "matroska", True), ("h264_nvenc", "mov", True),
    ],
)  # fmt: skip
def test_what_a_container_holds_is_asked_of_its_muxer(encoder: str, container: str, holds: bool) -> None:
    assert container_holds(container, encoder) == holds


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def to_damage(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One clip in each container that differs."""
    folder = tmp_path_factory.mktemp("damage")
    clips = [labelled(folder / "a.mp4"), labelled(folder / "b.mkv"), make_clip(folder / "c.mov", frames=25)]
    old = make_clip(folder / "d.mp4", codec="mpeg4", sound="libmp3lame", frames=25)
    return [*clips, remux(clips[2], folder / "e.ts", 5.0), remux(old, folder / "f.avi")]


@settings(max_examples=25, deadline=None)
@given(
    which=st.integers(0, 4),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=30),
    cut=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    moved=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_damaged_video_has_one_end(
    to_damage: list[Path],
    which: int,
    flips: list[tuple[float, int]],
    cut: float,
    moved: tuple[float, float],
) -> None:
    """It is converted, verified, or refused with a reason; nothing is left half-written."""
    source = to_damage[which]
    data = bytearray(source.read_bytes())
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    first, second = sorted(int(place * len(data)) for place in moved)
    if second - first > 2000:
        data = data[:first] + data[second:] + data[first:second]
    folder = source.parent / "one"
    folder.mkdir(exist_ok=True)
    damaged = folder / f"in{source.suffix}"
    damaged.write_bytes(data[: max(1, int(cut * len(data)))])
    output = folder / f"out{source.suffix if which < 3 else '.mp4'}"
    try:
        transcode(damaged, output)
    except (InputError, av.error.FFmpegError):  # a job makes the second into the first
        assert not output.exists()
    else:
        assert len(times(output)) > 0
        output.unlink()
    damaged.unlink()
    assert list(folder.iterdir()) == []


def test_a_broken_packet_of_sound_costs_itself(tmp_path: Path) -> None:
    source = remux(make_clip(tmp_path / "in.mp4", frames=25), tmp_path / "in.ts")
    data = bytearray(source.read_bytes())
    headers = [place for place in range(len(data) - 1) if data[place] == 0xFF and data[place + 1] in (0xF0, 0xF1)]
    for place in headers[8:12]:
        data[place + 1] = 0x00
    source.write_bytes(data)
    transcode(source, tmp_path / "out.mp4")
    assert len(times(tmp_path / "out.mp4")) == 25
    assert len(packets(tmp_path / "out.mp4", "audio")) > 20
