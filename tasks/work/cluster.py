"""Where the shards are worked: a Dask cluster by parameters, or this very process.

`open_pool` hides which one it is behind three verbs, so that a stage reads the same and a benchmark can time the bare
loop. Workers are processes with one thread each: the libraries' own threads are switched off, or two workers would
fight over two cores.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

from facemill.errors import FacemillError
from tasks.params import ClusterParams

MAX_IN_FLIGHT_PER_WORKER = 3


class Pool(Protocol):
    """Runs a function over arguments and yields (index, result or exception) as they finish."""

    @property
    def workers(self) -> int: ...

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]: ...


@contextmanager
def open_pool(params: ClusterParams) -> Iterator[Pool]:
    """The pool that the parameters name. A cluster starts with the first work, so a stage without any starts none.

    Raises:
        FacemillError: (at the first work) no scheduler there, or a cluster class that cannot be loaded.
    """
    if params.kind == "inline":
        yield InlinePool()
        return
    with ExitStack() as opened:
        yield DaskPool(lambda: opened.enter_context(_open_client(params)))


def one_thread() -> None:
    """Switches the libraries' own threads off in this process. Dask's nanny has set OMP_NUM_THREADS before."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class InlinePool:
    """This process, one argument after another."""

    workers = 1

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for index, argument in enumerate(arguments):
            try:
                yield index, function(argument)
            except Exception as error:  # the same contract as a worker: a shard's error is a value
                yield index, error


class DaskPool:
    """Dask futures, with a bounded number in flight so that a long plan does not sit in the scheduler's memory."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    @cached_property
    def client(self) -> Any:
        return self._connect()

    @property
    def workers(self) -> int:
        return max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        from distributed import as_completed

        with self.client.as_current():
            waiting = iter(enumerate(arguments))
            indices: dict[str, int] = {}
            done = as_completed(raise_errors=False)
            try:
                self._top_up(function, waiting, indices, done)
                for future in done:
                    if future.cancelled():
                        raise FacemillError("the connection to the cluster was lost: run again, finished work is kept")
                    index = indices.pop(future.key)
                    error = future.exception()
                    result = error if error is not None else future.result()
                    future.release()
                    self._top_up(function, waiting, indices, done)
                    yield index, result
            finally:
                self.client.cancel([*done.futures], force=True)

    def _top_up(
        self, function: Callable[[Any], Any], waiting: Iterator[tuple[int, Any]], indices: dict[str, int], done: Any
    ) -> None:
        room = self.workers * MAX_IN_FLIGHT_PER_WORKER - len(indices)  # asked each time: workers come and go
        for index, argument in islice(waiting, max(0, room)):
            future = self.client.submit(_in_worker, function, argument, pure=False)
            indices[future.key] = index
            done.add(future)


def _in_worker(function: Callable[[Any], Any], argument: Any) -> Any:
    # At each call, since workers join late and are restarted; the nanny's OMP_NUM_THREADS does it for torch.
    import cv2

    cv2.setNumThreads(1)
    return function(argument)


@contextmanager
def _open_client(params: ClusterParams) -> Iterator[Any]:
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.no-workers-timeout": f"{params.start_timeout_s}s",  # else it waits for ever
        "distributed.scheduler.allowed-failures": 1,
        "distributed.scheduler.worker-saturation": 1.0,  # shards are coarse: none waits behind another
        # Dask's 64 KiB switches off glibc's own thresholds: each large array is mapped anew, 9 % of an extraction
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        "distributed.comm.timeouts.connect": f"{params.start_timeout_s}s",
        "distributed.logging.distributed": "error",
    }
    with dask.config.set(settings), ExitStack() as opened:
        try:
            cluster = params.address
            if params.kind != "address":
                cluster = _make_cluster(params)
                opened.callback(cluster.close, timeout=30)
            client = opened.enter_context(Client(cluster, timeout=params.start_timeout_s, set_as_default=False))
            client.wait_for_workers(1, timeout=params.start_timeout_s)
        except (OSError, TimeoutError) as error:
            raise FacemillError(
                f"cluster: no scheduler or no worker at {params.address or params.kind} ({error}): start it, or take "
                "`cluster: {kind: local}`"
            ) from error
        yield client


def _make_cluster(params: ClusterParams) -> Any:
    if params.kind == "class":
        module, _, name = (params.cluster_class or "").rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)(**params.options)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise FacemillError(
                f"cluster: {params.cluster_class!r} with these options does not open ({error})"
            ) from error
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=params.workers or os.cpu_count() or 1,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",  # a scheduler runs whatever it is sent: loopback only
        dashboard_address="127.0.0.1:0",  # any free port: several clusters may run on one machine
        silence_logs=logging.ERROR,
        memory_limit=params.memory_limit,
        **params.options,
    )
