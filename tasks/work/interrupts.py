"""The first Ctrl-C lets what workers are at end, the second stops at once.

For pieces of work that take minutes, such as the segments of a video: what was nearly done is not thrown away. SIGTERM,
by which services and flows are ended, stops at once as everywhere.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tasks.work.cluster import Pool
from tasks.work.failures import Interrupted
from tasks.work.terminal import say


@contextmanager
def finishing(pool: Pool, what: str) -> Iterator[None]:
    """The first Ctrl-C in the block raises KeyboardInterrupt as soon as all that is at work in the pool has ended.

    Outside the main thread, which alone is told, and where Ctrl-C is ignored, nothing changes.

    Args:
        what: is at work, for the message: "segments".
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (signal.SIG_IGN, None):
        yield
        return

    told = f"\nEnds when the {what} at work are done. Ctrl-C once more stops at once, and they are lost."

    def finish(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        # in a thread, since a handler may have interrupted this one while it printed
        threading.Thread(target=say, args=(told,), kwargs={"error": True}, daemon=True).start()
        pool.finish()

    signal.signal(signal.SIGINT, finish)
    try:
        yield
    except Interrupted:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, previous)
