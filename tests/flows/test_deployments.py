"""prefect.yaml, the serve command and the work pools say the same thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed
from prefect.utilities.importtools import import_object
from stand_ins import stages_run

from facemill.errors import FacemillError
from flows.convert import convert_folder
from flows.pools import POOLS, create_pools
from flows.serve import deployments
from flows.start import start_once

PROJECT = Path(__file__).resolve().parents[2]
DECLARED: list[dict[str, Any]] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]


def test_serving_and_deploying_give_the_same_deployments() -> None:
    served = deployments("0 3 * * *", "UTC", then_train=True)
    assert [(one.entrypoint, one.name, one.parameters) for one in served] == [
        (one["entrypoint"], one["name"], one.get("parameters", {})) for one in DECLARED
    ]
    [schedule] = [one.schedules for one in served if one.schedules]
    [nightly] = [one["schedules"] for one in DECLARED if "schedules" in one]
    assert schedule[0].schedule.cron == nightly[0]["cron"]


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one["entrypoint"])
def test_every_deployment_has_its_flow_its_pool_and_known_parameters(declared: dict[str, Any]) -> None:
    module, _, name = declared["entrypoint"].partition(".py:")
    entry = import_object(f"{module.replace('/', '.')}.{name}")
    assert set(declared.get("parameters", {})) <= set(entry.parameters.properties)
    assert declared["work_pool"]["name"] in POOLS


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one["entrypoint"])
def test_no_run_can_name_a_folder(declared: dict[str, Any]) -> None:
    module, _, name = declared["entrypoint"].partition(".py:")
    entry = import_object(f"{module.replace('/', '.')}.{name}")
    assert {str(values.get("type")) for values in entry.parameters.properties.values()} <= {"boolean"}


@pytest.mark.usefixtures("prefect")
def test_a_run_with_another_root_is_refused_before_anything_is_read(tmp_path: Path, project: Path) -> None:
    [nightly] = [one for one in deployments("0 3 * * *", "UTC", then_train=True) if one.name == "nightly"]
    made = cast(UUID, nightly.apply())
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(made, parameters={"root": str(tmp_path)})
        engine = [sys.executable, "-m", "prefect.engine"]
        named = {"PREFECT__FLOW_RUN_ID": str(run.id), "PREFECT_API_URL": str(client.api_url)}
        (project / "flows").symlink_to(PROJECT / "flows")  # a deployment's entry is a path from its folder
        done = subprocess.run(
            engine, cwd=project, env=os.environ | named, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode == 1
    assert "expects parameters ['then_train'] but was provided with parameters ['then_train', 'root']" in done.stderr
    assert stages_run(project) == []


def test_a_flow_that_takes_folders_does_not_run_through_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid4()))
    with pytest.raises(FacemillError, match="not through a deployment"):
        convert_folder.fn(Path("/etc"), Path("/tmp"))


@pytest.mark.usefixtures("prefect")
def test_pools_are_made_once_and_the_gpu_runs_one_thing_at_a_time() -> None:
    create_pools()
    with get_client(sync_client=True) as client:
        client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=7))
        assert create_pools()[1] == "work pool gpu: was there, 1 run at a time"
        assert client.read_work_pool("gpu").concurrency_limit == 1
        assert client.read_work_pool("cpu").concurrency_limit is None


@pytest.mark.usefixtures("no_deployments")
def test_one_cause_starts_one_run_and_another_one_only_after_it_failed() -> None:
    @flow
    def twice() -> None:
        for _ in range(2):
            start_once("train/gpu", "train-v1-abc", then_convert=True)

    [train] = [one for one in deployments("0 3 * * *", "UTC", then_train=True) if one.name == "gpu"]
    train.apply()
    twice()
    with get_client(sync_client=True) as client:
        [run] = started(client)
        assert run.parameters["then_convert"] is True
        client.set_flow_run_state(run.id, Failed(), force=True)
        twice()
        assert len(started(client)) == 2


def started(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs of train/gpu."""
    return client.read_flow_runs(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["gpu"])))
