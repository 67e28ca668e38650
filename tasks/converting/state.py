"""How far a conversion is, for whoever asks from another shell while it runs or after it: `facemill status`.

A run writes down once what it has to do (`state.json`) and every other second how far it is (`progress.json`). What
became of each video is read where it stands anyway: its outcome, and the receipts of its segments.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import read_json, read_object, write_bytes, write_json
from facemill.locks import is_locked
from facemill.reasons import Reason
from facemill.schema import ConversionRow
from facemill.swap.job import ConversionJob

STATE_FILE, PROGRESS_FILE = "state.json", "progress.json"
_EVERY_S = 2.0


class VideoStage(StrEnum):
    """Where a video of a conversion is."""

    CONVERTED = "converted"
    PASSED_ON = "passed on"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"


@dataclass(frozen=True)
class VideoStatus:
    """One video: where it is, how many of how many frames are converted, and the reason if it has failed."""

    video: str
    stage: VideoStage
    frames_done: int
    frames: int
    reason: str = ""


@dataclass(frozen=True)
class ConversionStatus:
    """All videos of a conversion; whether a run is at work on them now, and how long it will take in seconds."""

    videos: tuple[VideoStatus, ...]
    at_work: bool
    seconds_left: float | None
    frames_per_second: float | None

    def count(self) -> Counter[VideoStage]:
        """How many videos are where."""
        return Counter(video.stage for video in self.videos)


class Journal:
    """Writes down what a run has to do and how far it is. A folder that cannot be written to costs only the status."""

    def __init__(self, folder: Path, jobs: Sequence[ConversionJob], lost: Sequence[ConversionRow], lock: Path) -> None:
        """
        Args:
            folder: where it is written.
            jobs: all of the plan, finished ones too.
            lost: the rows of videos that never get a job, since they cannot be opened.
            lock: the file that is locked while the run is at work.
        """
        self._file = folder / PROGRESS_FILE
        self._next = 0.0
        videos = [[job.video, job.outcome, job.parts, job.frames] for job in jobs]
        rows = [[row["video"], row["error"], row["detail"]] for row in lost]
        write_json(folder / STATE_FILE, {"lock": str(lock), "videos": videos, "lost": rows})
        self._file.unlink(missing_ok=True)

    def see(self, values: Mapping[str, Any]) -> None:
        """Takes how far the run is, as `FrameCount` tells it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        try:
            write_bytes(self._file, json.dumps(dict(values)).encode(), durable=False)
        except (OSError, FacemillError):
            self._next = float("inf")


def read_status(folder: Path) -> ConversionStatus:
    """The state of the conversion whose state lies in a folder.

    Raises:
        FacemillError: none has run there.
    """
    if not (folder / STATE_FILE).exists():
        raise FacemillError(
            f"no conversion has run in {folder.parent}: name the output folder of one (`facemill status OUT`)"
        )
    state = read_object(folder / STATE_FILE, "lock", "videos", "lost")
    lost = (_failed(video, error, detail, 0) for video, error, detail in state["lost"])
    videos = (*(_status(*entry) for entry in state["videos"]), *lost)
    at_work = is_locked(Path(state["lock"]))
    try:
        progress = read_json(folder / PROGRESS_FILE) if at_work else {}
    except FacemillError:  # no frame is done yet
        progress = {}
    return ConversionStatus(videos, at_work, progress.get("seconds_left"), progress.get("rate"))


def _status(video: str, outcome: str, parts: str, frames: int) -> VideoStatus:
    if Path(outcome).exists():
        return _ended(video, read_json(Path(outcome)), frames)
    done = sum(_frames_of(path) for path in Path(parts).glob("*.json"))
    begun = Path(parts).is_dir()
    return VideoStatus(video, VideoStage.RUNNING if begun else VideoStage.WAITING, done, frames)


def _ended(video: str, outcome: Mapping[str, Any], frames: int) -> VideoStatus:
    receipt = outcome.get("receipt")
    if receipt is None:
        return _failed(video, outcome["error"], outcome.get("detail"), frames)
    stage = VideoStage.PASSED_ON if receipt["passed_on"] else VideoStage.CONVERTED
    return VideoStatus(video, stage, receipt["frames_out"], receipt["frames_out"])


def _failed(video: str, error: str, detail: str | None, frames: int) -> VideoStatus:
    return VideoStatus(video, VideoStage.FAILED, 0, frames, f"{error}: {detail or Reason(error).sentence}")


def _frames_of(receipt: Path) -> int:
    try:
        return len(read_json(receipt)["part"]["pts"])
    except (FacemillError, KeyError, TypeError):  # being written, or joined and gone
        return 0
