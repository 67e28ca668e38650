"""What each flow does around its work: it signs its run, and sees to it that nobody does the same beside it.

The signature, a label of the run, names the process that does it: so a run whose process is gone can be told from one
at work (flows.runs). That a flow runs once at a time is held by a lock of the project, which goes with its process.
Prefect's own limit of a deployment is a lease: it ends a run whose server is away for some minutes, and a run that dies
keeps its slot until the lease has run out, or for ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar
from uuid import UUID

from prefect import Flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import OrchestrationResult
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.states import Cancelled

from facemill.errors import FacemillError
from facemill.locks import locked
from facemill.processes import ends_with, this_process
from flows.runs import PROCESS, SKIPPED, end_dead_runs
from flows.server_patience import asked_once
from tasks.work.callers import callers
from tasks.work.room import check_room
from tasks.work.scratch import WORK_FOLDER

LONGEST_WAIT_S = 48 * 3600.0
"""For another run of the same flow: as long as the longest stage may take."""
LONGEST_AWAY_S = 3600.0
"""A server that is restarted, or upgraded, or moved is back by then."""
_LOOK_EVERY_S = 5.0

P = ParamSpec("P")
R = TypeVar("R")


def project_flow(name: str, *, waits: bool) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Makes a flow of a function that works on the project in whose folder it runs; it runs once at a time.

    Args:
        name: of the flow.
        waits: what a deployment's run does while another one is at work. It waits where what it is for may have come
            after the other one had begun; else it is skipped, with the reason.
    """

    def decorate(work: Callable[P, R]) -> Flow[P, R]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with _at_work(Path.cwd(), name, waits=waits):
                return work(*args, **kwargs)

        return _Flow(run, name=name)

    return decorate


class _Flow(Flow[P, R]):
    """Prefect's, which asks FastAPI what parameters are as JSON: to import that takes 0.2 s of processor."""

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        plain = all(value is None or isinstance(value, bool | int | float | str) for value in parameters.values())
        return dict(parameters) if plain else super().serialize_parameters(parameters)


def sign_run() -> None:
    """Notes in the run of the flow that calls this which process does it, and ends those whose process is gone.

    Where the server cannot be reached the run goes on without.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(context.flow_run.id, {PROCESS: str(this_process())})
            for line in end_dead_runs(client, but=context.flow_run.id):
                logger.warning(line)
    except Exception as error:  # whatever the server does: no run fails for its label
        logger.warning("the run could not be signed: %s", error)


def wait_for_server() -> None:
    """Returns when the server answers, so that what it is told next arrives; gives up after an hour."""
    end = time.monotonic() + LONGEST_AWAY_S
    told = False
    with asked_once(), get_client(sync_client=True) as client:
        while (error := client.api_healthcheck()) is not None and time.monotonic() < end:
            if not told:
                get_run_logger().warning("the Prefect server is away (%s): waits for it", error)
                told = True
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def _at_work(project: Path, name: str, *, waits: bool) -> Iterator[None]:
    """Holds the project's lock of a flow during the block.

    Where another one has it, a run that a person started is refused, one of a deployment waits or is skipped, and a
    flow inside another flow waits. A run of `facemill serve` or of `facemill worker` ends when that one has ended.

    Raises:
        FacemillError: a person's run met another one, the wait was too long, or there is no room.
        Abort: the run is skipped.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    inside = run is not None and run.parent_task_run_id is not None
    with ExitStack() as held:
        held.enter_context(ends_with(callers()))
        sign_run()
        check_room(project)
        deployed = run is not None and run.deployment_id is not None and not inside
        if refused := _take(held, project, name, LONGEST_WAIT_S if inside or (deployed and waits) else 0.0):
            if run is not None and deployed:
                _skip(run.id, f"{str(refused)[0].upper()}{str(refused)[1:]}.")
            raise refused
        try:
            yield
        except Exception:  # also of a failure the server is to hear
            wait_for_server()
            raise
        wait_for_server()


def _skip(run: UUID, reason: str) -> NoReturn:
    """Ends a run without an error, which a state that the flow returns would be for Prefect's engine."""
    wait_for_server()
    with get_client(sync_client=True) as client:
        told: OrchestrationResult[Any] = client.set_flow_run_state(
            run, Cancelled(name=SKIPPED, message=reason), force=True
        )
    skipped = Abort(reason)
    skipped.state = told.state  # type: ignore[attr-defined]  # where the engine looks for what has been told already
    raise skipped


def _take(held: ExitStack, project: Path, name: str, patience_s: float) -> FacemillError | None:
    """Takes the lock, or returns who has it when patience has run out."""
    lock = project / WORK_FOLDER / f"flow-{name}.lock"
    busy = f"the flow {name} is at work already in {project}"
    end = time.monotonic() + patience_s
    told = False
    while True:
        try:
            held.enter_context(locked(lock, busy, "wait for it, or stop it", works_for=callers()))
        except FacemillError as error:
            if time.monotonic() > end:
                return error
            if not told:
                get_run_logger().info("%s: waits for it", error)
                told = True
            time.sleep(_LOOK_EVERY_S)
        else:
            return None
