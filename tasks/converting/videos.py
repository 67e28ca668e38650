"""Videos on a pool of workers: each is tracked if it has to be, cut into segments, converted and joined.

    video ──► tracked already, or `track` here ──► pieces ──► workers, in any order ──► joined in one of them

As many videos are open at a time as keep all workers busy; a long one alone keeps them all busy with its segments.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from facemill.errors import InputError
from facemill.swap.job import (
    ConversionJob,
    Ending,
    Made,
    Outcome,
    Piece,
    TrackedInput,
    conclude,
    convert_piece,
    failed,
    pieces_of,
)
from tasks.work.cluster import InlinePool, Pool, run_all
from tasks.work.failures import Interrupted, Lost
from tasks.work.silence import beater

FindTracks = Callable[[Pool, ConversionJob], TrackedInput]
"""Finds where a job's video was tracked; one that was not is tracked now. Raises InputError where it cannot be."""
Listener = Callable[[dict[str, Any]], None]
"""Is told how far a run is, in the words of `tasks.work.progress`: done, total, unit, note, rate, seconds_left."""


class FrameCount:
    """How many frames of a run are converted; safe in several threads.

    Frames that need no conversion, since nobody in their video is replaced or it has failed, leave the total as soon as
    that is known: else they would pass for speed, and the time that is left would be too short.
    """

    def __init__(self, jobs: Iterable[ConversionJob], *listeners: Listener) -> None:
        """
        Args:
            jobs: what is to be done; their frames are what containers say.
            listeners: are told how far it is, whenever that changes.
        """
        self._left = {job.outcome: job.frames for job in jobs}
        self._done, self._total = 0, sum(self._left.values())
        self._listeners = listeners
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def add(self, job: ConversionJob, frames: int) -> None:
        """A piece of a job has ended."""
        with self._lock:
            self._done += frames
            self._left[job.outcome] -= frames
            self._tell(job)

    def end(self, job: ConversionJob) -> None:
        """A job has ended, however."""
        with self._lock:
            self._total -= self._left.pop(job.outcome, 0)
            self._tell(job)

    def _tell(self, job: ConversionJob) -> None:
        rate = self._done / max(time.monotonic() - self._start, 1e-9)
        values = {"done": self._done, "total": self._total, "unit": "frames", "note": job.video, "rate": rate}
        values["seconds_left"] = (self._total - self._done) / rate if self._done else None
        for listener in self._listeners:
            listener(values)


def convert_video(pool: Pool, job: ConversionJob, tracking: FindTracks, count: FrameCount) -> Outcome:
    """Converts one video with the workers of a pool and records what came of it.

    Raises:
        FacemillError: what no other video would survive either, such as a full disk.
    """
    try:
        return _converted(pool, job, tracking, count)
    finally:
        count.end(job)


def _converted(pool: Pool, job: ConversionJob, tracking: FindTracks, count: FrameCount) -> Outcome:
    try:
        tracked = tracking(pool, job)
        pieces = pieces_of(job, tracked)
    except InputError as error:
        return failed(job, error.reason, error.detail)
    receipts: dict[int, str] = {}
    for index, result in run_all(pool, convert_watched, pieces):
        if isinstance(result, Lost):
            return failed(job, result.reason, result.detail)
        receipts[index] = result.receipt
        count.add(job, result.frames)
    ending = Ending(job, tracked, tuple(receipts[index] for index in range(len(pieces))))
    [(_, result)] = run_all(pool, conclude, [ending])
    if isinstance(result, Lost):
        return failed(job, result.reason, result.detail)
    outcome: Outcome = result
    return outcome


def convert_watched(piece: Piece) -> Made:
    return convert_piece(piece, on_frame=beater())


def convert_videos(
    pool: Pool, jobs: Iterable[ConversionJob], tracking: FindTracks, count: FrameCount
) -> Iterator[tuple[ConversionJob, Outcome]]:
    """Converts videos, several at a time; yields each with what came of it, in the order in which they end.

    Raises:
        FacemillError: as `convert_video`; the pool must be closed then, which ends what other threads wait for.
        Interrupted: the pool was told to finish; what was at work has ended, segments that are done are kept.
    """
    if isinstance(pool, InlinePool):
        for job in jobs:
            yield job, convert_video(pool, job, tracking, count)
        return
    ended: queue.SimpleQueue[tuple[ConversionJob, Any]] = queue.SimpleQueue()

    def work(job: ConversionJob) -> None:
        try:
            ended.put((job, convert_video(pool, job, tracking, count)))
        except BaseException as error:  # whatever it is: the thread that waits raises it
            ended.put((job, error))

    waiting, running, window = iter(jobs), 0, videos_at_once(pool)
    interrupted: Interrupted | None = None
    threads = ThreadPoolExecutor(window, thread_name_prefix="video")
    try:
        while True:
            for fresh in islice(waiting, window - running if interrupted is None else 0):
                threads.submit(work, fresh)
                running += 1
            if not running:
                break
            job, result = ended.get()
            running -= 1
            if isinstance(result, Interrupted):
                interrupted = result  # so will be the others, each as soon as nothing of it is at work
                continue
            if isinstance(result, BaseException):
                raise result
            yield job, result
        if interrupted is not None:
            raise interrupted
    finally:
        # not waited for: what they wait for ends when the pool is closed
        threads.shutdown(wait=False, cancel_futures=True)


def videos_at_once(pool: Pool) -> int:
    """How many videos are open at a time, so that no worker waits while one is tracked, joined or copied."""
    return 1 if isinstance(pool, InlinePool) else 2 * pool.workers
