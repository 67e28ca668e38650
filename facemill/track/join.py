"""The segments of a video put together: tracks that go on over borders, and points that know their future.

    the last frame of a segment and the first of the next ──► boxes that overlap are one face, unless a scene ends there
    a track that ends, one that begins nearby soon after  ──► one face, if they look alike
    a loss of up to BRIDGE_S                              ──► bridged: points lie between those before and after it
    points that mean nothing for up to BRIDGE_S           ──► laid between those before and after, for longer: a loss
    points of a track                                     ──► smoothed (`smooth.py`), nothing across a cut
    strength                                              ──► fades before and after a loss; 1 at cuts and at the ends

What decides which face is which needs a few numbers for each row and is held for the whole video; points are read
segment by segment, each with its neighbours, so that a film takes no more memory than a clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.boxes import shorter_sides
from facemill.embeddings import DIMENSIONS
from facemill.quality import are_trusted, visibility
from facemill.track.match import match
from facemill.track.rows import Between, SeenRows, untrusted
from facemill.track.segment import SegmentTracks, pose_of
from facemill.track.settings import TrackingSettings
from facemill.track.smooth import smoothed
from facemill.video.cuts import is_cut_between

Array = npt.NDArray[Any]

BRIDGE_S = 0.4
"""So long a face may be missing within a scene, or its points mean nothing (`facemill.quality.are_trusted`), for them
to be laid between those before and after."""
FADE_S = 0.2
"""So long the strength takes from 0 to 1 where a face comes or goes within a scene."""
ALIKE, UNLIKE = 0.6, 0.8
"""Distances of embeddings: up to the first two looks are one person's, from the second on they are not."""
NEARBY, GROWTH = 1.0, 1.6
"""A face that comes back has moved by no more than so many of its sides, and has not grown or shrunk by more."""
MOST_LOOKS = 16


@dataclass(frozen=True)
class Track:
    """One face through one scene.

    Attributes:
        track: its number, from 0 in order of appearance.
        scene: counted through the video.
        runs: first and last frame (counted through the video) of each stretch without a gap, bridged frames included.
        frames, bridged: how many rows it has, and how many of them are bridged.
        least_px, most_px: shorter side of its smallest and its largest box.
        look_pts: (K,) int64; looks: (K, 128) float32: at most `MOST_LOOKS`, spread over its length.
    """

    track: int
    scene: int
    runs: tuple[tuple[int, int], ...]
    frames: int
    bridged: int
    least_px: float
    most_px: float
    look_pts: npt.NDArray[np.int64]
    looks: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PointRows:
    """A row for each face and frame of a segment, in order of frames, then of tracks.

    pts: (N,) int64. track: (N,) int32. box: (N, 4), points: (N, 68, 2) float32, pixels of the frame. score: (N,)
    float32. detected, bridged: (N,) bool. pose: (N, 3) float32, yaw, pitch and roll in degrees (NaN where the points
    have none). visibility, strength: (N,) float32, 0…1. doubt, presence: (N,) float32, of the points as they were
    found, NaN where none were or the predictor does not tell.
    """

    pts: npt.NDArray[np.int64]
    track: npt.NDArray[np.int32]
    box: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    detected: npt.NDArray[np.bool_]
    bridged: npt.NDArray[np.bool_]
    pose: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.float32]
    doubt: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]
    strength: npt.NDArray[np.float32]


def join_tracks(pieces: Sequence[SegmentTracks], settings: TrackingSettings) -> VideoTracks:
    """Puts the segments of a video together.

    Args:
        pieces: in order, each with a frame at least; a sequence that reads them when they are asked for will do.
        settings: as they were tracked with.
    """
    return VideoTracks(pieces, settings)


