"""The process of the project's Prefect server: started by flows.server, and ended by its starter alone.

`prefect server start` serves the same application, but whatever host name it is called by; it binds its port seconds
after it has looked whether the port is free; and it dies of a signal that is meant for all, before a flow can tell it
how the flow ended. Here the socket and the project's lock come from the starter, the Host header is checked, signals
are left to the starter, and the end of the pipe to the starter is the end of the server, however that came about.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

LOG_BYTES = 20_000_000
_LOOK_EVERY_S = 60.0
_FINISH_S = 10
"""For answers that are under way when the end comes."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    """`python -m flows.server_process SOCKET PIPE LOG KIND HOST…`; the first two are inherited descriptors."""
    listening, pipe, log, kind, *hosts = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    _let_writers_wait()
    # Around the application, not in it: what the server asks itself, such as automations, comes by another name.
    inner = create_app(ephemeral=kind == "temporary", final=True)
    app = TrustedHostMiddleware(inner, allowed_hosts=hosts, www_redirect=False)
    config = uvicorn.Config(app, lifespan="on", log_level="warning", timeout_graceful_shutdown=_FINISH_S)
    server = _Server(config)
    for duty in ((_await_the_end, int(pipe), server), (_keep_small, Path(log))):
        threading.Thread(target=duty[0], args=duty[1:], daemon=True).start()
    server.run(sockets=[socket.socket(fileno=int(listening))])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if server.started else 1)  # all is written: taking the interpreter down would cost seconds


def _let_writers_wait() -> None:
    """With SQLite, every transaction of the server begins as one that writes: it waits for the one at work.

    Prefect begins most of them as ones that read. Such a one that comes to write while another has written since is
    refused at once (SQLITE_BUSY_SNAPSHOT), whatever time-out is set: with 61 late nights, 88 times in six seconds.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import set_database_config
    from prefect.server.utilities.database import get_dialect
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

    class Patient(AioSqliteConfiguration):
        @asynccontextmanager
        async def begin_transaction(
            self, session: AsyncSession, with_for_update: bool = False
        ) -> AsyncGenerator[AsyncSessionTransaction, None]:
            async with super().begin_transaction(session, with_for_update=True) as transaction:
                yield transaction

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(url).name == "sqlite":
        set_database_config(Patient(connection_url=url))


def _await_the_end(pipe: int, server: uvicorn.Server) -> None:
    """The starter never writes: the read returns when it has closed its end of the pipe, or has died."""
    os.read(pipe, 1)
    server.should_exit = True


def _keep_small(log: Path) -> None:
    """Months of warnings must not fill the disk: of the log, the newest megabytes are kept."""
    while True:
        time.sleep(_LOOK_EVERY_S)
        try:
            if log.stat().st_size > LOG_BYTES:
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
                os.truncate(log, 0)  # whoever writes there appends
        except OSError:  # a full disk is told by whoever needs it
            continue


if __name__ == "__main__":
    main()
