"""What the last nights brought, when the next one is due, and whether anything stands in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from flows.runs import SKIPPED, deployments_of_ours

FLOW = "refresh"
"""A night is a run of it that a deployment has asked for."""
OVERDUE_S = 900.0
"""Whoever takes runs looks every few seconds: one that has waited for longer is not taken."""
POLLED_S = 120.0
_BROUGHT = "dataset-version"  # the artifact in which a refresh says what it has named
_COMING = 3


@dataclass(frozen=True)
class Night:
    """One run of the refresh, in words."""

    due: datetime
    name: str
    state: str
    minutes: float | None
    """It took; None if it never began."""
    tells: str
    """What it brought, or why it was skipped or went wrong."""


@dataclass(frozen=True)
class Nights:
    """The last ones, newest first, and those to come."""

    last: Sequence[Night]
    coming: Sequence[datetime]
    troubles: Sequence[str]
    """What a person should look after, a sentence each; none: all is well."""


def read_nights(client: SyncPrefectClient, number: int, now: datetime | None = None) -> Nights:
    """Asks the project's server about its nights.

    Args:
        client: of that server.
        number: how many of the last ones.
        now: the time, for tests.
    """
    now = now or datetime.now(UTC)
    deployments = [each for flow, each in deployments_of_ours(client) if flow == FLOW]
    if not deployments:
        return Nights([], [], ["No night is scheduled: start `facemill serve`, or deploy and start a worker."])
    ids = [each.id for each in deployments]
    ran = [run for run in _runs(client, ids, newest_first=True) if not _waits_for_the_clock(run, now)]
    waiting = _runs(client, ids, newest_first=False, states=[StateType.SCHEDULED])
    late = [run for run in waiting if now - _due(run) > timedelta(seconds=OVERDUE_S)]
    coming = [_due(run) for run in waiting if _due(run) > now]
    brought = _brought(client, [run.id for run in ran[:number]])
    troubles = [
        *_nobody_takes(deployments, now),
        *([f"{len(late)} run(s) are overdue, the first since {_clock(_due(late[0]))}."] if late else []),
        *_went_wrong(ran, waiting),
        *(["No further night is scheduled."] if not coming and not all(each.paused for each in deployments) else []),
    ]
    return Nights([_night(run, brought, now) for run in ran[:number]], coming[:_COMING], troubles)


def rows(nights: Nights) -> list[tuple[str, ...]]:
    """A row of words for each of the last nights: due, run, state, minutes, what it tells."""
    return [
        (_clock(each.due), each.name, each.state, "" if each.minutes is None else f"{each.minutes:.1f}", each.tells)
        for each in nights.last
    ]


def _night(run: FlowRun, brought: dict[UUID, str], now: datetime) -> Night:
    message = (run.state.message or "") if run.state else ""
    first = message.strip().splitlines()[0] if message.strip() else ""
    took = None
    if run.start_time is not None:  # by a clock that may have been set back since
        took = max(0.0, ((run.end_time or now) - run.start_time).total_seconds() / 60)
    tells = brought.get(run.id, "") if run.state and run.state.is_completed() else first
    return Night(_due(run), run.name, run.state_name or "?", took, tells)


def _nobody_takes(deployments: Sequence[DeploymentResponse], now: datetime) -> list[str]:
    """Paused ones matter only where all are: a deployment that was renamed stays behind under its old name, paused."""
    if all(each.paused for each in deployments):
        return [f"The deployment {FLOW}/{each.name} is paused: no night comes." for each in deployments]
    found = []
    for each in deployments:
        if each.paused:
            continue
        if each.last_polled is None or now - each.last_polled > timedelta(seconds=POLLED_S):
            pool = each.work_pool_name
            remedy = f"start `facemill worker {pool}`" if pool else "start `facemill serve`"
            since = f" since {_clock(each.last_polled)}" if each.last_polled else ""
            found.append(f"Nobody takes the runs of {FLOW}/{each.name}{since}: {remedy}.")
    return found


def _went_wrong(ran: Sequence[FlowRun], waiting: Sequence[FlowRun]) -> list[str]:
    """The last night that was not skipped, if it went wrong and no run is there to make up for it."""
    last = next((run for run in ran if run.state_name != SKIPPED), None)
    if last is None or last.state is None or not (last.state.is_failed() or last.state.is_crashed()):
        return []
    if any(not run.auto_scheduled for run in waiting):
        return []
    how = "crashed" if last.state.is_crashed() else "failed"
    return [f"The last night, {last.name} at {_clock(_due(last))}, has {how}, and nothing makes up for it."]


def _runs(
    client: SyncPrefectClient, deployments: list[UUID], *, newest_first: bool, states: list[StateType] | None = None
) -> list[FlowRun]:
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployments),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)) if states else None,
    )
    order = FlowRunSort.EXPECTED_START_TIME_DESC if newest_first else FlowRunSort.EXPECTED_START_TIME_ASC
    return client.read_flow_runs(flow_run_filter=wanted, sort=order, limit=200)


def _brought(client: SyncPrefectClient, runs: list[UUID]) -> dict[UUID, str]:
    """The first line of what each run has said of the dataset."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[_BROUGHT]), flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    found = client.read_artifacts(artifact_filter=wanted) if runs else []
    return {
        each.flow_run_id: str(each.data).splitlines()[0].lstrip("# ")
        for each in found
        if each.flow_run_id and each.data
    }


def _waits_for_the_clock(run: FlowRun, now: datetime) -> bool:
    return run.state is not None and run.state.is_scheduled() and _due(run) > now


def _due(run: FlowRun) -> datetime:
    return run.expected_start_time or datetime.fromtimestamp(0, UTC)


def _clock(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M}"
