"""What `facemill serve` and `facemill worker` have in common: they take runs until they are told to end.

What ends, ends in order: first the flows, each of which ends its stage and says how it ended; then the runs that could
not say so are put right (flows.runs). A server of our own ends after that, and has taken note of it all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectException

from facemill.errors import FacemillError
from facemill.processes import ProcessId, running_process, this_process
from flows.runs import put_right
from flows.server import Server
from flows.server_patience import asked_once
from tasks.work.callers import calling
from tasks.work.terminal import say

_LOOK_EVERY_S, _LOOK_AGAIN_S = 1.0, 0.1
_PUT_RIGHT_EVERY_S = 60.0
_FLOWS_END_S = 150.0
"""Told to end, a stage cleans up and a training saves; then the flow tells the server."""
_ENDS_S = 60.0
_SAME_SIGNAL_S = 5.0
"""systemd tells every process, and the process in front hands it on: that is one request to end."""


def stay(
    server: Server,
    client: SyncPrefectClient,
    take_runs: Callable[[], Coroutine[Any, Any, None]],
    ours: Callable[[], Sequence[DeploymentResponse]],
    *,
    alone: bool,
) -> None:
    """Takes runs until it is told to end, and puts right once a minute what has gone wrong.

    Args:
        server: kept alive meanwhile, if it is our own.
        client: of that server.
        take_runs: Prefect's loop, which runs in a thread of its own: there it leaves the signals alone.
        ours: the deployments that are worked on.
        alone: as `flows.runs.put_right` has it.

    Raises:
        FacemillError: the loop or the server has given up.
        KeyboardInterrupt: it was told to end, and has.
    """
    os.environ |= calling({})  # a flow looks at it, and ends when this process has ended
    with _told_to_end() as told:
        loop = _Loop(take_runs)
        due = time.monotonic()
        try:
            while not told.wait(_LOOK_EVERY_S):
                loop.check()
                server.keep()
                if time.monotonic() > due:
                    try_to_put_right(client, ours, alone=False)
                    due = time.monotonic() + _PUT_RIGHT_EVERY_S
        finally:
            _end_flows()
            loop.end()
            _end_flows()  # one that it has taken in the meantime
            try_to_put_right(client, ours, alone=alone, gone=this_process())
    raise KeyboardInterrupt


def try_to_put_right(
    client: SyncPrefectClient,
    ours: Callable[[], Sequence[DeploymentResponse]],
    *,
    alone: bool,
    gone: ProcessId | None = None,
) -> None:
    """Puts right what has gone wrong, and says it; a server that is away is asked again the next time."""
    try:
        with asked_once():
            for line in put_right(client, ours(), alone=alone, gone=gone):
                say(line)
    except (httpx.HTTPError, PrefectException) as error:
        say(f"the Prefect server is away ({error}): looks again", error=True)


def patient(asks: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """What a loop of Prefect's asks its server for, without an error where that is away: it asks again the next time.

    Prefect's own loops end after some errors in a row, and take the flows that run with them.
    """

    async def ask() -> None:
        try:
            await asks()
        except httpx.HTTPError:  # `try_to_put_right` says it once a minute
            return

    return ask


class _Loop:
    """A coroutine in a thread of its own."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="takes-runs", daemon=True)
        self._thread.start()
        self._ready.wait(_ENDS_S)

    def check(self) -> None:
        """Raises FacemillError: it has given up."""
        if not self._thread.is_alive():
            raise FacemillError(f"Prefect takes no runs any more ({self._error}): start the same command again")

    def end(self) -> None:
        """Cancels it, and waits for its end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_ENDS_S)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(self._work())
            self._ready.set()
            await self._task

        try:
            asyncio.run(main())
        except BaseException as error:  # told by `check`
            self._error = error


class _Told:
    """Whether this process has been told to end, as signals' handlers note it.

    No Event: a handler that is interrupted by another signal while it sets one waits for itself for ever.
    """

    def __init__(self) -> None:
        self.first_s: float | None = None

    def tell(self, number: int, frame: FrameType | None) -> None:
        """Told once more, it raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now
        elif now - self.first_s > _SAME_SIGNAL_S:
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> bool:
        """Returns as soon as it has been told, and after some seconds at the latest."""
        end = time.monotonic() + seconds
        while self.first_s is None and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_S)
        return self.first_s is not None


@contextmanager
def _told_to_end() -> Iterator[_Told]:
    """Notes that this process is told to end. Told once more, it ends its flows at once."""
    told = _Told()
    before = {number: signal.signal(number, told.tell) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_flows() -> None:
    """Tells the flows to end and waits until they have; those that do not are killed."""
    flows = _flows()
    if flows:
        say(f"ends {len(flows)} flow(s); finished parts are kept", error=True)
    for number, patience_s in ((signal.SIGTERM, _FLOWS_END_S), (signal.SIGKILL, _SAME_SIGNAL_S)):
        for each in flows:
            with suppress(ProcessLookupError):
                os.kill(each.pid, number)
        with suppress(KeyboardInterrupt):  # told once more: they are killed at once
            _wait_for(flows, patience_s)
        flows = [each for each in flows if each.is_alive]


def _wait_for(processes: Sequence[ProcessId], seconds: float) -> None:
    """Looks only: their exit codes are for Prefect, which has started them."""
    end = time.monotonic() + seconds
    while any(each.is_alive for each in processes) and time.monotonic() < end:
        time.sleep(_LOOK_AGAIN_S)


def _flows() -> list[ProcessId]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "prefect.engine" in child.cmdline() and (process := running_process(child.pid)):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found