class VideoTracks:
    """What was seen in a video.

    Attributes:
        pts: (F,) of all frames. scene: (F,) counted through the video.
        offsets: of each piece, how many frames lie before it; one more at the end.
        tracks: in order of appearance.
    """

    def __init__(self, pieces: Sequence[SegmentTracks], settings: TrackingSettings) -> None:
        self._pieces, self._smoothing = pieces, settings.smoothing
        light = [_Light.of(piece) for piece in pieces]
        self.offsets = np.cumsum([0, *(len(one.pts) for one in light)])
        self.pts = np.concatenate([one.pts for one in light])
        self.seconds = np.concatenate([one.seconds for one in light])
        self.scene = _scenes(light)
        tracklets = [
            tracklet
            for index, one in enumerate(light)
            for tracklet in one.tracklets(index, int(self.offsets[index]), self.scene)
        ]
        chains = _chains(tracklets, self.offsets, self.seconds, settings.remember_s)
        self.tracks = tuple(self._track(number, chain) for number, chain in enumerate(chains))
        self._ids: dict[tuple[int, int], int] = {
            (one.piece, one.local): number for number, chain in enumerate(chains) for one in chain
        }

    def scene_starts(self, index: int) -> list[int]:
        """The pts of the frames of a piece with which a scene begins, that of the video's first among them."""
        first, last = int(self.offsets[index]), int(self.offsets[index + 1])
        return [int(self.pts[at]) for at in range(first, last) if at == 0 or self.scene[at] != self.scene[at - 1]]

    def rows(self, index: int) -> PointRows:
        """The faces in the frames of a piece."""
        around = range(max(0, index - 1), min(len(self._pieces), index + 2))
        seen = SeenRows.of({piece: self._pieces[piece] for piece in around}, self.offsets, self._ids)
        first, last = int(self.offsets[index]), int(self.offsets[index + 1])
        low, high = int(self.offsets[around[0]]), int(self.offsets[around[-1] + 1])
        parts = [
            self._run_rows(self.tracks[number], run, seen.of_track(number), (first, last))
            for number in seen.numbers
            for run in self.tracks[number].runs
            if run[0] < last and run[1] >= first and run[0] < high and run[1] >= low
        ]
        return _sorted_rows([part for part in parts if part is not None], self._pieces[index].size_wh)

    def _run_rows(
        self, track: Track, run: tuple[int, int], own: SeenRows, wanted: tuple[int, int]
    ) -> dict[str, Array] | None:
        """The rows of one stretch of a track that lie in the wanted frames; bridged ones lie between the others."""
        own = own.between(*run)
        if len(own.frame) == 0:
            return None
        start, end = max(wanted[0], int(own.frame[0])), min(wanted[1] - 1, int(own.frame[-1]))
        frames = np.arange(start, end + 1)
        if len(frames) == 0:
            return None
        seconds = self.seconds[own.frame]
        brief, lasting = untrusted(seconds, are_trusted(own.yaw, own.doubt, own.presence), BRIDGE_S)
        steady = own.taken(np.flatnonzero(~brief))
        points = smoothed(self.seconds[steady.frame], steady.points, self._smoothing)
        seen, steadily = (Between.of(one.frame, frames, self.seconds) for one in (own, steady))
        bridged = seen.before != seen.after
        known = np.where(bridged, np.nan, 1.0)
        return {
            "frame": frames,
            "pts": self.pts[frames],
            "track": np.full(len(frames), track.track, np.int32),
            "box": seen.values(own.box),
            "points": steadily.values(points),
            "score": seen.values(own.score),
            "detected": own.detected[seen.before] & ~bridged,
            "bridged": bridged,
            "doubt": np.asarray(own.doubt[seen.before] * known, np.float32),
            "presence": np.asarray(own.presence[seen.before] * known, np.float32),
            "strength": self._strength(frames, run, track.scene, seconds[lasting]),
        }

    def _strength(self, frames: Array, run: tuple[int, int], scene: int, lost_s: Array) -> Array:
        """(F,) of frames of a run, from 0 at and towards `lost_s`, times at which the face is there and its points mean
        nothing."""
        first, last = run
        times = self.seconds[frames]
        strength = np.ones(len(frames))
        if len(lost_s):
            strength = np.minimum(strength, np.abs(times[:, None] - lost_s).min(axis=1) / FADE_S)
        if first > 0 and self.scene[first - 1] == scene:  # it comes within the scene
            step = self.seconds[first] - self.seconds[first - 1]
            strength = np.minimum(strength, (times - self.seconds[first] + step) / (FADE_S + step))
        if last + 1 < len(self.scene) and self.scene[last + 1] == scene:
            step = self.seconds[last + 1] - self.seconds[last]
            strength = np.minimum(strength, (self.seconds[last] - times + step) / (FADE_S + step))
        return strength.astype(np.float32)

    def _track(self, number: int, chain: Sequence[_Tracklet]) -> Track:
        frames = np.concatenate([one.frames for one in chain])
        runs = _runs(frames, self.seconds)
        rows = sum(last - first + 1 for first, last in runs)
        look_pts = np.concatenate([one.look_pts for one in chain])
        looks = np.concatenate([one.looks for one in chain])
        kept = np.argsort(look_pts, kind="stable")
        if len(kept) > MOST_LOOKS:
            kept = kept[np.linspace(0, len(kept) - 1, MOST_LOOKS).round().astype(int)]
        return Track(
            number,
            chain[0].scene,
            runs,
            rows,
            rows - len(frames),
            min(one.least_px for one in chain),
            max(one.most_px for one in chain),
            look_pts[kept],
            looks[kept],
        )


