"""Runs that nobody works on: which they are, what is said of them, and the one run that makes up for them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running

from facemill.processes import running_process, this_process
from flows.runs import MAKE_UP, PROCESS, SKIPPED, SUBMITTED_S, TRIES, put_right
from flows.serve import deployments

pytestmark = pytest.mark.usefixtures("prefect")
NIGHTLY = deployments("0 3 * * *", "UTC", then_train=True)[0]


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def nightly(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    """The deployment refresh/nightly, of which there are no runs."""
    made = NIGHTLY.apply()
    yield client.read_deployment(made)
    client.delete_deployment(made)


def put(client: SyncPrefectClient, deployment: DeploymentResponse, state: State[Any], **labels: str) -> FlowRun:
    """A run of the deployment in a state, signed or not."""
    run = client.create_flow_run_from_deployment(deployment.id, parameters={"then_train": False}, labels=labels)
    client.set_flow_run_state(run.id, state, force=True)
    return client.read_flow_run(run.id)


def runs_of(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
    found = client.read_flow_runs(flow_run_filter=wanted, limit=200)
    # The server of the tests schedules coming nights, too.
    now = datetime.now(UTC)
    return [run for run in found if not (run.auto_scheduled and (run.expected_start_time or now) > now)]


def state_of(client: SyncPrefectClient, run: UUID) -> tuple[str | None, str | None]:
    found = client.read_flow_run(run)
    assert found.state is not None
    return found.state.name, found.state.message


def dead_process() -> str:
    """The signature of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    signature = str(running_process(process.pid))
    process.kill()
    process.wait()
    return signature


def miss(client: SyncPrefectClient, deployment: DeploymentResponse, nights: int) -> None:
    """The clock has asked for so many runs, the last one a day ago, and nobody came."""
    now = datetime.now(UTC)
    asked = {
        "start_time": (now - timedelta(days=nights + 1)).isoformat(),
        "end_time": (now - timedelta(days=1)).isoformat(),
    }
    client.request(
        "POST", f"/deployments/{deployment.id}/schedule", json=asked | {"min_runs": nights, "max_runs": nights}
    )


