"""The pool over a Dask client, whatever cluster that has: pieces of work as futures, each opened where it arrives.

Workers import this module at their start.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from facemill.errors import FacemillError
from tasks.work.failures import Interrupted, Packed, WorkerDied, WorkerSilent, attempt, unpack
from tasks.work.silence import watched

MAX_IN_FLIGHT_PER_WORKER = 3
_SILENT = "facemill-silent"
"""The topic of Dask's events under which a worker tells which piece of work it ends with."""
_DELIVERY_S = 1.0

Results = Generator[tuple[int, Any], None, None]
"""What `tasks.work.cluster.Pool.run` yields."""


class DaskPool:
    """Dask futures, with a bounded number in flight so that a long plan does not sit in the scheduler's memory."""

    def __init__(self, connect: Callable[[], Any], silence_s: float) -> None:
        """
        Args:
            connect: opens the client, at the first work.
            silence_s: limit for work that says that it gets on (`tasks.work.silence`).
        """
        self._connect, self._silence_s = connect, silence_s
        self._gate = _Gate()
        self._flying: dict[str, Any] = {}  # key → future, of all threads

    @cached_property
    def client(self) -> Any:
        return self._connect()

    @property
    def workers(self) -> int:
        with self._connected():
            info = self.client.scheduler_info(n_workers=-1)
            if "workers" not in info:  # the answer of a client that was closed meanwhile
                raise OSError("the connection is closed")
            return max(1, len(info["workers"]))

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Results:
        from distributed import as_completed

        waiting = enumerate(arguments)
        flying: dict[str, tuple[int, Any]] = {}
        done = as_completed(loop=self.client.loop, raise_errors=False)
        try:
            while True:
                room = self.workers * MAX_IN_FLIGHT_PER_WORKER  # asked each time: workers come and go
                while len(flying) < room and self._gate.enter(wait=not flying):
                    index, argument = next(waiting, (-1, None))
                    if index < 0:
                        self._gate.leave()
                        break
                    future = self._submit(function, argument)
                    flying[future.key] = (index, future)
                    self._flying[future.key] = future
                    done.add(future)
                if not flying:
                    return
                index, future = flying.pop(next(done).key)
                del self._flying[future.key]
                try:  # at work until its result is here: if the worker that keeps it dies first, it is worked anew
                    if future.cancelled() and self._gate.finishing:
                        continue
                    result = self._take(future)
                finally:
                    self._gate.leave()
                yield index, result
        finally:
            self._gate.leave(len(flying))
            for key in flying:
                del self._flying[key]
            self._cancel([future for _, future in flying.values()])

    def run_alone(self, function: Callable[[Any], Any], argument: Any) -> Any:
        with self._gate.alone():
            future = self._submit(function, argument)
            try:
                return self._take(future)
            finally:
                self._cancel([future])

    def finish(self) -> None:
        """What workers are at ends, nothing else begins: whoever has more to do gets `Interrupted`. May be called by a
        signal's handler."""
        self._gate.finishing = True
        if "client" in self.__dict__:
            threading.Thread(target=self._cancel_waiting, name="finish", daemon=True).start()

    def _cancel_waiting(self) -> None:
        with suppress(FacemillError, CancelledError), self._connected():
            # not `processing`: that has what waits in a worker, too
            begun = {key for keys in self.client.run(_executing).values() for key in keys}
            self.client.cancel([future for key, future in list(self._flying.items()) if key not in begun])

    def close(self) -> None:
        """What other threads wait for ends with CancelledError; called before the cluster is closed."""
        self._gate.close()

    def _submit(self, function: Callable[[Any], Any], argument: Any) -> Any:
        from distributed.protocol import pickle

        # As bytes, so that what cannot be loaded there is an error of the function and not one of Dask's.
        call = pickle.dumps((function, argument))
        with self._connected():
            return self.client.submit(_in_worker, call, self._silence_s, pure=False)

    def _take(self, future: Any) -> Any:
        """Waits for the result or error of a future, and forgets it."""
        from distributed.scheduler import KilledWorker

        with self._connected():
            error = future.exception()
            result = unpack(future.result()) if error is None else None
            future.release()
        if isinstance(error, KilledWorker):
            if told := self._silence_of(future.key):
                return WorkerSilent(told)
            return WorkerDied(f"{error.last_worker.address} ended while it worked on this")
        if error is not None:  # nothing that the function raised: that comes packed
            raise FacemillError(
                f"cluster: it could not run the work ({type(error).__name__}: {error}): see that its workers live and "
                "have this version of facemill, then run the same command again; what was finished is kept"
            ) from error
        return result

    def _silence_of(self, key: str) -> str | None:
        """What a worker said about a piece of work with which it ended itself."""
        with self._connected():
            events = self.client.get_events(_SILENT)
        return next((str(told["told"]) for _, told in events if told["key"] == key), None)

    def _cancel(self, futures: Sequence[Any]) -> None:
        """What is in flight is not wanted any more. Of a connection that is gone there is nothing to cancel."""
        with suppress(FacemillError, CancelledError), self._connected():
            self.client.cancel(list(futures), force=True)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        from distributed.client import ClosedClientError

        try:
            yield
        except (CancelledError, asyncio.CancelledError, ClosedClientError, OSError, TimeoutError) as lost:
            if self._gate.closed:
                raise CancelledError("the pool was closed") from lost
            raise FacemillError(
                "cluster: the connection to the scheduler was lost: see whether it still runs, then run the same "
                "command again; what was finished is kept"
            ) from lost


class _Gate:
    """Lets any number of pieces work at once, or one of them alone; for all threads that share a pool."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work = 0
        self._want_alone = 0
        self._alone = False
        self.closed = False
        self.finishing = False  # set without the lock, by a signal's handler: nobody waits for it

    def enter(self, *, wait: bool) -> bool:
        """Counts one more at work. Whoever wants to be alone goes first: until then False, or a wait.

        Only who has nothing at work may wait, or the others would wait for its pieces for ever.
        """
        with self._changed:
            if (self._want_alone or self.finishing) and not wait:
                return False
            self._changed.wait_for(lambda: self.closed or not self._want_alone)
            self._check()
            self._at_work += 1
            return True

    def leave(self, count: int = 1) -> None:
        with self._changed:
            self._at_work -= count
            self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._want_alone += 1
            try:
                self._changed.wait_for(lambda: self.closed or not (self._at_work or self._alone))
                self._check()
            except BaseException:  # Ctrl-C too: else all others would wait for ever
                self._want_alone -= 1
                raise
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._want_alone -= 1
                self._alone = False
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _check(self) -> None:
        if self.closed:
            raise CancelledError("the pool was closed")
        if self.finishing:
            raise Interrupted


def _executing(dask_worker: Any) -> list[str]:
    return [task.key for task in dask_worker.state.executing]


def _in_worker(call: bytes, silence_s: float) -> Packed:
    from distributed.worker import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def end(told: str) -> None:
        try:
            worker.log_event(_SILENT, {"key": key, "told": told})
            time.sleep(_DELIVERY_S)
        finally:
            os._exit(1)

    with watched(silence_s, end):
        return attempt(_call, call)


def _call(call: bytes) -> Any:
    import cv2
    from distributed.protocol import pickle

    # At each call, since workers join late and are restarted; the nanny's OMP_NUM_THREADS does it for torch.
    cv2.setNumThreads(1)
    function, argument = pickle.loads(call)
    return function(argument)
