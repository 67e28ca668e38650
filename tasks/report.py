"""The report: one HTML page that a person opens, and the same numbers for programs.

    tables, metrics, training history, videos ──► data/report/report.html    (one file, no requests, a few MB)
                                              ├─► data/report/measures.json  (all numbers: by video, pair and stage)
                                              └─► data/report/metrics.json   (the few that `dvc metrics` compares)

Every section works without what the stages before it have not made yet, and says so. A row of this stage is a video of
the archive: `ok` when it was measured or there was nothing to measure, `failed` when a converted one could not be.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jinja2
import yaml

from facemill.embeddings import SAME_PERSON
from facemill.files import write_bytes, write_json
from facemill.reasons import Reason, State
from facemill.similarity import PSNR_CAP_DB
from facemill.version import VERSION
from tasks.catalogue import Data
from tasks.licences import licences
from tasks.params import Params
from tasks.report_page.dataset import DatasetSection, gather_dataset
from tasks.report_page.plots import write_plots
from tasks.report_page.stages import gather_stages, stages_metrics
from tasks.report_page.thumbnails import Album
from tasks.report_page.training import TrainingSection, gather_training
from tasks.report_page.videos import VideosSection, gather_videos
from tasks.work.terminal import say
from tasks.work.totals import Totals

_TEMPLATES = Path(__file__).parent / "report_page"


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Writes `report.html`, `measures.json` and `metrics.json` to `data/report`. `retry` changes nothing: all is always
    made anew.

    Raises:
        FacemillError: a table or file of another version, or a full disk.
    """
    start = time.monotonic()
    album = Album()
    # In this order pictures are given bytes of the page's budget; the videos are what most people open it for.
    videos = gather_videos(root, params, album)
    training = gather_training(root, album)
    dataset = gather_dataset(root, params, album)
    stages = gather_stages(root)
    measures: dict[str, Any] = {
        "dataset": dataset.metrics() if dataset else {},
        "training": training.metrics() if training else {},
        "stages": stages_metrics(stages),
        **(videos.metrics() if videos else {}),
    }
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=params.report.title,
            params=params,
            parameters=yaml.safe_dump(_deciding(params), sort_keys=False, allow_unicode=True),
            dataset=dataset,
            training=training,
            videos=videos,
            stages=stages,
            bounds=licences(params, root),
            tiles=_tiles(dataset, training, videos),
            same_person=SAME_PERSON,
            psnr_cap=PSNR_CAP_DB,
            refused=album.refused,
            facemill_version=VERSION,
            style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        )
    )
    for sentence in [*(one.sentence for one in dataset.readiness), *dataset.lacks] if dataset else []:
        say(f"report: {sentence}")
    write_bytes(root / Data.REPORT, page.encode())
    write_json(root / Data.REPORT_MEASURES, measures)
    write_json(root / Data.REPORT_METRICS, _headline(measures))
    write_plots(root)
    return _totals(videos, time.monotonic() - start)


def _headline(measures: dict[str, Any]) -> dict[str, Any]:
    """The numbers that two runs are compared by; how many they are does not depend on the data."""
    dataset, training = measures["dataset"], measures["training"]
    return {
        "dataset": {name: dataset[name] for name in ("accepted", "train", "val") if name in dataset},
        "training": {name: training[name] for name in ("steps",) if name in training},
        "videos": measures.get("videos", {}),
        "swap": measures.get("swap", {}),
    }


def _deciding(params: Params) -> dict[str, Any]:
    """The parameters that make this stage stale; others may have any value by the time that the page is read."""
    from tasks.stages import STAGES

    groups = params.model_dump(mode="json")
    return {name: groups[name] for name in groups if name in STAGES["report"].params}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"n": _whole, "f": _fixed, "short": _short}
    return environment


def _tiles(
    dataset: DatasetSection | None, training: TrainingSection | None, videos: VideosSection | None
) -> list[dict[str, str]]:
    """The few numbers on top."""
    tiles = []
    if dataset:
        counts = dataset.metrics()
        note = f"{_whole(counts['train'])} to train with, {_whole(counts['val'])} to validate with"
        tiles.append({"label": "faces accepted", "value": _whole(counts["accepted"]), "note": note})
    if training and "steps" in training.model:
        note = ", ".join(str(training.model[key]) for key in ("name", "preset") if key in training.model)
        tiles.append({"label": "training steps", "value": _whole(training.model["steps"]), "note": note})
    if videos:
        unhappy = videos.states["rejected"] + videos.states["failed"]
        note = f"{_whole(unhappy)} with a reason why not" if unhappy else "all of the archive"
        value = f"{_whole(videos.states['ok'])} of {_whole(videos.total)}"
        tiles.append({"label": "videos converted", "value": value, "note": note})
        frames = videos.frames
        note = f"of {_whole(frames['in'])}; {_whole(frames['failed'])} failed"
        tiles.append({"label": "frames swapped", "value": _whole(frames["swapped"]), "note": note})
    if videos and videos.overall.frames:
        medians = videos.overall.medians
        note = f"was {medians['new_before']:.2f}; under {SAME_PERSON} is the same person"
        tiles.append({"label": "distance to the new face", "value": f"{medians['new_after']:.2f}", "note": note})
        if "landmark_error" in medians:
            note = "of the eyes' distance; less keeps more of the expression"
            tiles.append({"label": "landmark error", "value": f"{medians['landmark_error']:.1f} %", "note": note})
    return tiles


def _totals(videos: VideosSection | None, seconds: float) -> Totals:
    if videos is None or not videos.total:
        return Totals("report", 0, {}, seconds)
    counts: dict[str, dict[str, int]] = {State.OK: {"": videos.total - videos.unmeasured}}
    if videos.unmeasured:
        counts[State.FAILED] = {Reason.UNREADABLE: videos.unmeasured}
    return Totals("report", videos.total, counts, seconds)


def _whole(value: float | None) -> str:
    """1234 -> 1,234; nothing for None."""
    return "" if value is None else f"{value:,.0f}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _short(value: float) -> str:
    """Four significant digits, whole numbers whole."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"
