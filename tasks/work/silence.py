"""Work that has stopped getting on ends with the worker that it holds.

A Dask worker cannot be made to give up a piece of work, and a decoder that turns in circles does so for ever. Whoever
works through a video therefore says with every frame that it gets on (`beater`); a worker that has been silent for too
long tells the scheduler where it stands and ends its own process. For the pool that is a worker that died: the piece is
tried once more, alone, and is a row with the reason `worker_hung` if it is silent again.

Code that hangs without letting other threads run, this watch among them, is found by Dask itself, which restarts
workers that it has not heard of for minutes (`distributed.scheduler.worker-ttl`).
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKS = 20
"""So often within its limit a watch looks at the clock."""
_here = threading.local()


def beater() -> Callable[[], None]:
    """What the piece of work in this thread calls whenever it has got on; from the first call of `beater` to the end
    of the piece it is watched. Where no worker works, nobody is."""
    watch: _Watch | None = getattr(_here, "watch", None)
    if watch is None:
        return lambda: None
    watch.start()
    return watch.beat


@contextmanager
def watched(limit_s: float, on_silence: Callable[[str], None]) -> Iterator[None]:
    """Watches the piece of work of the block, if that wants it.

    Args:
        limit_s: so long it may be silent.
        on_silence: called from another thread, once, with the place in the code where it stands.
    """
    watch = _here.watch = _Watch(limit_s, on_silence)
    try:
        yield
    finally:
        _here.watch = None
        watch.over.set()


class _Watch:
    def __init__(self, limit_s: float, on_silence: Callable[[str], None]) -> None:
        self.over = threading.Event()
        self._limit_s, self._on_silence = limit_s, on_silence
        self._whose = threading.get_ident()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.beat()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="silence", daemon=True)
            self._thread.start()

    def beat(self) -> None:
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(self._limit_s / _LOOKS):
            if time.monotonic() - self._last > self._limit_s:
                self._on_silence(f"nothing for {self._limit_s:g} s, in {_place(self._whose)}")
                return


def _place(thread: int) -> str:
    """Function and line in which a thread is; the file without its folder, which is of this machine alone."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "a thread that has ended"
    last = traceback.extract_stack(frame)[-1]
    return f"{last.name} ({Path(last.filename).name}:{last.lineno})"
