"""How far a long stage is: a bar for a person, lines for a log, a small file for a Prefect page.

The file is named by FACEMILL_PROGRESS and replaced at most once a second; whoever started the stage may read it at any
time. Nothing else depends on it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from facemill.errors import FacemillError
from facemill.files import write_bytes
from tasks.work.terminal import console, one_line, say

PROGRESS_FILE_VARIABLE = "FACEMILL_PROGRESS"
_FILE_EVERY_S = 1.0
_LINE_EVERY_S = 10.0


class Progress:
    """Counts what is done of a total, which may still change, and shows it. Made by `track`."""

    def __init__(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, done
        self._started_at_done, self._start = done, time.monotonic()
        self._last_file = self._last_line = 0.0
        path = os.environ.get(PROGRESS_FILE_VARIABLE)
        self._file = Path(path) if path else None
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = None if self._bar is None else self._bar.add_task(stage, total=total, completed=done, note="")

    @property
    def rate(self) -> float:
        """Units a second since this run began."""
        return (self.done - self._started_at_done) / max(time.monotonic() - self._start, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds to what is done; `note` is shown beside it."""
        note = one_line(note)
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, total=self.total, note=note)
        self._tell(note)

    def _tell(self, note: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._file is not None and (last or now - self._last_file >= _FILE_EVERY_S):
            self._last_file = now
            self._write_file(self._file, note)
        if self._bar is None and (last or now - self._last_line >= _LINE_EVERY_S):
            self._last_line = now
            left = "" if self.seconds_left is None or last else f", {self.seconds_left:.0f} s left"
            tail = f" {note}" if note else ""
            say(f"{self.stage}: {self.done}/{self.total} {self.unit}, {self.rate:.1f}/s{left}{tail}")

    def _write_file(self, path: Path, note: str) -> None:
        values = {"stage": self.stage, "done": self.done, "total": self.total, "unit": self.unit, "note": note}
        values |= {"rate": round(self.rate, 3), "seconds_left": self.seconds_left}
        try:
            write_bytes(path, json.dumps(values).encode(), durable=False)
        except (OSError, FacemillError):
            self._file = None  # a page without progress is no reason to stop the work


@contextmanager
def track(stage: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Shows progress while the block runs.

    Args:
        stage: what is running, in a word.
        total: how many units there are.
        unit: their name in the plural.
        done: how many were finished by an earlier run.
    """
    progress = Progress(stage, total, unit, done)
    if progress._bar is None:
        try:
            yield progress
        finally:
            progress._tell("", last=True)
        return
    with progress._bar:
        try:
            yield progress
        finally:
            progress._tell("", last=True)


def _bar() -> RichProgress:
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return RichProgress(*columns, console=console(error=True))
