"""Videos of high dynamic range: refused, kept, or brought to what an ordinary screen shows.

Tone mapping goes by ITU-R BT.2390 (section 5.4): light up to about half of the reference white stays as it is, what is
brighter is bent below it. HLG is first shown as BT.2100 has it for a screen of 1,000 nits. Then BT.2020's colours
become those of BT.709, and what lies outside of them is cut off.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import av
import av.filter
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video.info import HLG_TRC, PQ_TRC, Colour, VideoInfo

Hdr = Literal["refuse", "tone_map", "keep"]
WHITE_NITS = 203.0  # of a sheet of paper in HDR (BT.2408), which becomes the white of an ordinary screen
PEAK_NITS = 1000.0  # of the source's brightest light; brighter ones are white
BT2020 = 9
SDR = Colour(1, 1, 1, 1)  # BT.709, limited
LUT_SIZE = 33
BASE_IS_PLAIN = (7, 8)  # profiles of Dolby Vision whose picture is right without its metadata
_DEEP_RGB = "gbrp10le"

Array = npt.NDArray[np.float64]


def check_hdr(info: VideoInfo, hdr: Hdr) -> None:
    """Raises InputError (HDR_VIDEO, with the kind) where a video of high dynamic range is not wanted, or cannot be
    read without what only a licensed decoder knows."""
    if not info.hdr:
        return
    if hdr == "refuse":
        raise InputError(Reason.HDR_VIDEO, f"{info.hdr_name}: set convert.hdr to tone_map or keep")
    if info.dolby_vision is not None and info.dolby_vision not in BASE_IS_PLAIN:
        raise InputError(
            Reason.HDR_VIDEO, f"{info.hdr_name}: its colours cannot be read without its metadata, which are not public"
        )


def written_info(info: VideoInfo, hdr: Hdr) -> VideoInfo:
    """What a video is once it is read: after tone mapping an ordinary one of 8 bits."""
    return replace(info, bit_depth=8, colour=SDR, dolby_vision=None) if is_mapped(info, hdr) else info


def is_mapped(info: VideoInfo, hdr: Hdr) -> bool:
    """Whether a video is tone mapped; the base layer of Dolby Vision may be an ordinary picture already."""
    plain = info.colour.trc not in (PQ_TRC, HLG_TRC) and info.colour.primaries != BT2020
    return info.hdr and hdr == "tone_map" and not plain


def told(info: VideoInfo, hdr: Hdr, bits: int) -> list[str]:
    """What was done to a video of high dynamic range, in words; `info` as it was probed."""
    if not info.hdr:
        return []
    notes = []
    if info.dolby_vision is not None:
        notes.append(f"dropped the metadata of {info.hdr_name}: its base layer is left")
    if is_mapped(info, hdr):
        notes.append(f"{info.hdr_name} was tone mapped to BT.709 in 8 bits (BT.2390, white at {WHITE_NITS:.0f} nits)")
    elif hdr == "keep":
        notes.append(f"{info.hdr_name} was kept in {bits} bits, with its tags; faces are drawn in its own values")
    return notes


class ToneMapper:
    """Decoded pictures of one video as an ordinary screen shows them."""

    def __init__(self, info: VideoInfo) -> None:
        self._cube = _cube(info.colour.trc)
        self._graph: av.filter.Graph | None = None
        self._size = (0, 0)

    def map(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A picture in RGB of 10 bits, for BT.709; its times are those of the given one."""
        full = int(picture.color_range) == ColorRange.JPEG
        rgb = VideoReformatter().reformat(
            picture,
            format=_DEEP_RGB,
            src_colorspace=Colorspace(BT2020),
            dst_colorspace=Colorspace(BT2020),
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        if self._graph is None or self._size != (rgb.width, rgb.height):
            self._graph, self._size = _graph(rgb, self._cube), (rgb.width, rgb.height)
        self._graph.push(rgb)
        mapped: Any = self._graph.pull()
        mapped.pts, mapped.time_base, mapped.duration = picture.pts, picture.time_base, picture.duration
        mapped.color_primaries, mapped.color_trc = SDR.primaries, SDR.trc
        mapped.colorspace, mapped.color_range = 0, ColorRange.JPEG
        found: av.VideoFrame = mapped
        return found


def _graph(picture: av.VideoFrame, cube: str) -> av.filter.Graph:
    """FFmpeg reads a table from a file only, and only when it is set up."""
    number, path = tempfile.mkstemp(suffix=".cube", prefix="facemill-")
    try:
        with os.fdopen(number, "w") as stream:
            stream.write(cube)
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
        )
        table = graph.add("lut3d", file=path, interp="tetrahedral")
        sink = graph.add("buffersink")
        source.link_to(table)
        table.link_to(sink)
        graph.configure()
        return graph
    finally:
        os.unlink(path)


@lru_cache(maxsize=4)
def _cube(trc: int) -> str:
    """The table from a video's RGB to that of BT.709, in the format of Adobe's .cube: red changes fastest."""
    steps = np.linspace(0, 1, LUT_SIZE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    mapped = tone_mapped(np.stack([red, green, blue], axis=-1).reshape(-1, 3), trc)
    lines = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in mapped)
    return f"LUT_3D_SIZE {LUT_SIZE}\n{lines}\n"


def tone_mapped(signal: Array, trc: int) -> Array:
    """N×3 RGB signals 0…1 of BT.2020 with a transfer characteristic of H.273, as those of BT.709."""
    if trc == PQ_TRC:
        nits = _pq_to_nits(signal)
    elif trc == HLG_TRC:
        nits = _hlg_to_nits(signal)
    else:  # BT.2020 without high dynamic range: only its colours are others
        nits = WHITE_NITS * np.power(signal, 2.4)
    brightest = nits.max(axis=-1, keepdims=True)
    light = nits * (_compressed(brightest) / np.maximum(brightest, 1e-6)) / WHITE_NITS
    return np.asarray(np.power(np.clip(light @ _TO_709.T, 0, 1), 1 / 2.4), np.float64)


def _compressed(nits: Array) -> Array:
    """BT.2390's curve for one value of each pixel, in nits."""
    top = _nits_to_pq(np.array(PEAK_NITS))
    value = np.minimum(_nits_to_pq(nits) / top, 1.0)
    most = float(_nits_to_pq(np.array(WHITE_NITS)) / top)
    knee = 1.5 * most - 0.5
    t = np.clip((value - knee) / (1 - knee), 0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return _pq_to_nits(np.where(value < knee, value, bent) * top)


def _pq_to_nits(signal: Array) -> Array:
    """Signal in 0–1 → light in cd/m²: the EOTF of perceptual quantization (SMPTE ST 2084)."""
    power = np.power(np.clip(signal, 0, 1), 1 / _M2)
    return np.asarray(10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1), np.float64)


def _nits_to_pq(nits: Array) -> Array:
    power = np.power(np.clip(nits, 0, 10_000) / 10_000, _M1)
    return np.asarray(np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2), np.float64)


def _hlg_to_nits(signal: Array) -> Array:
    """BT.2100: from the signal to the scene's light, and to that of a screen with a gamma of 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = (scene @ np.array([0.2627, 0.6780, 0.0593]))[:, None]
    return np.asarray(PEAK_NITS * np.power(np.maximum(luminance, 1e-9), 0.2) * scene, np.float64)


_M1, _M2 = 2610 / 16_384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# from linear BT.2020 to linear BT.709 (BT.2087)
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
