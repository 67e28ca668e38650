"""A Dask cluster on this machine that is ours alone.

A scheduler runs whatever it is sent, and every user of a machine can reach a port on loopback. So all that scheduler,
workers and client say to each other goes through TLS, with a key and a certificate that are made for this one cluster
(`tasks.work.tls`). Nothing else listens: Dask's HTTP server, which tells anybody who asks what runs here, starts only
where a dashboard was asked for (`cluster.options: {dashboard_address: 127.0.0.1:8787}`).

The same holds for the disk. What a worker cannot hold in memory, pictures of people, it writes into Dask's scratch
folder; and each of Dask's processes, this one included, looks into that folder first when it imports a module. By
default it is one for all users of the machine, whoever was the first to make it.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

from distributed import LocalCluster, Nanny, Scheduler, Worker
from distributed.http.routing import RoutingApplication
from tornado.httpserver import HTTPServer

from facemill.errors import FacemillError
from facemill.private_folders import private_folder


class _WithoutHttp:
    """For Dask's servers: the HTTP server is there, but has no socket."""

    def start_http_server(self, routes: Any, *where: Any, **settings: Any) -> None:
        self.http_application = RoutingApplication(routes)
        self.http_server = HTTPServer(self.http_application)


class PrivateScheduler(_WithoutHttp, Scheduler):
    """A scheduler without an HTTP server."""


class PrivateWorker(_WithoutHttp, Worker):
    """A worker without an HTTP server. Ctrl-C in a terminal reaches it too, and is no word to it: who started it ends
    it, at once or when it has finished."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class PrivateNanny(Nanny):
    """A nanny whose workers have no HTTP server."""

    def __init__(self, scheduler: str, **settings: Any) -> None:
        super().__init__(scheduler, **settings, worker_class=PrivateWorker)


class PrivateCluster(LocalCluster):
    """`LocalCluster` on loopback, as this module's first lines say.

    Args:
        dashboard_address: where the dashboard listens, such as 127.0.0.1:8787; None: nowhere.
        local_directory: in which workers write what they cannot hold in memory, in a folder of this user; None: where
            temporary files go.
        settings: of LocalCluster.
    """

    def __init__(
        self, *, dashboard_address: str | None = None, local_directory: str | None = None, **settings: Any
    ) -> None:
        from tasks.work.tls import one_time_security  # not at the top: workers load this module, too

        self._scheduler_class = Scheduler if dashboard_address else PrivateScheduler
        scratch = str(_scratch(Path(local_directory or tempfile.gettempdir())))
        super().__init__(  # type: ignore[no-untyped-call]  # Dask's has no types
            host="127.0.0.1",
            dashboard_address=dashboard_address,
            security=one_time_security(),
            worker_class=PrivateNanny,
            local_directory=scratch,
            scheduler_kwargs={"local_directory": scratch} | settings.pop("scheduler_kwargs", {}),
            **settings,
        )

    async def _start(self) -> None:
        self.scheduler_spec = self.scheduler_spec | {"cls": self._scheduler_class}
        await super()._start()  # type: ignore[no-untyped-call]


def _scratch(folder: Path) -> Path:
    """This user's own scratch folder in `folder`. Dask takes what it is called for its own, and what killed workers
    have left in it away."""
    name = f"facemill-{os.getuid()}-dask-scratch-space"
    try:
        return private_folder(folder / name, "what workers write", "another will do")
    except FacemillError:  # somebody else's, who must not be able to stop us
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
