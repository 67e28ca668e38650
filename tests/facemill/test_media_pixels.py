"""Pixels and what is said about them agree: orientation, range, depth, fields, sizes."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import pytest
from clips import make_clip, picture, times
from hypothesis import given
from hypothesis import strategies as st
from media_clips import joined, remux, transcode

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video import (
    Frame,
    VideoReader,
    probe,
    read_frames,
)
from facemill.video.info import Orientation


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


@given(
    pix_fmt=st.sampled_from(["yuv420p", "yuv422p", "yuv444p"]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 2**16),
)
def test_a_chroma_sample_is_rewritten_where_any_of_its_pixels_changed(
    pix_fmt: str, size: tuple[int, int], seed: int
) -> None:
    from facemill.video.frame import SUBSAMPLING, planes

    rng = np.random.default_rng(seed)
    width, height = size
    picture = av.VideoFrame(width, height, pix_fmt)
    for plane, value in zip(planes(picture), (120, 100, 140), strict=True):
        plane[:] = value
    frame = Frame(picture, 0, Fraction(1, 25), 1)
    changed = rng.random((height, width)) < 0.2
    region, origin = frame.region((0, 0, width, height))
    frame.paste(255 - region, origin[:2], changed)
    across, down = SUBSAMPLING[pix_fmt]
    for plane, value in zip(planes(frame.picture)[1:], (100, 140), strict=True):
        for y, x in np.ndindex(plane.shape):
            touched = changed[y * down : (y + 1) * down, x * across : (x + 1) * across].any()
            assert (plane[y, x] != value) == touched


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
