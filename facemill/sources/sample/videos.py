"""Sample videos with sound: the sample people talk, blink, look around; someone leaves, someone else is there too.

    truth = write_sample_video(Path("talk.mp4"), Scene(people=("hopper",)), seconds=5, seed=0)
    truth.landmarks["hopper"][12]      # the true 68 points of frame 12, None where the person is away

H.264 and AAC at 25 frames a second. One encoder thread and no tags of time or version: the same call gives the same
bytes on the same build of FFmpeg.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from facemill.files import atomic_path
from facemill.pictures import RGB
from facemill.sources.sample.animate import render
from facemill.sources.sample.looks import backdrop
from facemill.sources.sample.portraits import people
from facemill.sources.sample.pose import Pose

FPS = 25
SIDE_PX = 480
SAMPLE_RATE_HZ = 44_100
AWAY_S = 1.0
"""How long the picture is empty in a scene with `leaves`, in its middle; a third of it in shorter videos."""

Landmarks = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Who is to be seen, side by side in this order, and what is special.

    Attributes:
        leaves: the people are away for AWAY_S in the middle.
        sound: whether there is a sound track.
        cut: the file ends in the middle of its data and cannot be opened; it is a quarter as long.
    """

    people: tuple[str, ...]
    leaves: bool = False
    sound: bool = True
    cut: bool = False


@dataclass(frozen=True)
class VideoTruth:
    """What a sample video shows: for each person one entry a frame, the (68, 2) landmarks or None."""

    size_wh: tuple[int, int]
    landmarks: dict[str, list[Landmarks | None]]

    @property
    def frames(self) -> int:
        return len(next(iter(self.landmarks.values())))


def sample_archive() -> dict[str, Scene]:
    """Paths inside the sample archive and what is to be seen there; spaces, Unicode and a folder on purpose."""
    first, second = people()
    return {
        f"interviews/{first}.mp4": Scene(people=(first,)),
        f"interviews/{second}.mp4": Scene(people=(second,)),
        f"{second} geht – und kommt zurück.mp4": Scene(people=(second,), leaves=True),
        f"{second} without sound.mp4": Scene(people=(second,), sound=False),
        "both.mp4": Scene(people=(second, first)),
        "cut off.mp4": Scene(people=(second,), cut=True),
    }


