"""The report's section on the videos: what became of each, what it looks like, how good the swap is.

Every video stands in the list; strips and measures are made for at most `MAX_DETAILED` of those that were converted,
spread evenly over the archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from facemill import tables
from facemill.detect import Detector, build_detector
from facemill.embeddings import DIMENSIONS, SAME_PERSON
from facemill.errors import InputError
from facemill.files import read_object
from facemill.landmarks import LandmarkPredictor, build_predictor
from facemill.measures import spread
from facemill.model_folder import references_of
from facemill.pictures import RGB
from facemill.reasons import State
from facemill.schema import CONVERSIONS, TRACKS, ConversionRow
from facemill.sheets import to_height
from facemill.swap_meter import MeasuredFrame, SwapMeter, SwapSummary, measure_video, summarize
from facemill.track.naming import name_tracks
from tasks.catalogue import Data, video_part
from tasks.params import Params
from tasks.paths import archive_folder
from tasks.report_page.charts import dumbbells, timeline
from tasks.report_page.dataset import sentence
from tasks.report_page.details import Comparison, compare_details
from tasks.report_page.thumbnails import Album
from tasks.work.plugin_files import placed_options
from tasks.work.progress import track

MAX_DETAILED = 12

OTHERS = "others"
MAX_LISTED = 300
STRIP_PX = 300
FRAME_COUNTS = ("in", "out", "swapped", "passed", "failed")


@dataclass(frozen=True)
class Pair:
    """A frame before and after, as data URIs, with its caption."""

    before: str
    after: str
    caption: str


@dataclass(frozen=True)
class Becoming:
    """One person who becomes another, in one video or in all."""

    replaced: str
    new: str
    summary: SwapSummary

    @property
    def name(self) -> str:
        return f"{self.replaced} → {self.new}"

    @property
    def chart(self) -> Markup | None:
        """A chart of how far the face was from both identities before the swap, and how far it is now."""
        medians = self.summary.medians
        if not self.summary.frames:
            return None
        lines = [
            (self.replaced, medians["replaced_before"], medians["replaced_after"]),
            (self.new, medians["new_before"], medians["new_after"]),
        ]
        return dumbbells(
            lines, threshold=SAME_PERSON, label="Distance of the face to both identities, before and after"
        )


@dataclass(frozen=True)
class VideoEntry:
    """What the report says of one video of the archive."""

    number: int
    row: ConversionRow
    reason: str
    pairs: list[Pair] = field(default_factory=list)
    becomings: list[Becoming] = field(default_factory=list)
    """Of those whose face was measured."""
    summary: SwapSummary | None = None
    problem: str | None = None
    """Why there are no measures, in words."""
    timeline: Markup | None = None
    """Who is in it, from when to when."""

    @property
    def name(self) -> str:
        return str(self.row["video"])

    @property
    def detailed(self) -> bool:
        return bool(self.pairs or self.problem)


@dataclass(frozen=True)
class VideosSection:
    entries: list[VideoEntry]
    total: int
    overall: SwapSummary
    becomings: list[Becoming]
    states: dict[str, int]
    frames: dict[str, int]
    unmeasured: int
    """Converted videos that could not be measured."""
    details: list[Comparison]
    """A face of each pair with each method of detail."""

    def metrics(self) -> dict[str, Any]:
        """Counts and medians, for all and by video, as plain values."""
        by_video = {
            entry.name: {"state": entry.row["status"], **_frame_counts(entry.row), **_summary_values(entry.summary)}
            for entry in self.entries
        }
        totals = {"total": self.total, **self.states, **{f"frames_{name}": n for name, n in self.frames.items()}}
        by_pair = {f"{one.replaced}-as-{one.new}": one.summary.as_dict() for one in self.becomings}
        return {"videos": totals, "swap": self.overall.as_dict(), "swap_by_pair": by_pair, "by_video": by_video}


def gather_videos(root: Path, params: Params, album: Album) -> VideosSection | None:
    """Reads `data/conversions` and measures the converted videos; None where nothing was converted.

    Raises:
        FacemillError: a table of another version, or a model folder that cannot be read.
    """
    folder = root / Data.CONVERSIONS
    if not folder.is_dir():
        return None
    rows = sorted(tables.iterate_rows(folder, CONVERSIONS), key=lambda row: str(row["video"]))
    converted = [row["video"] for row in rows if row["status"] == State.OK and row["frames_swapped"]]
    detailed = set(spread(converted, MAX_DETAILED))
    entries: list[VideoEntry] = []
    frames: list[MeasuredFrame] = []
    becomes: dict[str, str] = {}
    meters = _Meters(root, params)
    with track("report", len(detailed), "videos") as progress:
        for number, row in enumerate(rows, 1):
            if row["video"] not in detailed:
                entries.append(VideoEntry(number, row, sentence(row["error"])))
                continue
            entry, measured = _detailed(number, root, params, row, meters, album)
            entries.append(replace(entry, timeline=_timeline(root, params, row)))
            frames += measured
            becomes |= _becomes(row)
            progress.advance()
    counts = [_frame_counts(row) for row in rows]
    return VideosSection(
        entries=_listed(entries),
        total=len(entries),
        overall=summarize(frames),
        becomings=_becomings(becomes, frames),
        states={str(state): sum(row["status"] == state for row in rows) for state in State},
        frames={name: sum(count[f"frames_{name}"] for count in counts) for name in FRAME_COUNTS},
        unmeasured=sum(entry.problem is not None for entry in entries),
        details=compare_details(root, params, [row for row in rows if row["video"] in detailed], album),
    )


class _Meters:
    """A `SwapMeter` for who becomes whom, made when it is first needed."""

    def __init__(self, root: Path, params: Params) -> None:
        self._model_path = root / Data.MODEL_META
        self._tracking, self._root = params.track, root
        self._identity_distance = params.convert.identity_distance
        self._made: dict[tuple[tuple[str, str], ...], SwapMeter] = {}

    def of(self, becomes: Mapping[str, str]) -> SwapMeter | None:
        """None where the model is gone or holds no references of one of them."""
        key = tuple(becomes.items())
        if key not in self._made:
            model = read_object(self._model_path) if self._model_path.is_file() else {}
            references = model.get("references", {})
            if not all(references.get(name) for pair in key for name in pair):
                return None
            self._made[key] = SwapMeter(
                self._detector(),
                self._predictor(),
                becomes,
                {name: np.asarray(rows, np.float32) for name, rows in references.items()},
                coverage=float(model["train_coverage"]),
                identity_distance=self._identity_distance,
            )
        return self._made[key]

    def _detector(self) -> Detector:
        options = placed_options(self._tracking, self._root).detector
        return build_detector(self._tracking.detector, min_face_px=self._tracking.min_face_px, **options)

    def _predictor(self) -> LandmarkPredictor:
        options = placed_options(self._tracking, self._root).landmarks
        return build_predictor(self._tracking.landmarks, **options)


def _detailed(
    number: int, root: Path, params: Params, row: ConversionRow, meters: _Meters, album: Album
) -> tuple[VideoEntry, list[MeasuredFrame]]:
    original, result = archive_folder(params, root) / row["video"], root / Data.CONVERTED / row["output"]
    for path, what in ((original, "the original is no longer in the archive"), (result, "the output is gone")):
        if not path.is_file():
            return VideoEntry(number, row, "", problem=what), []
    meter = meters.of(_becomes(row))
    if meter is None:
        return VideoEntry(number, row, "", problem="the model holds no references of these identities"), []
    try:
        frames = measure_video(meter, original, result, params.report.measured_frames, row["frames_swapped"])
    except InputError as error:
        return VideoEntry(number, row, "", problem=f"{error.reason.sentence} {error.detail}".strip()), []
    if not frames:
        return VideoEntry(number, row, "", problem="no frame was changed"), []
    shown = [frame for frame in frames if frame.measures] or frames
    pairs = [pair for frame in spread(shown, params.report.frames_per_video) if (pair := _pair(frame, album))]
    light = [_without_pictures(frame) for frame in frames]
    return VideoEntry(number, row, "", pairs, _becomings(_becomes(row), light), summarize(light)), light


def _timeline(root: Path, params: Params, row: ConversionRow) -> Markup | None:
    """Everybody who was tracked: those who are known by name, all others in one line; None without tracks or model."""
    part, model = root / Data.TRACKS / f"{video_part(row['input_sha256'] or '')}.parquet", root / Data.MODEL_META
    if not part.is_file() or not model.is_file():
        return None
    tracks = list(tables.to_rows(tables.read_part(part, TRACKS, ["track", "from_s", "to_s", "looks"]), TRACKS))
    looks = {one["track"]: np.asarray(one["looks"], np.float32).reshape(-1, DIMENSIONS) for one in tracks}
    who = name_tracks(looks, references_of(read_object(model)), params.convert.identity_distance)
    spans: dict[str, list[tuple[float, float]]] = {}
    for one in tracks:
        spans.setdefault(who[one["track"]] or OTHERS, []).append((one["from_s"], one["to_s"]))
    if not spans:
        return None
    # in the colours of the charts beside it: who is replaced, who is put there, everybody else
    becomes = _becomes(row)
    order = [*dict.fromkeys([*becomes, *becomes.values(), *sorted(spans.keys() - {OTHERS}), OTHERS])]
    rows = [(name, order.index(name), spans[name]) for name in order if name in spans]
    return timeline(rows, length=max(end for own in spans.values() for _, end in own), label="Who is in the video")


def _becomes(row: ConversionRow) -> dict[str, str]:
    return {pair["replaced"]: pair["new"] for pair in row["becomes"]}


def _becomings(becomes: Mapping[str, str], frames: Sequence[MeasuredFrame]) -> list[Becoming]:
    """One for each identity that was seen in any of the frames."""
    seen = {name: [frame for frame in frames if frame.replaced == name] for name in becomes}
    return [Becoming(name, becomes[name], summarize(some)) for name, some in seen.items() if some]


def _pair(frame: MeasuredFrame, album: Album) -> Pair | None:
    before, after = album.add(_view(frame, frame.before), STRIP_PX), album.add(_view(frame, frame.after), STRIP_PX)
    if before is None or after is None:
        return None
    minutes, seconds = divmod(frame.time_s, 60)
    return Pair(before, after, " ".join(filter(None, [frame.replaced, f"{int(minutes)}:{seconds:05.2f}"])))


def _view(frame: MeasuredFrame, picture: RGB) -> RGB:
    """The surroundings of the face, or the whole frame where the face is large or missing."""
    picture = frame.face_in(picture)
    return picture if picture.shape[0] <= STRIP_PX else to_height(picture, STRIP_PX)


def _without_pictures(frame: MeasuredFrame) -> MeasuredFrame:
    """So that memory does not grow with the number of videos."""
    nothing = np.zeros((0, 0, 3), np.uint8)
    return replace(frame, before=nothing, after=nothing)


def _listed(entries: Sequence[VideoEntry]) -> list[VideoEntry]:
    """All that are shown closely and all that went wrong first in line, the rest up to the limit, in their order."""
    first = [entry for entry in entries if entry.detailed or entry.row["status"] != State.OK]
    others = [entry for entry in entries if not (entry.detailed or entry.row["status"] != State.OK)]
    kept = {id(entry) for entry in [*first, *others][:MAX_LISTED]}
    return [entry for entry in entries if id(entry) in kept]


def _frame_counts(row: ConversionRow) -> dict[str, int]:
    return {
        "frames_in": row["frames_in"] or 0,
        "frames_out": row["frames_out"] or 0,
        "frames_swapped": row["frames_swapped"] or 0,
        "frames_passed": row["frames_passed"] or 0,
        "frames_failed": row["frames_failed"] or 0,
    }


def _summary_values(summary: SwapSummary | None) -> dict[str, Any]:
    return {"measures": summary.as_dict()} if summary is not None else {}
