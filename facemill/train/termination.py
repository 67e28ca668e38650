"""Told to end: a signal is noted, so that the step is finished and saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def termination() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them.

    A second signal is not held back any more. Outside the main thread, where handlers cannot be set, nothing is caught.
    """
    told: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:
        previous.clear()
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