def write_sample_video(path: Path, scene: Scene, seconds: float, seed: int) -> VideoTruth:
    """Writes one video atomically and returns the truth about it.

    Args:
        path: of the MP4 file.
        scene: what is to be seen.
        seconds: length; rounded to whole frames, at least one.
        seed: another one moves and sounds differently.
    """
    actors = [_Actor(person, seed, index) for index, person in enumerate(scene.people)]
    count = max(1, round(seconds * FPS / (4 if scene.cut else 1)))
    away = _away(count) if scene.leaves else range(0)
    truth = VideoTruth((SIDE_PX * len(actors), SIDE_PX), {actor.person: [] for actor in actors})
    with atomic_path(path) as temporary:
        with av.open(
            str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}, container_options=_layout(scene)
        ) as container:
            video = _video_stream(container, truth.size_wh)
            sound = container.add_stream("aac", SAMPLE_RATE_HZ, layout="mono", bit_rate=96_000) if scene.sound else None
            for index in range(count):
                rgb = _frame(actors, index, index in away, truth)
                picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                picture.pts, picture.time_base = index, Fraction(1, FPS)
                picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
            if sound is not None:
                _write_sound(container, sound, _voice(actors[0], count / FPS, seed))
        if scene.cut:
            data = temporary.read_bytes()
            temporary.write_bytes(data[: len(data) // 2])
    return truth


def write_archive_video(folder: Path, name: str, seconds: float, seed: int) -> VideoTruth:
    """Writes one video of `sample_archive` below a folder; each of them moves differently."""
    scenes = sample_archive()
    return write_sample_video(folder / name, scenes[name], seconds, seed * 64 + list(scenes).index(name))


def frame_pose(person: str, seed: int, index: int, place: int = 0) -> Pose:
    """The pose of frame `index` of the person at `place` (0 is the left-most) in a video of that seed."""
    return _Actor(person, seed, place).pose(index / FPS)


class _Actor:
    """One person's motion: smooth functions of time, drawn from the seed."""

    def __init__(self, person: str, seed: int, place: int) -> None:
        rng = np.random.default_rng([seed, people().index(person), place, 4])
        self.person = person
        self._waves = {name: _Wave(rng) for name in ("yaw", "pitch", "roll", "x", "y", "smile", "brows", "light")}
        self._syllables = _syllables(rng)
        self._blinks = np.cumsum(rng.uniform(1.4, 4.2, 400)) - 1.0
        self._light_from_deg = float(rng.uniform(0, 360))
        self._warmth = float(rng.uniform(-0.4, 0.4))
        self._scale = float(rng.uniform(0.95, 1.1))
        self.background = int(rng.integers(0, 2**31))
        self._grain_seed = int(rng.integers(0, 2**30))

    def mouth(self, t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How far the mouth is open, 0…1, at times in seconds."""
        starts, lengths, heights = self._syllables
        opening = np.zeros_like(t)
        begun = np.searchsorted(starts, t)
        for back in range(1, 5):  # more than four never overlap: none lasts longer than 0.32 s
            index = np.maximum(begun - back, 0)
            phase = np.clip((t - starts[index]) / lengths[index], 0, 1)
            opening += np.where(begun >= back, heights[index] * np.sin(np.pi * phase) ** 2, 0)
        return np.minimum(opening, 0.6)

    def pose(self, t: float) -> Pose:
        wave = {name: float(function(t)) for name, function in self._waves.items()}
        blink = float(np.max(np.clip(1 - np.abs(t - self._blinks) / 0.13, 0, 1)))
        return Pose(
            yaw_deg=11 * wave["yaw"],
            pitch_deg=5 * wave["pitch"],
            roll_deg=5 * wave["roll"],
            scale=self._scale,
            shift=(0.03 * wave["x"], 0.02 * wave["y"]),
            mouth_open=float(self.mouth(np.array([t]))[0]),
            smile=0.5 * wave["smile"],
            blink=blink,
            brows=0.6 * wave["brows"],
            light=0.25 + 0.15 * wave["light"],
            light_from_deg=self._light_from_deg + 20 * wave["light"],
            warmth=self._warmth,
            background=self.background,
            grain=2.0,
            noise_seed=self._grain_seed + round(t * FPS),
        )


class _Wave:
    """A smooth function of time within about -1…1: three slow sines."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._frequencies_hz = rng.uniform([0.08, 0.2, 0.4], [0.2, 0.4, 0.75])
        self._phases = rng.uniform(0, 2 * np.pi, 3)
        self._weights = np.array([0.55, 0.3, 0.15])

    def __call__(self, t: float) -> float:
        return float(self._weights @ np.sin(2 * np.pi * self._frequencies_hz * t + self._phases))


def _syllables(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """Starts, lengths (s) and heights of ten minutes of syllables, four or so a second, with pauses for breath."""
    count = 2600
    lengths = rng.uniform(0.16, 0.32, count)
    gaps = np.where(rng.random(count) < 0.12, rng.uniform(0.25, 0.7, count), 0.0)
    starts = np.cumsum(0.75 * lengths + gaps)
    return starts, lengths, rng.uniform(0.12, 0.55, count)


def _away(count: int) -> range:
    length = min(round(AWAY_S * FPS), max(1, count // 3))
    return range((count - length) // 2, (count - length) // 2 + length)


def _frame(actors: list[_Actor], index: int, away: bool, truth: VideoTruth) -> RGB:
    """Draws one frame and notes the truth about it."""
    parts = []
    for place, actor in enumerate(actors):
        if away:
            parts.append(backdrop(actor.background, SIDE_PX, SIDE_PX))
            truth.landmarks[actor.person].append(None)
            continue
        rgb, landmarks = render(actor.person, actor.pose(index / FPS), (SIDE_PX, SIDE_PX))
        parts.append(rgb)
        truth.landmarks[actor.person].append(landmarks + np.array([place * SIDE_PX, 0], np.float32))
    return np.ascontiguousarray(np.hstack(parts))


def _layout(scene: Scene) -> dict[str, str]:
    """Muxer options: the index first, so that decoding can start early; but last in a file that is to be cut."""
    return {} if scene.cut else {"movflags": "+faststart"}


def _video_stream(container: av.container.OutputContainer, size_wh: tuple[int, int]) -> av.VideoStream:
    # Without macroblock trees: with AVX-512 x264's read memory beyond the last block when the width is no multiple of
    # 512, and the same frames gave other bytes on each run (measured at 480 and 960 px; none of 7 runs equal).
    options = {"crf": "18", "preset": "veryfast", "threads": "1", "x264-params": "no-mbtree=1"}
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height = size_wh
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709, as the pictures are converted
    context.color_range = 1
    return stream


def _voice(actor: _Actor, seconds: float, seed: int) -> npt.NDArray[np.float32]:
    """A voice of sorts that opens with the mouth: harmonics under two formants, and breath. Mono, -1…1."""
    rng = np.random.default_rng([seed, 5])
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    coarse = np.arange(0, seconds + 0.02, 0.01)
    opening = np.interp(t, coarse, actor.mouth(coarse))
    pitch_hz = 150 + 25 * np.interp(t, coarse, [_pitch(at) for at in coarse])
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    tone = np.zeros_like(t)
    for harmonic in range(1, 18):
        frequency = harmonic * pitch_hz
        formants = np.exp(-(((frequency - 350 - 700 * opening) / 220) ** 2)) + 0.5 * np.exp(
            -(((frequency - 1700) / 350) ** 2)
        )
        tone += (formants + 0.02) * np.sin(harmonic * phase) / harmonic**0.5
    noise = rng.standard_normal(len(t)) * 0.02
    return np.clip(tone * opening * 0.7 + noise * (0.05 + opening), -0.95, 0.95).astype(np.float32)


def _pitch(t: float) -> float:
    return float(np.sin(2 * np.pi * 0.4 * t) + 0.4 * np.sin(2 * np.pi * 2.3 * t))


def _write_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, samples: npt.NDArray[np.float32]
) -> None:
    size = 1024  # an AAC frame
    for at in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + size], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, at, Fraction(1, SAMPLE_RATE_HZ)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