@dataclass(frozen=True)
class _Light:
    """What of a piece is held for the whole video: all but its points."""

    pts: Array
    seconds: Array
    scene: Array
    ends: Array
    frame: Array
    track: Array
    box: Array
    look_track: Array
    look_pts: Array
    looks: Array

    @classmethod
    def of(cls, piece: SegmentTracks) -> _Light:
        return cls(
            piece.pts,
            piece.seconds,
            piece.scene,
            piece.ends,
            piece.frame,
            piece.track,
            piece.box,
            piece.look_track,
            piece.look_pts,
            piece.looks,
        )

    def tracklets(self, index: int, offset: int, scenes: Array) -> Iterator[_Tracklet]:
        """The tracks of the piece; frames are counted through the video."""
        for local in np.unique(self.track):
            rows = np.flatnonzero(self.track == local)
            looks = np.flatnonzero(self.look_track == local)
            sides = shorter_sides(self.box[rows])
            frames = self.frame[rows].astype(np.int64) + offset
            yield _Tracklet(
                index,
                int(local),
                int(scenes[frames[0]]),
                frames,
                self.box[rows[0]].astype(float),
                self.box[rows[-1]].astype(float),
                float(sides.min()),
                float(sides.max()),
                self.look_pts[looks],
                self.looks[looks].reshape(-1, DIMENSIONS),
            )


@dataclass(frozen=True)
class _Tracklet:
    """A track of one piece: where it begins and ends, and what it looks like."""

    piece: int
    local: int
    scene: int
    frames: Array
    first_box: Array
    last_box: Array
    least_px: float
    most_px: float
    look_pts: Array
    looks: Array


def _scenes(light: Sequence[_Light]) -> npt.NDArray[np.int32]:
    """(F,) scenes counted through the video; whether one goes on over a border the frames beside it tell."""
    found: list[Array] = []
    before: _Light | None = None
    start = 0
    for one in light:
        if before is not None:
            start = int(found[-1][-1]) + is_cut_between(before.ends[1], one.ends[0])
        found.append(one.scene + start)
        before = one
    return np.concatenate(found).astype(np.int32)


