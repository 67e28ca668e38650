"""A worker of a work pool: Prefect's own for processes, that ends its flows in order and puts dead runs right."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial

from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from facemill.errors import FacemillError
from facemill.processes import this_process
from flows.runs import PROCESS, deployments_of_ours
from flows.server import Server
from flows.staying import patient, stay, try_to_put_right
from tasks.work.terminal import say


def work_for(server: Server, pool: str) -> None:
    """Takes the runs of a work pool until it is told to end.

    Args:
        server: that has the pool.
        pool: its name.

    Raises:
        FacemillError: there is no such pool, or Prefect gave up.
        KeyboardInterrupt: it was told to end, and has.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            raise FacemillError(
                f"there is no work pool {pool!r} in {server.page}: run `facemill pools` first"
            ) from error

        def ours() -> Sequence[DeploymentResponse]:
            return [each for _, each in deployments_of_ours(client) if each.work_pool_name == pool]

        try_to_put_right(client, ours, alone=False)
        worker = ProcessWorker(work_pool_name=pool, name=f"{socket.gethostname()}-{pool}")
        take = worker.get_and_submit_flow_runs

        async def take_and_sign() -> None:
            """A run is the worker's until its flow signs it: so it is known to be dead at once, if this one dies."""
            for run in await take():
                await worker.client.update_flow_run_labels(run.id, {PROCESS: str(this_process())})

        # Prefect has no place to hook in there: its own method is replaced on this one worker.
        worker.get_and_submit_flow_runs = patient(take_and_sign)  # type: ignore[assignment]
        worker._sync_and_initialize = patient(worker._sync_and_initialize)  # type: ignore[method-assign]
        stay(server, client, partial(worker.start, printer=say), ours, alone=False)
