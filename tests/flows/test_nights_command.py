"""What `facemill nights` tells: what came, what did not and why, and what needs a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Cancelled, Completed, Crashed, Failed
from test_runs import miss, put

from flows.nights import read_nights, rows
from flows.runs import SKIPPED
from flows.serve import deployments

pytestmark = pytest.mark.usefixtures("no_deployments")
UNTAKEN = "Nobody takes the runs of refresh/nightly: start `facemill serve`."


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def nightly(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    """The deployment refresh/nightly, whose next nights are scheduled and of which there are no runs yet."""
    made = deployments("0 3 * * *", "UTC", then_train=True)[0].apply()
    coming = {
        "start_time": datetime.now(UTC).isoformat(),
        "end_time": (datetime.now(UTC) + timedelta(days=4)).isoformat(),
    }
    client.request("POST", f"/deployments/{made}/schedule", json=coming)
    yield client.read_deployment(made)
    client.delete_deployment(made)


def polled(client: SyncPrefectClient, nightly: DeploymentResponse, by_worker_of: str | None = None) -> None:
    """Somebody asks for runs, as serve or a worker does all the time; the server takes note of it a moment later."""
    if by_worker_of:
        client.request("POST", f"/work_pools/{by_worker_of}/get_scheduled_flow_runs", json={})
    else:
        client.request("POST", "/deployments/get_scheduled_flow_runs", json={"deployment_ids": [str(nightly.id)]})
    end = time.monotonic() + 30
    while client.read_deployment(nightly.id).last_polled is None and time.monotonic() < end:
        time.sleep(0.1)


def test_without_a_deployment_a_person_is_told_how_to_have_nights(client: SyncPrefectClient) -> None:
    assert read_nights(client, 10).troubles == [
        "No night is scheduled: start `facemill serve`, or deploy and start a worker."
    ]


def test_a_night_says_what_it_brought_and_the_next_is_named(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    polled(client, nightly)
    run = put(client, nightly, Completed())
    client.create_artifact(
        ArtifactCreate(key="dataset-version", type="markdown", data="# Dataset v2 (new)\nmore", flow_run_id=run.id)
    )
    found = read_nights(client, 10)
    [row] = rows(found)
    assert row[1:3] == (run.name, "Completed")
    assert row[4] == "Dataset v2 (new)"
    assert found.troubles == []
    assert [due.astimezone(UTC).hour for due in found.coming] == [3, 3, 3]


def test_what_was_skipped_or_crashed_says_why(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    polled(client, nightly)
    crashed = put(client, nightly, Crashed(message="Its process 7 is gone.\nTraceback"))
    put(client, nightly, Cancelled(name=SKIPPED, message="The flow refresh is at work already."))
    found = read_nights(client, 10)
    assert {row[2:3] + row[4:] for row in rows(found)} == {
        ("Crashed", "Its process 7 is gone."),
        ("Skipped", "The flow refresh is at work already."),
    }
    [trouble] = found.troubles
    assert trouble.startswith(f"The last night, {crashed.name} at ")
    assert trouble.endswith("has crashed, and nothing makes up for it.")


def test_a_failed_night_is_trouble_until_one_goes_well(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    polled(client, nightly)
    put(client, nightly, Failed(message="stage collect failed"))
    assert "has failed" in read_nights(client, 10).troubles[0]
    put(client, nightly, Completed())
    assert read_nights(client, 10).troubles == []


def test_a_crash_that_is_being_made_up_for_is_no_trouble(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    polled(client, nightly)
    put(client, nightly, Crashed())
    client.create_flow_run_from_deployment(nightly.id, idempotency_key=str(uuid4()))
    assert read_nights(client, 10).troubles == []


def test_an_overdue_night_and_nobody_to_take_it_are_told(
    client: SyncPrefectClient, nightly: DeploymentResponse
) -> None:
    miss(client, nightly, 2)
    nobody, overdue = read_nights(client, 10).troubles
    assert nobody == UNTAKEN
    assert overdue.startswith("2 run(s) are overdue, the first since ")


def test_a_paused_schedule_is_told(client: SyncPrefectClient, nightly: DeploymentResponse) -> None:
    polled(client, nightly)
    client.pause_deployment(nightly.id)
    assert read_nights(client, 10).troubles == ["The deployment refresh/nightly is paused: no night comes."]
