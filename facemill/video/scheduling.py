"""Encoders that give themselves the whole machine.

SVT-AV1, where it may (as root, so in most containers), makes its threads and the one that opens it realtime, of the
highest priority: nothing else on those cores runs while they work, the processes that the caller starts inherit it, and
the caller stays so when the film is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """This thread, and those that the block starts, are scheduled as this one was before the block.

    Elsewhere than on Linux it does nothing.
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = set(os.listdir(_THREADS))
    try:
        yield
    finally:
        for thread in ("0", *set(os.listdir(_THREADS)) - before):  # 0 is this one
            with suppress(ProcessLookupError):  # ended in the meantime
                os.sched_setscheduler(int(thread), policy, parameters)
