"""What is not plain about a video is kept or said, asked beforehand, refused or survived."""

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
from media_clips import gaps, remux, transcode

from facemill.errors import FacemillError, InputError
from facemill.reasons import Reason
from facemill.video import (
    EncoderSettings,
    check_encoder,
    list_videos,
    probe,
)
from facemill.video.encoder import container_holds

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "media_faults"

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
