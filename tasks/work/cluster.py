"""Where the shards are worked: a Dask cluster by parameters, or this very process.

`open_pool` hides which one it is behind three verbs, so that a stage reads the same and a benchmark can time the bare
loop. Workers are processes with one thread each: the libraries' own threads are switched off, or two workers would
fight over two cores.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from facemill.errors import FacemillError
from facemill.files import is_full
from tasks.paths import with_home
from tasks.work.dask_pool import DaskPool, Results
from tasks.work.failures import Cut, Interrupted, WorkerDied, attempt_here, lost_to, unpack

if TYPE_CHECKING:  # workers import this module at their start, and need no parameters
    from tasks.params import ClusterParams

START_TRIES = 3


class Pool(Protocol):
    """Runs a function over arguments and yields (index, result or error) as they finish.

    An error is one of those in `tasks.work.failures`, whatever the function raised; `WorkerDied` where its process is
    gone. Results must pickle.

    Raises:
        FacemillError: the cluster itself failed: no worker left, the connection lost.
        CancelledError: the pool was closed by another thread.
        Interrupted: it was told to finish, and this was not at work yet.
    """

    @property
    def workers(self) -> int: ...

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Results: ...

    def run_alone(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """The same for one argument, while nothing else is at work in this pool, whichever thread wants it."""

    def finish(self) -> None:
        """What is at work ends, nothing else begins: `run` raises `Interrupted` where there would have been more."""


class NotStarted(FacemillError):
    """The cluster that the parameters name has no worker, after all that was tried."""


Parts = Callable[[Any], tuple[Callable[[Any], Any], Sequence[Any]]]


def run_all(
    pool: Pool, function: Callable[[Any], Any], arguments: Sequence[Any], parts: Parts | None = None
) -> Iterator[tuple[int, Any]]:
    """Runs pieces of work to their end, come what may: the one policy about errors and dead workers.

    A piece that raised is `Lost`. A piece whose worker died is tried once more, alone, so that it cannot be taken for
    its neighbour; if the worker dies again it is `Lost`, too. A piece that can be cut is cut instead, and its parts are
    what is tried again: only the guilty ones are lost.

    Args:
        pool: where they run.
        function: makes the result of a piece.
        arguments: one for each piece.
        parts: of an argument: the function and the arguments for its parts.

    Yields:
        Index of the argument, and the result, `Lost` or `Cut`; in the order in which they end.

    Raises:
        FacemillError: what no other piece would survive either, such as a full disk, or the cluster itself failed.
    """
    again: list[tuple[int, bool]] = []
    with closing(pool.run(function, arguments)) as results:
        for index, result in results:
            lost = lost_to(result) if isinstance(result, Exception) else None
            died = isinstance(result, WorkerDied)
            if died or (lost is not None and parts is not None):
                again.append((index, died))
            else:
                yield index, result if lost is None else lost
    for index, died in sorted(again):
        if parts is None:
            yield index, _alone(pool, function, arguments[index])
            continue
        part_function, part_arguments = parts(arguments[index])
        if died:
            yield index, Cut(tuple(_alone(pool, part_function, argument) for argument in part_arguments))
        else:
            found = dict(run_all(pool, part_function, part_arguments))
            yield index, Cut(tuple(found[number] for number in range(len(part_arguments))))


def _alone(pool: Pool, function: Callable[[Any], Any], argument: Any) -> Any:
    result = pool.run_alone(function, argument)
    return lost_to(result) if isinstance(result, Exception) else result


@contextmanager
def open_pool(params: ClusterParams) -> Iterator[Pool]:
    """The pool that the parameters name. A cluster starts with the first work, so a stage without any starts none.

    Raises:
        NotStarted: (at the first work) no scheduler there, or no worker.
        FacemillError: a cluster class or options that cannot be used.
    """
    if params.kind == "inline":
        yield InlinePool()
        return
    with ExitStack() as opened:
        pool = DaskPool(lambda: opened.enter_context(_open_client(params)), params.silence_s)
        try:
            yield pool
        finally:
            pool.close()


def one_thread() -> None:
    """Switches the libraries' own threads off in this process. Dask's nanny has set OMP_NUM_THREADS before."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class InlinePool:
    """Works in this process, one argument after another, without any cluster."""

    workers = 1
    _finishing = False

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Results:
        for index, argument in enumerate(arguments):
            yield index, self.run_alone(function, argument)

    def run_alone(self, function: Callable[[Any], Any], argument: Any) -> Any:
        if self._finishing:
            raise Interrupted
        return unpack(attempt_here(function, argument))

    def finish(self) -> None:
        self._finishing = True


