"""The report's section on the training: what was trained, how the losses fell, what the net drew on the way."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from facemill.files import read_object
from facemill.measures import spread
from facemill.media_files import PICTURE_SUFFIXES
from tasks.catalogue import Data
from tasks.report_page.charts import Series, line_chart
from tasks.report_page.thumbnails import Album

PREVIEW_PX, EARLIER_PX = 1100, 420
EARLIER_PREVIEWS = 4
MOST_SERIES = 8
"""In one chart, which has as many colours."""
_FAMILIES = {
    "train_loss": "Training loss",
    "val_loss": "Validation loss",
    "val_ssim": "SSIM of held-out faces drawn as themselves",
    "val_psnr": "PSNR of held-out faces drawn as themselves, dB",
    "val_identity_distance": "Distance of swaps to the person they should be",
    "val_landmark_error": "How far swaps move the landmarks, % of the eyes' distance",
}
_REFERENCES = "references"


@dataclass(frozen=True)
class Curve:
    """A chart of series that belong together, with their last values."""

    heading: str
    chart: Markup
    legend: list[tuple[str, float]]


@dataclass(frozen=True)
class TrainingSection:
    model: dict[str, Any]
    """`model.json` without the embeddings."""
    curves: list[Curve]
    final: dict[str, float]
    last_preview: tuple[str, str] | None
    """(caption, data URI)"""
    earlier_previews: list[tuple[str, str]]

    def metrics(self) -> dict[str, Any]:
        """Steps and last values as plain values."""
        kept: dict[str, Any] = {key: self.model[key] for key in ("name", "preset", "steps") if key in self.model}
        return {**kept, "final": {name: round(value, 6) for name, value in sorted(self.final.items())}}


def gather_training(root: Path, album: Album) -> TrainingSection | None:
    """Reads `data/model/model.json` and `data/train`; None where there is neither.

    Raises:
        FacemillError: model.json is there and broken.
    """
    described = root / Data.MODEL_META
    folder = root / Data.TRAIN
    if not described.is_file() and not folder.is_dir():
        return None
    model = {k: v for k, v in read_object(described).items() if k != _REFERENCES} if described.is_file() else {}
    history = read_history(folder)
    previews = sorted((p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES), key=_natural)
    shown = [(_caption(p), uri) for p in previews[-1:] if (uri := album.add_encoded(p.read_bytes(), PREVIEW_PX))]
    earlier = [
        (_caption(path), uri)
        for path in spread(previews[:-1], EARLIER_PREVIEWS)
        if (uri := album.add_encoded(path.read_bytes(), EARLIER_PX))
    ]
    final = {one.name: one.y[-1] for one in history}
    return TrainingSection(model, _curves(history), final, shown[0] if shown else None, earlier)


def read_history(folder: Path) -> list[Series]:
    """The curves that DVCLive keeps as tab-separated files below `plots/metrics`; a torn last line is left out.

    A series is named by the file's path below `metrics`, such as `train/loss_hopper`.
    """
    return [series for path in sorted(folder.rglob("*.tsv"), key=_natural) if (series := _read_series(path)).y]


def _read_series(path: Path) -> Series:
    parts = path.with_suffix("").parts
    name = "/".join(parts[parts.index("metrics") + 1 :]) if "metrics" in parts[:-1] else path.stem
    steps: list[float] = []
    values: list[float] = []
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            value = row.get(path.stem) or row.get(name) or next(reversed(row.values()), None)
            try:
                step, number = float(row["step"] or ""), float(value or "")
            except (KeyError, ValueError):
                continue
            if math.isfinite(number):
                steps.append(step)
                values.append(number)
    return Series(name, steps, values)


def _curves(history: Sequence[Series]) -> list[Curve]:
    """A chart for each family of series: `train_loss/…` together, `val_loss/…` together; a family of many losses, such
    as a GAN's, has one for each loss."""
    families: dict[str, list[Series]] = {}
    for one in history:
        families.setdefault(one.name.partition("/")[0], []).append(one)
    curves = []
    for family, members in families.items():
        heading = _FAMILIES.get(family, _words(family))
        parts = {"": members} if len(members) <= MOST_SERIES else _by_loss(members)
        for loss, series in parts.items():
            named = [
                Series(_words(one.name.removeprefix(f"{family}/").removeprefix(loss)), one.x, one.y) for one in series
            ]
            title = f"{heading}: {_words(loss.strip('/'))}" if loss else heading
            curves.append(Curve(title, line_chart(named, label=title), _last(named)))
    return curves


def _by_loss(members: Sequence[Series]) -> dict[str, list[Series]]:
    """`train_loss/edge/anna` and `train_loss/edge/bert` under `edge/`; a loss of one series stands under its name."""
    parts: dict[str, list[Series]] = {}
    for one in members:
        loss, slash, _ = one.name.partition("/")[2].partition("/")
        parts.setdefault(loss + slash if slash else "", []).append(one)
    return parts


def _last(series: Sequence[Series]) -> list[tuple[str, float]]:
    return [(one.name, one.y[-1]) for one in series]


def _words(name: str) -> str:
    """`train_loss/dssim/hopper` -> train loss, dssim, hopper."""
    return name.replace("_", " ").replace("/", ", ")


def _caption(path: Path) -> str:
    digits = re.findall(r"\d+", path.stem)
    return f"step {int(digits[-1]):,}" if digits else path.stem


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts step-9 before step-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.as_posix())]
