"""What the stages keep in a project, and where: name → path below the project's folder, and the schema of a table.

    tables.read_table(root / Data.RAW, RAW)

A member is the path as dvc.yaml and dvc.lock have it, with forward slashes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line reads the names, and must answer at once
    from facemill.schema import TableSchema


class Data(StrEnum):
    """Tables, folders and files of a project. What `schema` gives a schema for is a table, a folder of Parquet."""

    INVENTORY = "data/inventory.json"
    ALL = "data"
    DECISIONS = "data/decisions.json"
    WEIGHTS = "data/weights"
    CODE = "data/code"
    RAW = "data/raw"
    UNIQUE = "data/unique"
    FACES = "data/faces"
    DATASET = "data/dataset"
    VIDEOS = "data/videos"
    ARCHIVE = "data/archive"
    MODEL = "data/model"
    MODEL_META = "data/model/model.json"
    TRAIN = "data/train"
    SEGMENTS = "data/segments"
    TRACKS = "data/tracks"
    TRACK_POINTS = "data/track_points"
    CONVERTED = "data/converted"
    CONVERSIONS = "data/conversions"
    EXPORT = "data/export"
    METRICS = "data/metrics"
    REPORT = "data/report/report.html"
    REPORT_MEASURES = "data/report/measures.json"
    REPORT_PLOTS = "data/report/plots"
    REPORT_METRICS = "data/report/metrics.json"

    @property
    def schema(self) -> TableSchema[Any] | None:
        """What the rows are; None for what is no table. A table's folder is called as its schema is."""
        from facemill.schema import ALL

        return ALL.get(self.removeprefix("data/"))


def code_file(stage: str) -> str:
    """The file that says which code and which packages decide a stage's bytes."""
    return f"{Data.CODE}/{stage}.json"


def weights_file(stage: str) -> str:
    """The file that says what lies in the weights that a stage's parameters name."""
    return f"{Data.WEIGHTS}/{stage}.json"


def metrics_file(stage: str) -> str:
    """The file of a stage's numbers, which `dvc metrics` reads."""
    return f"{Data.METRICS}/{stage}.json"


def video_part(sha256: str) -> str:
    """The name of a video's part in the tables of tracks, without `.parquet`: the beginning of its SHA-256."""
    return sha256[:32]
