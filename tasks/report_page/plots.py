"""What `dvc plots` shows: long tables of few columns, which stay the same however many identities and losses there are.

How they are drawn stands in `.dvc/plots`, and which columns are which axis under `plots:` in dvc.yaml.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from facemill import schema, tables
from facemill.files import write_bytes
from tasks.catalogue import Data
from tasks.report_page.training import read_history

DISTANCE_BIN, YAW_BIN_DEG = 0.02, 5.0


def write_plots(root: Path) -> None:
    """Writes the tables; one whose stage has not run has its heading alone.

    - curves.tsv: step, curve (such as `val_loss/mae`), name (of whom), value
    - distances.tsv: identity, distance (the bin's lower end), faces; of collected faces to their identity's references
    - coverage.tsv: identity, yaw_deg (the bin's lower end), faces; of those that are trained with

    Raises:
        FacemillError: a table of another version.
    """
    folder = root / Data.REPORT_PLOTS
    folder.mkdir(parents=True, exist_ok=True)
    curves = [
        (f"{step:g}", *_curve_and_name(series.name), f"{value:g}")
        for series in read_history(root / Data.TRAIN / "curves")
        for step, value in zip(series.x, series.y, strict=True)
    ]
    _write(folder / "curves.tsv", ("step", "curve", "name", "value"), curves)
    columns = ["identity", "role", "distance", "yaw", "status"]
    there = (root / Data.DATASET).is_dir()
    rows = list(tables.iterate_rows(root / Data.DATASET, schema.DATASET, columns)) if there else []
    rows = [row for row in rows if row["role"] == "sample"]
    distances = ((row["identity"], row["distance"]) for row in rows)
    _write(folder / "distances.tsv", ("identity", "distance", "faces"), _counts(distances, DISTANCE_BIN))
    yaws = ((row["identity"], row["yaw"]) for row in rows if row["status"] == "ok")
    _write(folder / "coverage.tsv", ("identity", "yaw_deg", "faces"), _counts(yaws, YAW_BIN_DEG))


def _curve_and_name(series: str) -> tuple[str, str]:
    """The last part of a series' name is of whom it is: an identity, or one as another."""
    curve, _, name = series.rpartition("/")
    return (curve, name) if curve else (name, "all")


def _counts(values: Iterable[tuple[str, float | None]], width: float) -> list[tuple[str, ...]]:
    """How many values of each identity lie in each bin, empty ones between and at both ends included."""
    bins: dict[str, Counter[int]] = {}
    for identity, value in values:
        if value is not None and math.isfinite(value):
            bins.setdefault(identity, Counter())[math.floor(value / width)] += 1
    if not bins:
        return []
    first, last = min(map(min, bins.values())), max(map(max, bins.values()))
    return [
        (identity, f"{at * width:g}", str(counted[at]))
        for identity, counted in sorted(bins.items())
        for at in range(first - 1, last + 2)
    ]


def _write(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Without quotes, for DVC and spreadsheets: a tab or a line's end in a name becomes a space."""
    lines = ("\t".join(" ".join(value.split()) for value in row) for row in (heading, *rows))
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