def test_a_run_whose_process_is_gone_has_crashed_and_is_made_up(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    dead = put(client, nightly, Running(), **{PROCESS: dead_process()})
    lines = put_right(client, [nightly], alone=False)
    name, message = state_of(client, dead.id)
    assert name == "Crashed"
    assert message is not None
    assert "is gone: it was killed, or the machine went down" in message
    [again] = [run for run in runs_of(client, nightly) if run.id != dead.id]
    assert again.name == f"{dead.name} again"
    assert again.parameters == {"then_train": False}
    assert again.state_name == "Scheduled"
    assert len(lines) == 2
    assert put_right(client, [nightly], alone=False) == []


def test_a_run_at_work_is_left_alone(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    put(client, nightly, Running(), **{PROCESS: str(this_process())})
    assert put_right(client, [nightly], alone=True) == []


def test_a_run_on_another_machine_is_left_alone(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    run = put(client, nightly, Running(), **{PROCESS: "0" * 8 + "-1-" + "0" * 12})
    assert put_right(client, [nightly], alone=False) == []
    # Its container is gone, if nobody else could work on it.
    put_right(client, [nightly], alone=True)
    assert state_of(client, run.id) == ("Crashed", "Its process 1 ran in a container or on a machine that is gone.")


def test_a_process_with_the_number_of_a_dead_one_is_another(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    ours = this_process()
    dead = put(client, nightly, Running(), **{PROCESS: f"{ours.place}-{ours.pid}-{'0' * 12}"})
    put_right(client, [nightly], alone=False)
    assert state_of(client, dead.id)[0] == "Crashed"


def test_a_run_that_was_taken_and_never_began_is_dead_where_nobody_else_takes_runs(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    taken = put(client, nightly, Pending())
    assert put_right(client, [nightly], alone=False) == []
    put_right(client, [nightly], alone=True)
    assert state_of(client, taken.id) == ("Crashed", "Whoever had taken it was ended before it began.")


def test_a_run_that_the_caller_has_taken_and_not_begun_is_dead_when_it_ends(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    taken = put(client, nightly, Pending(), **{PROCESS: str(this_process())})
    assert put_right(client, [nightly], alone=False) == []
    put_right(client, [nightly], alone=False, gone=this_process())
    assert state_of(client, taken.id) == ("Crashed", "Whoever had taken it was ended before it began.")


def test_a_run_that_a_worker_took_long_ago_is_dead(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    taken = put(client, nightly, Pending())
    later = datetime.now(UTC) + timedelta(seconds=SUBMITTED_S + 60)
    put_right(client, [nightly], alone=False, now=later)
    assert "has not begun since" in str(state_of(client, taken.id)[1])


def test_a_run_that_was_to_be_cancelled_is_cancelled_and_not_made_up(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    dead = put(client, nightly, Cancelling(), **{PROCESS: dead_process()})
    put_right(client, [nightly], alone=True)
    assert state_of(client, dead.id)[0] == "Cancelled"
    assert [run.id for run in runs_of(client, nightly)] == [dead.id]


@pytest.mark.parametrize("nights", [1, 5])
def test_of_missed_nights_one_is_made_up_and_the_others_are_skipped(
    client: SyncPrefectClient, nightly: DeploymentResponse, nights: int
) -> None:
    miss(client, nightly, nights)
    put_right(client, [nightly], alone=True)
    runs = runs_of(client, nightly)
    skipped = [run for run in runs if run.state_name == SKIPPED]
    [made] = [run for run in runs if run.state_name == "Scheduled"]
    assert len(skipped) == nights
    for run in skipped:
        assert run.state is not None
        assert run.state.message is not None
        assert f"nobody was there to take it: run {made.name} makes up for it." in run.state.message
    assert made.name.startswith("missed ")
    assert made.parameters == {"then_train": True}
    assert put_right(client, [nightly], alone=True) == []


def test_a_missed_night_is_not_made_up_by_a_second_run_beside_one_that_waits(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    waiting = client.create_flow_run_from_deployment(nightly.id)
    miss(client, nightly, 3)
    put_right(client, [nightly], alone=True)
    assert [run.id for run in runs_of(client, nightly) if run.state_name != SKIPPED] == [waiting.id]


def test_a_missed_night_is_covered_by_a_run_that_has_begun_since(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    done = put(client, nightly, Running(), **{PROCESS: str(this_process())})
    client.set_flow_run_state(done.id, Completed(), force=True)
    miss(client, nightly, 1)
    put_right(client, [nightly], alone=True)
    assert [run.id for run in runs_of(client, nightly) if run.state_name != SKIPPED] == [done.id]


def test_a_crash_and_missed_nights_are_made_up_by_one_run(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    put(client, nightly, Running(), **{PROCESS: dead_process()})
    miss(client, nightly, 4)
    put_right(client, [nightly], alone=True)
    assert [run.state_name for run in runs_of(client, nightly)].count("Scheduled") == 1


def test_what_crashes_again_and_again_is_given_up(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    put(client, nightly, Crashed())
    for tries in range(1, TRIES):
        put_right(client, [nightly], alone=True)
        [again] = [run for run in runs_of(client, nightly) if run.state_name == "Scheduled"]
        client.set_flow_run_state(again.id, Crashed(), force=True)
        assert len(runs_of(client, nightly)) == tries + 1
    assert put_right(client, [nightly], alone=True) == []
    assert len(runs_of(client, nightly)) == TRIES


@pytest.mark.parametrize("state", [Completed(), Cancelled()])
def test_what_ended_otherwise_is_not_made_up(
    client: SyncPrefectClient, nightly: DeploymentResponse, state: State[Any]
) -> None:
    put(client, nightly, Crashed())
    put(client, nightly, state)
    assert put_right(client, [nightly], alone=True) == []


def test_without_the_tag_missed_nights_are_only_told(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    assert MAKE_UP in nightly.tags
    untagged = nightly.model_copy(update={"tags": []})
    miss(client, nightly, 2)
    put_right(client, [untagged], alone=True)
    runs = runs_of(client, nightly)
    assert [run.state_name for run in runs] == [SKIPPED] * 2
    assert all(run.state and "it is not made up for" in str(run.state.message) for run in runs)


def test_a_night_every_minute_of_an_hour_is_skipped_within_seconds(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    now = datetime.now(UTC)
    miss(client, nightly, 61)
    put_right(client, [nightly], alone=True)
    assert (datetime.now(UTC) - now).total_seconds() < 60
    assert [run.state_name for run in runs_of(client, nightly)].count(SKIPPED) == 61


def test_times_are_those_of_the_time_zone_though_the_clocks_change() -> None:
    nightly = deployments("30 2 * * *", "Europe/Berlin", then_train=True)[0]
    assert nightly.schedules
    asked = CronSchedule.model_validate(nightly.schedules[0].schedule.model_dump())
    berlin = ZoneInfo("Europe/Berlin")
    for change in (date(2026, 3, 29), date(2026, 10, 25)):  # 02:30 does not come at all, and comes twice
        before = datetime.combine(change - timedelta(days=1), time(12), tzinfo=berlin)
        nights = [night.astimezone(berlin) for night in asyncio.run(asked.get_dates(3, start=before))]
        assert [night.date() for night in nights] == [change + timedelta(days=days) for days in range(3)]
        assert [f"{night:%H:%M}" for night in nights[1:]] == ["02:30", "02:30"]
