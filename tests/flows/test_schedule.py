"""Schedules that really fire: a server, the serve command, work pools and their workers, on quick stages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from stand_ins import stages_run

from flows.login import ensure_login
from flows.server import project_server
from tasks.stages import REFRESH_STAGES
from tasks.versions.store import list_versions

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
EVERY_MINUTE = "* * * * *"


@pytest.fixture
def deployed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quick project with the flows and deployments of the real one, and a Prefect home of its own."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copytree(PROJECT / "flows", project / "flows")
    shutil.copy(PROJECT / "prefect.toml", project)
    return project


def test_the_serve_command_refreshes_by_the_clock(deployed: Path) -> None:
    port = free_port()
    command = ["flows.command_line", "serve", "--cron", EVERY_MINUTE, "--port", str(port), "--no-then-train"]
    with running(deployed, *command) as process:
        wait_for(lambda: list_versions(deployed), 240, "a version by a scheduled run")
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert stages_run(deployed)[: len(REFRESH_STAGES)] == list(REFRESH_STAGES)
    with pytest.raises(httpx.ConnectError):  # the server that it brought along has gone with it
        httpx.get(f"http://127.0.0.1:{port}/api/health")


def test_a_scheduled_refresh_on_the_cpu_pool_trains_on_the_gpu_pool(
    deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    declared["deployments"][0]["schedules"][0]["cron"] = EVERY_MINUTE
    (deployed / "prefect.yaml").write_text(yaml.safe_dump(declared))
    with project_server(deployed, port=free_port()) as server:
        server.wait()
        subprocess.run([sys.executable, "-m", "flows.command_line", "pools"], cwd=deployed, check=True, timeout=120)
        deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        subprocess.run(deploy, cwd=deployed, check=True, timeout=180)
        with (
            running(deployed, "flows.command_line", "worker", "cpu"),
            running(deployed, "flows.command_line", "worker", "gpu"),
        ):
            wait_for(
                lambda: "Completed" in states(server.api, "convert"),
                360,
                "refresh, train and convert, one after another",
            )
        assert "Completed" in states(server.api, "refresh")
        assert states(server.api, "train") == ["Completed"]
    assert stages_run(deployed) == [*REFRESH_STAGES, "train", "track", "convert"]
    assert [version.name for version in list_versions(deployed)] == ["v1"]


def states(api: str, flow: str) -> list[str]:
    """States of all runs of a flow."""
    login = httpx.BasicAuth(*ensure_login(Path(".prefect").absolute()).split(":"))
    wanted = {"flows": {"name": {"any_": [flow]}}}
    answer = httpx.post(f"{api}/flow_runs/filter", json=wanted, auth=login, timeout=30)
    return [run["state"]["name"] for run in answer.raise_for_status().json()]


@contextmanager
def running(folder: Path, *module: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m MODULE …` for as long as the block takes; its output is the test's."""
    process = subprocess.Popen([sys.executable, "-m", *module], cwd=folder)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
