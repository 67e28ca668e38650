"""Runs that nobody works on any more: found, told why they ended, and made up for once.

A process that is killed cannot say how its run ended, and a machine that is off runs nothing. So whoever takes up work,
`facemill serve` or `facemill worker`, puts that right for its deployments, when it starts and once a minute:

- A run whose process is gone is marked crashed, with the reason.
- Runs that the clock asked for while nobody worked are skipped, with the reason.
- If there were such runs, or the deployment's last run has crashed, one new run makes up for all of that.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed, Scheduled
from prefect.types import DateTime

from facemill.processes import ProcessId

PROCESS = "facemill.process"
"""The label of a run that names the process that does it."""
SKIPPED = "Skipped"
MAKE_UP = "make-up"
"""The tag of a deployment whose missed and crashed runs are made up for; without it they are only told."""
FLOWS = ("refresh", "train", "convert", "pipeline", "convert-folder")
LATE_S = 60.0
"""Whoever works asks for runs every few seconds: one that has waited for longer was missed."""
SUBMITTED_S = 900.0
"""A run that somebody has taken signs within seconds; on a machine under load, within minutes."""
TRIES = 3
"""Of one run, those that make up for it included: what kills a machine must not do so every minute."""
_AGAIN_AFTER_S = 60.0
_PAGE = 200
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_KEY = re.compile(r"makes up for (?P<run>[0-9a-f-]{36}), try (?P<n>\d+)")


def put_right(
    client: SyncPrefectClient,
    deployments: Sequence[DeploymentResponse],
    *,
    alone: bool,
    gone: ProcessId | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Ends dead runs, skips missed ones and makes up for them. Returns what it has done, a line for each.

    Doing it again changes nothing.

    Args:
        client: of the server that has the runs.
        deployments: those that the caller works on.
        alone: whether nobody but the caller works on them, so that a run which nobody has signed is dead.
        gone: a process that counts as gone, such as the caller, which has ended its flows.
        now: the time, for tests.
    """
    now = now or datetime.now(UTC)
    ids = {deployment.id for deployment in deployments}
    lines = list(end_dead_runs(client, alone_in=ids if alone else (), gone=gone, now=now))
    for deployment in deployments:
        missed = _missed(client, deployment.id, now)
        made_up = MAKE_UP in deployment.tags and not deployment.paused
        wanted = _make_up(client, deployment, missed, now) if made_up else None
        for run in missed:
            instead = f"run {wanted.name} makes up for it" if wanted else "it is not made up for"
            message = f"The clock asked for it at {_clock(run)}, and nobody was there to take it: {instead}."
            client.set_flow_run_state(run.id, Cancelled(name=SKIPPED, message=message), force=True)
        if missed:
            lines.append(f"deployment {deployment.name}: skipped {len(missed)} run(s) that were missed")
        if wanted:
            lines.append(f"deployment {deployment.name}: run {wanted.name} makes up for what was missed or has crashed")
    return lines


def deployments_of_ours(client: SyncPrefectClient) -> list[tuple[str, DeploymentResponse]]:
    """The deployments of the project's flows that the server knows, each with the name of its flow."""
    wanted = FlowFilter(name=FlowFilterName(any_=list(FLOWS)))
    flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=wanted)}
    return [(flows[each.flow_id], each) for each in client.read_deployments(flow_filter=wanted, limit=_PAGE)]


def end_dead_runs(
    client: SyncPrefectClient,
    *,
    alone_in: Collection[UUID] = (),
    but: UUID | None = None,
    gone: ProcessId | None = None,
    now: datetime | None = None,
) -> Iterator[str]:
    """Ends the runs of the project's flows whose process is gone; yields a line for each.

    Args:
        client: of the server that has the runs.
        alone_in: deployments on whose runs nobody but the caller works: one of those that no process here has signed
            is dead.
        but: a run that is left alone, the caller's own.
        gone: a process that counts as gone.
        now: the time, for tests.
    """
    now = now or datetime.now(UTC)
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_AT_WORK)))
    for run in _all(client, FlowRunFilter(state=state), FlowFilter(name=FlowFilterName(any_=list(FLOWS)))):
        reason = None if run.id == but else _why_dead(run, run.deployment_id in alone_in, gone, now)
        if reason is None:
            continue
        latest = client.read_flow_run(run.id)  # it may have said how it ended just before its process was gone
        if latest.state is None or latest.state.type not in _AT_WORK:
            continue
        end: State[Any] = Crashed(message=f"{reason[0].upper()}{reason[1:]}.")
        if latest.state.is_cancelling():
            end = Cancelled(message=f"It was to be cancelled, and {reason}.")
        client.set_flow_run_state(run.id, end, force=True)
        yield f"run {run.name}: {reason}"