@contextmanager
def _open_client(params: ClusterParams) -> Iterator[Any]:
    import dask
    from distributed.utils import silence_logging_cmgr  # first: it brings the defaults that are overridden here

    settings = {
        "distributed.scheduler.no-workers-timeout": f"{params.start_timeout_s}s",  # else it waits for ever
        # The pool tries again itself, alone; a job queue's machines come and go without a piece being at fault.
        "distributed.scheduler.allowed-failures": 0 if params.kind == "local" else 1,
        # Else a worker that is not back 15 s after some death is given up, though its nanny is restarting it.
        **({"distributed.deploy.lost-worker-timeout": "365d"} if params.kind == "local" else {}),
        "distributed.scheduler.worker-saturation": 1.0,  # shards are coarse: none waits behind another
        # Dask's 64 KiB switches off glibc's own thresholds: each large array is mapped anew, 9 % of an extraction
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        "distributed.comm.timeouts.connect": f"{params.start_timeout_s}s",
    }
    # Whatever it would log as an error is an error of ours, with a remedy, or a row with a reason.
    with dask.config.set(settings), silence_logging_cmgr(logging.CRITICAL), ExitStack() as opened:
        yield _start(params, opened)


def _start(params: ClusterParams, opened: ExitStack) -> Any:
    """The client of a cluster that has a worker. A worker that is killed as it starts is no reason to give up.

    Raises:
        NotStarted: not within `start_timeout_s`, or not in `START_TRIES`.
    """
    deadline = time.monotonic() + params.start_timeout_s
    most = START_TRIES if params.kind == "local" else 1
    for tried in range(1, most + 1):
        with ExitStack() as attempt:
            try:
                client = _connect(params, attempt, deadline)
            except (OSError, TimeoutError, RuntimeError) as error:
                first = _first_cause(error)
                # A worker that was killed is told as a RuntimeError that nothing caused.
                killed = isinstance(first, RuntimeError) and params.kind == "local"
                if killed and tried < most and time.monotonic() < deadline:
                    continue
                raise NotStarted(_killed_each_time(tried) if killed else _not_started(params, first)) from error
            opened.push(attempt.pop_all())
            return client
    raise AssertionError


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _killed_each_time(tried: int) -> str:
    times = "and" if tried == 1 else f"{tried} times in a row, and"
    return (
        f"cluster: workers died while they started, {times} no work was begun: most often the system kills them "
        "where memory is short. Take fewer of them (`cluster: {workers: 1}`) or none (`cluster: {kind: inline}`)"
    )


def _not_started(params: ClusterParams, cause: BaseException) -> str:
    told = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, OSError) and is_full(cause):
        return f"cluster: no space left in {tempfile.gettempdir()} for the workers ({told}): free some, or set TMPDIR"
    if params.kind == "local":
        return (
            f"cluster: the local cluster did not start within {params.start_timeout_s:g} s ({told}): see "
            "cluster.options, and that the machine has memory left, or take `cluster: {kind: inline}`"
        )
    return (
        f"cluster: no scheduler or no worker at {params.address or params.cluster_class} within "
        f"{params.start_timeout_s:g} s ({told}): start it, or take `cluster: {{kind: local}}`"
    )


def _connect(params: ClusterParams, opened: ExitStack, deadline: float) -> Any:
    from distributed import Client

    from tasks.work.tls import stated_security

    cluster, security = params.address, None
    if params.kind == "address" and params.tls is not None:
        security = stated_security(params.tls)
    if params.kind != "address":
        cluster = _make_cluster(params)
        opened.callback(cluster.close, timeout=30)
    left_s = max(1.0, deadline - time.monotonic())
    client = opened.enter_context(Client(cluster, timeout=left_s, set_as_default=False, security=security))
    client.wait_for_workers(1, timeout=max(1.0, deadline - time.monotonic()))
    return client


def cluster_class(dotted: str) -> type[Any]:
    """The class of that name, such as dask_jobqueue.SLURMCluster.

    Raises:
        FacemillError: it cannot be imported, or is no class of Dask clusters: whatever else it is, it is not called.
    """
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module raises that is imported
        raise FacemillError(f"cluster_class: {dotted} cannot be imported ({type(error).__name__}: {error})") from error
    # Dask's own base class has these, and so have the few that are not derived from it (dask_gateway's).
    if not isinstance(found, type) or not all(hasattr(found, verb) for verb in ("get_client", "scale", "close")):
        raise FacemillError(f"cluster_class: {dotted} is no class of Dask clusters, such as dask_jobqueue.SLURMCluster")
    return found


def _make_cluster(params: ClusterParams) -> Any:
    from tasks.work.private_cluster import PrivateCluster
    from tasks.work.tls import stated_security

    options = with_home(params.options)
    if params.kind == "class":
        kind = cluster_class(params.cluster_class or "")
        if params.tls is not None:
            options["security"] = stated_security(params.tls)
    else:
        kind = PrivateCluster
        options = {
            "n_workers": params.workers or os.cpu_count() or 1,
            "threads_per_worker": 1,
            "processes": True,
            "silence_logs": logging.CRITICAL,
            "memory_limit": params.memory_limit,
        } | options
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        name = params.cluster_class or "the local cluster"
        raise FacemillError(f"cluster: {name} with these options does not open ({error})") from error
