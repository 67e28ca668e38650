"""Notices about nights, from a real server to a listener on loopback: failed, crashed, late, and none at all."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Failed, Running, Scheduled
from test_schedule import free_port

from facemill.errors import FacemillError
from flows.login import ensure_login
from flows.notify import _read, notify_at
from flows.serve import deployments
from flows.server import project_server

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = PROJECT / "deploy" / "automations.yaml"
SOON_S = 10


class Listener:
    """Takes what is posted to it."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, title: str) -> dict[str, Any]:
        """The next notice with that title; others may come before."""
        end = time.monotonic() + 120
        while (notice := self.came.get(timeout=max(0.1, end - time.monotonic())))["title"] != title:
            pass
        return notice

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def project(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose server is at work. What the file waits for in hours comes here in seconds."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "project"
    home = root / ".prefect"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    ensure_login(home)
    shutil.copy(database, home)
    (root / "deploy").mkdir()
    values = yaml.safe_load(SHIPPED.read_text())
    for each in values["automations"]:
        if "within" in each["trigger"]:
            each["trigger"]["within"] = SOON_S
    (root / "deploy" / "automations.yaml").write_text(yaml.safe_dump(values))
    (root / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    with project_server(root, port=free_port()) as server:
        server.wait()
        # Prefect's settings in this process are those of the server that the tests share.
        ours = {PREFECT_API_URL: server.api, PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"]}
        with temporary_settings(ours):
            yield root


def facemill(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_a_person_is_told_about_nights_that_failed_crashed_were_late_or_did_not_come(
    project: Path, listener: Listener
) -> None:
    for _ in range(2):  # the second time it renews them
        done = facemill(project, "notify", listener.url)
        assert done.returncode == 0, done.stderr
        assert listener.wait_for("facemill: a test")["text"].startswith("facemill: a test\n\nNotices come here when: ")
    with get_client(sync_client=True) as client:
        assert [each["enabled"] for each in client.request("POST", "/automations/filter", json={}).json()] == [True] * 3
        nightly = cast(UUID, deployments("0 3 * * *", "UTC", then_train=True)[0].apply())
        failed, crashed, late = (client.create_flow_run_from_deployment(nightly) for _ in range(3))
        tell(client, failed.id, Running(), Failed(message="stage collect failed"))
        tell(client, crashed.id, Running(), Crashed(message="Its process 7 is gone."))
        told = listener.wait_for(f"facemill: the night {failed.name} is Failed")
        assert told["message"].startswith("stage collect failed\n")
        told = listener.wait_for(f"facemill: the night {crashed.name} is Crashed")
        assert told["message"].startswith("Its process 7 is gone.\n")
        ago = datetime.now(UTC) - timedelta(minutes=30)
        tell(client, late.id, Scheduled(name="Late", scheduled_time=ago))
    listener.wait_for("facemill: a night is late")
    listener.wait_for("facemill: no night has been completed for 36 hours")


def tell(client: SyncPrefectClient, run: UUID, *states: Any) -> None:
    for state in states:
        client.set_flow_run_state(run, state, force=True)


@pytest.mark.parametrize("url", ["chat.example.org/hook", "file:///etc/passwd", "https://"])
def test_an_address_to_which_nothing_can_be_posted_is_refused(url: str) -> None:
    with pytest.raises(FacemillError, match="is no address to which notices can be posted"):
        notify_at(url, SHIPPED)


@pytest.mark.parametrize("text", ["automations: [", "- a", "automations: {}", "automations: [1]"])
def test_a_file_without_automations_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "automations.yaml"
    path.write_text(text)
    with pytest.raises(FacemillError, match=r"automations\.yaml (cannot be read|holds no list)"):
        _read(path)


@pytest.mark.usefixtures("prefect")
def test_a_wrong_automation_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "automations.yaml"
    path.write_text("automations: [{name: mine, trigger: {type: event, posture: Sometimes}, actions: []}]")
    with pytest.raises(FacemillError, match=r"the automation 'mine': trigger"):
        notify_at("http://127.0.0.1:9/hook", path)