def _chains(tracklets: Sequence[_Tracklet], offsets: Array, seconds: Array, remember_s: float) -> list[list[_Tracklet]]:
    """The tracklets of each face one after another; faces in order of appearance, then from left to right."""
    next_one: dict[int, int] = {}
    following: set[int] = set()
    starts, ends = defaultdict(list), defaultdict(list)  # by frame
    for place, one in enumerate(tracklets):
        starts[int(one.frames[0])].append(place)
        ends[int(one.frames[-1])].append(place)

    for border in offsets[1:-1].tolist():
        last, first = ends.get(border - 1, []), starts.get(border, [])
        left = np.array([tracklets[place].last_box for place in last]).reshape(-1, 4)
        right = np.array([tracklets[place].first_box for place in first]).reshape(-1, 4)
        for row, column in match(left, right):
            one, other = tracklets[last[row]], tracklets[first[column]]
            if one.scene == other.scene and _distance(one, other, 0.0) < UNLIKE:
                next_one[last[row]] = first[column]
                following.add(first[column])

    lost = sorted((int(one.frames[-1]), place) for place, one in enumerate(tracklets))
    begun = np.array(sorted(starts))
    for frame, place in lost:
        if place in next_one:
            continue
        one = tracklets[place]
        until = np.searchsorted(seconds[begun], seconds[frame] + remember_s, side="right")
        for start in begun[np.searchsorted(begun, frame, side="right") : until].tolist():
            alike = [
                (distance, other)
                for other in starts[start]
                if other not in following
                and _may_be_back(one, tracklets[other])
                and (distance := _distance(one, tracklets[other], np.inf)) <= ALIKE
            ]
            if alike:
                _, found = min(alike)
                next_one[place] = found
                following.add(found)
                break

    chains = []
    for place in sorted(
        set(range(len(tracklets))) - following,
        key=lambda place: (int(tracklets[place].frames[0]), float(tracklets[place].first_box[0])),
    ):
        chain, at = [tracklets[place]], place
        while at in next_one:
            at = next_one[at]
            chain.append(tracklets[at])
        chains.append(chain)
    return chains


def _may_be_back(gone: _Tracklet, come: _Tracklet) -> bool:
    """Whether a face that begins is where one that ended was, in the same scene and about as large."""
    sides = [float(shorter_sides(box[None])[0]) for box in (gone.last_box, come.first_box)]
    moved = (gone.last_box[:2] + gone.last_box[2:] - come.first_box[:2] - come.first_box[2:]) / 2
    near = float(np.hypot(*moved)) <= NEARBY * max(sides)
    return gone.scene == come.scene and near and 1 / GROWTH <= sides[1] / sides[0] <= GROWTH


def _distance(one: _Tracklet, other: _Tracklet, unknown: float) -> float:
    """Between the two looks that are most alike; `unknown` where one of them has none."""
    if len(one.looks) == 0 or len(other.looks) == 0:
        return unknown
    return float(np.linalg.norm(one.looks[:, None] - other.looks[None], axis=2).min())


def _runs(frames: Array, seconds: Array) -> tuple[tuple[int, int], ...]:
    """First and last frame of each stretch whose gaps can be bridged; a gap begins when the next frame is shown."""
    runs, start = [], int(frames[0])
    for before, after in pairwise(frames.tolist()):
        if after > before + 1 and seconds[after] - seconds[before + 1] > BRIDGE_S + 1e-6:
            runs.append((start, before))
            start = after
    return (*runs, (start, int(frames[-1])))


def _sorted_rows(parts: Sequence[Mapping[str, Array]], size_wh: Array) -> PointRows:
    if not parts:
        return PointRows(
            np.zeros(0, np.int64),
            np.zeros(0, np.int32),
            np.zeros((0, 4), np.float32),
            np.zeros((0, 68, 2), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.bool_),
            np.zeros(0, np.bool_),
            np.zeros((0, 3), np.float32),
            *[np.zeros(0, np.float32)] * 4,
        )
    every = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((every["track"], every.pop("frame")))
    taken = {name: values[order] for name, values in every.items()}
    pose = np.array([pose_of(points) for points in taken["points"]], np.float32).reshape(-1, 3)
    return PointRows(**taken, pose=pose, visibility=visibility(taken["points"], pose[:, 0], size_wh))
