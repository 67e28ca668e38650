"""The process in which flows run: a session of its own, the project's folder, Prefect's settings.

Ctrl-C in a terminal goes to every process of the session. Prefect's own server would die of it at once, and the flow
would wait for minutes for a server that could take note of its end. So the flow runs in a session of its own and the
first process stays in front, hands on what it is told, and ends with the flow's code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from facemill.processes import ends_with, this_process
from flows.project import enter
from flows.server import Server, project_server

_DELIVERY_S = 10.0
_HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def flow_process(root: Path) -> Iterator[Path]:
    """The block runs in a process that leads a session of its own, in the project's folder, which it yields.

    Raises:
        FacemillError: a wrong value in params.yaml or a full disk, said at once and not after Prefect has started.
    """
    from tasks.params import load_params

    load_params(root)
    first = this_process()
    _own_session()
    with ends_with([first]):
        yield enter(root)


@contextmanager
def flow_server(root: Path, port: int | None = None) -> Iterator[Server]:
    """Such a process, with a Prefect server; see `flows.server.project_server`."""
    with flow_process(root) as project, project_server(project, port=port) as server:
        try:
            yield server
        finally:
            _deliver()


def _deliver() -> None:
    """Sends the last log lines and events, which Prefect holds back for seconds, while the server is still there.

    Prefect would do so when the process ends: then it tries for over a minute to reach a server that has ended.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=_DELIVERY_S)


def _own_session() -> None:
    """Returns in a child process; this one waits for it and ends with its code.

    Until both know what to do with a signal it waits: none is lost, none ends only one of the two.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
    child = os.fork()
    if child:
        _hand_on(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)  # the child has said everything
    os.setsid()
    for number in _HANDED_ON:
        # Ended by SIGTERM like by Ctrl-C: else the server that Prefect brought along stays behind. A shell's
        # background job has SIGINT ignored, and is ended by it nevertheless.
        signal.signal(number, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_on(child: int) -> None:
    def send(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in _HANDED_ON:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            signal.signal(number, send)
