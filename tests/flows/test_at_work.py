"""A flow at a time: who meets another one at work is refused, skipped with the reason, or waits."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from stand_ins import stages_run

from facemill.errors import FacemillError
from facemill.locks import locked
from facemill.processes import ProcessId
from flows.refresh import Refreshed, refresh
from flows.runs import PROCESS
from flows.serve import deployments

pytestmark = pytest.mark.usefixtures("prefect")
PROJECT = Path(__file__).resolve().parents[2]


def busy(project: Path, flow: str) -> ExitStack:
    """Another one is at work in the project."""
    held = ExitStack()
    held.enter_context(locked(project / ".work" / f"flow-{flow}.lock", "", ""))
    return held


def engine(project: Path, name: str) -> tuple[UUID, subprocess.Popen[str]]:
    """A run of a deployment, and the process that serve would start for it."""
    [one] = [each for each in deployments("0 3 * * *", "UTC", then_train=False) if each.name == name]
    made = cast(UUID, one.apply())
    (project / "flows").symlink_to(PROJECT / "flows")  # a deployment's entry is a path from its folder
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(made)
        named = {"PREFECT__FLOW_RUN_ID": str(run.id), "PREFECT_API_URL": str(client.api_url)}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect.engine"],
        cwd=project,
        env=os.environ | named,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.id, process


def state_of(run: UUID) -> tuple[str | None, str]:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state.name, state.message or ""


def test_a_night_that_meets_another_one_is_skipped_without_an_error(project: Path) -> None:
    with busy(project, "refresh"):
        run, process = engine(project, "nightly")
        told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    name, message = state_of(run)
    assert name == "Skipped"
    assert message.startswith(f"The flow refresh is at work already in {project} (process {os.getpid()}, since ")
    assert stages_run(project) == []


def test_a_training_that_meets_another_one_waits(refreshed: tuple[Path, Refreshed]) -> None:
    project, _ = refreshed
    held = busy(project, "train")
    run, process = engine(project, "gpu")
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if "waits for it" in line:
            held.close()
    assert process.wait(60) == 0, told
    assert "waits for it" in told
    assert state_of(run)[0] == "Completed"
    assert "train" in stages_run(project)


def test_a_person_who_meets_another_one_is_told(project: Path) -> None:
    with busy(project, "refresh"), pytest.raises(FacemillError, match="the flow refresh is at work already"):
        refresh()
    assert stages_run(project) == []


def test_a_run_is_signed_by_its_process(project: Path) -> None:
    with busy(project, "refresh"):
        run, process = engine(project, "nightly")
        process.communicate(timeout=180)
    with get_client(sync_client=True) as client:
        signature = ProcessId.parse(str(client.read_flow_run(run).labels[PROCESS]))
    assert signature is not None
    assert signature.pid == process.pid
    assert not signature.is_alive


@pytest.mark.parametrize(
    "value", [True, None, 3, 0.5, "anna", Path("videos"), ["anna", "bert"], {"a": Path("b")}], ids=repr
)
def test_parameters_are_told_as_prefect_tells_them(value: Any) -> None:
    told = refresh.serialize_parameters({"then_train": value})
    assert told == Flow.serialize_parameters(refresh, {"then_train": value})


def test_to_run_a_flow_takes_no_web_framework() -> None:
    """Its import is a tenth of what a night costs that brings nothing."""
    code = "import sys; from flows.refresh import refresh; refresh.serialize_parameters({'then_train': False})"
    code += "; sys.exit('fastapi' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, timeout=120)
