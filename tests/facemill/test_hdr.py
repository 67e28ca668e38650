"""Videos of high dynamic range: refused by name, kept with their tags, or tone mapped and tagged as what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip

from facemill.errors import InputError
from facemill.media import join_media, open_media, part_writer
from facemill.reasons import Reason
from facemill.video import EncoderSettings, probe
from facemill.video.hdr import Hdr, tone_mapped

PQ = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
HLG = {"color_primaries": 9, "color_trc": 18, "colorspace": 9}


def hdr_clip(path: Path, tags: dict[str, int]) -> Path:
    return make_clip(path, codec="libx265", pix_fmt="yuv420p10le", tags=tags, frames=5)


def converted(source: Path, target: Path, hdr: Hdr, encoder: str = "libx265") -> list[str]:
    settings = EncoderSettings(name=encoder, crf=10)
    with open_media(source, hdr=hdr) as reader:
        with part_writer(reader, target.with_name(f"part{target.suffix}"), settings) as writer:
            reader.pix_fmt = writer.pix_fmt
            for frame in reader:
                writer.write(frame)
            part: Any = writer.commit()
        notes = [*reader.warnings(), *writer.warnings]
    return notes + join_media([part], target, source, thorough=True, hdr=hdr)


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["PQ", "HLG"])
@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_tone_mapped_videos_are_tagged_as_what_they_are(tags: dict[str, int], encoder: str, tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", tags)
    notes = converted(source, tmp_path / "out.mp4", "tone_map", encoder)
    info = probe(tmp_path / "out.mp4")
    assert (info.colour.primaries, info.colour.trc, info.colour.space) == (1, 1, 1)
    assert (info.bit_depth, info.hdr, info.frames) == (8, False, 5)
    assert any("tone mapped to BT.709" in note for note in notes)
    with open_media(source, hdr="keep") as before, open_media(tmp_path / "out.mp4") as after:
        signal, shown = next(iter(before)).rgb, next(iter(after)).rgb
    expected = 255 * tone_mapped(signal.reshape(-1, 3) / 255, tags["color_trc"]).reshape(signal.shape)
    assert np.abs(expected - shown)[4:-4, 4:-4].mean() < 6


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["PQ", "HLG"])
def test_kept_videos_keep_their_range_and_tags(tags: dict[str, int], tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", tags)
    notes = converted(source, tmp_path / "out.mp4", "keep")
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert after.bit_depth == 10
    assert (after.colour.primaries, after.colour.trc, after.colour.space) == (9, tags["color_trc"], 9)
    assert before.hdr_name == after.hdr_name
    assert any("was kept in 10 bits" in note for note in notes)
    with av.open(str(source)) as one, av.open(str(tmp_path / "out.mp4")) as other:
        planes = [next(one.decode(video=0)), next(other.decode(video=0))]
    old, new = (plane.to_ndarray().astype(int) for plane in planes)
    assert np.abs(old - new).mean() < 8


@pytest.mark.parametrize("profile", [4, 5, 10])
@pytest.mark.parametrize("hdr", ["tone_map", "keep"])
def test_colours_that_only_metadata_explain_are_refused_all_the_same(profile: int, hdr: Hdr, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", codec="libx265", frames=3, sound=None)
    inside = b"dvcC" + bytes([1, 0, profile << 1, 0x25]) + bytes(20)
    source.write_bytes(source.read_bytes() + (len(inside) + 4).to_bytes(4, "big") + inside)
    with pytest.raises(InputError, match=f"Dolby Vision, profile {profile}") as caught:
        open_media(source, hdr=hdr)
    assert caught.value.reason == Reason.HDR_VIDEO


@pytest.mark.parametrize("trc", [16, 18])
def test_tone_mapping_rises_and_keeps_grey_grey(trc: int) -> None:
    grey = np.linspace(0, 1, 200)[:, None].repeat(3, 1)
    mapped = tone_mapped(grey, trc)
    assert (np.diff(mapped[:, 0]) >= -1e-9).all()
    assert np.abs(mapped - mapped[:, :1]).max() < 2e-3
    assert mapped[0, 0] < 0.01
    assert mapped[-1, 0] == pytest.approx(1, abs=0.01)


def test_middle_tones_of_pq_stay_as_bright_as_they_are() -> None:
    """26 nits, 18 % of white with room above it: 58 % of the signal of BT.2408's paper white lies at 203 nits."""

    def signal(nits: float) -> float:
        power = (nits / 10_000) ** (2610 / 16_384)
        return float(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))

    for nits in (5, 26, 60):
        shown = float(tone_mapped(np.full((1, 3), signal(nits)), 16)[0, 0]) ** 2.4 * 203
        assert shown == pytest.approx(nits, rel=0.02)