def _why_dead(run: FlowRun, nobody_elses: bool, gone: ProcessId | None, now: datetime) -> str | None:
    """Why nobody works on a run; None where somebody does, or might."""
    process = ProcessId.parse(str(run.labels.get(PROCESS, "")))
    if process is not None and process == gone:
        return "whoever had taken it was ended before it began"
    if process is not None and process.is_here:
        if process.is_alive:
            return None
        return f"its process {process.pid} on {socket.gethostname()} is gone: it was killed, or the machine went down"
    if nobody_elses:
        if process is None:
            return "whoever had taken it was ended before it began"
        return f"its process {process.pid} ran in a container or on a machine that is gone"
    taken = run.state.timestamp if run.state and run.state.is_pending() else None
    if process is None and taken is not None and now - taken > timedelta(seconds=SUBMITTED_S):
        return f"it was taken at {taken:%Y-%m-%d %H:%M} UTC and has not begun since"
    return None


def _missed(client: SyncPrefectClient, deployment: UUID, now: datetime) -> list[FlowRun]:
    """Runs that the clock has asked for and nobody has taken, newest first."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=cast(DateTime, now - timedelta(seconds=LATE_S))),
    )
    late = [run for run in _all(client, wanted) if run.auto_scheduled and run.run_count == 0]
    return sorted(late, key=_expected, reverse=True)


def _make_up(
    client: SyncPrefectClient, deployment: DeploymentResponse, missed: Sequence[FlowRun], now: datetime
) -> FlowRun | None:
    """Schedules the run that makes up for those that were missed or for the last one, if that has crashed.

    Returns:
        that run, also if it was there already; None if there is nothing to make up for, or it has been tried enough.
    """
    last = _last(client, deployment.id)
    if last is not None and not _ended(last):
        return last if missed else None  # at work, or waiting: it brings up to date what the missed ones would
    if missed and last is not None and not _went_wrong(last) and (last.start_time or _LONG_AGO) > _expected(missed[0]):
        return last  # it has done so since
    if last is not None and last.state is not None and last.state.is_crashed() and (key := _next_key(last)):
        again, parameters, name = key, last.parameters, f"{last.name.removesuffix(' again')} again"
        start = now + timedelta(seconds=_AGAIN_AFTER_S)
    elif missed:
        again, parameters = f"makes up for {missed[0].id}, try 1", None
        name, start = f"missed {_clock(missed[0])}", now
    else:
        return None
    return client.create_flow_run_from_deployment(
        deployment.id, parameters=parameters, name=name, idempotency_key=again, state=Scheduled(scheduled_time=start)
    )


def _last(client: SyncPrefectClient, deployment: UUID) -> FlowRun | None:
    """The newest run of a deployment that has begun or that somebody, not the clock, has asked for."""
    every = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    for run in client.read_flow_runs(flow_run_filter=every, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_PAGE):
        waits_for_the_clock = run.auto_scheduled and run.state is not None and run.state.is_scheduled()
        if not waits_for_the_clock and run.state_name != SKIPPED:
            return run
    return None


def _next_key(run: FlowRun) -> str | None:
    """What a run that makes up for this one is known by; None if that has been tried often enough."""
    found = _KEY.fullmatch(run.idempotency_key or "")
    first, tried = (found["run"], int(found["n"])) if found else (str(run.id), 1)
    return f"makes up for {first}, try {tried + 1}" if tried < TRIES else None


def _all(client: SyncPrefectClient, wanted: FlowRunFilter, flows: FlowFilter | None = None) -> list[FlowRun]:
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_filter=flows,
            flow_run_filter=wanted,
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


def _ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _went_wrong(run: FlowRun) -> bool:
    return run.state is not None and (run.state.is_crashed() or run.state.is_failed())


def _expected(run: FlowRun) -> datetime:
    return run.expected_start_time or _LONG_AGO


def _clock(run: FlowRun) -> str:
    return f"{_expected(run):%Y-%m-%d %H:%M} UTC"
