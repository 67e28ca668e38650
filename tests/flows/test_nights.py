"""Nights that just work: whatever ends a night in the middle, however suddenly, the next one comes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from stand_ins import set_knobs, stages_run
from test_runs import miss
from test_schedule import EVERY_MINUTE, free_port, wait_for

from flows.login import ensure_login
from flows.refresh import Refreshed
from flows.runs import SKIPPED
from flows.serve import deployments
from flows.server import project_server
from tasks.stages import REFRESH_STAGES
from tasks.versions.store import list_versions

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
AWAY_S = 200.0
MISSED = 61
SLEEPS = {"inventory": {"sleep": 600}}


@pytest.fixture
def deployed(project: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quick project with the flows of the real one, a Prefect home of its own and a database in it."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copytree(PROJECT / "flows", project / "flows")
    shutil.copy(PROJECT / "prefect.toml", project)
    ensure_login(project / ".prefect")
    shutil.copy(database, project / ".prefect")
    return project


class Serving:
    """A command that stays, such as `facemill serve` with a night each minute, and all that it has started."""

    def __init__(self, project: Path, *command: str) -> None:
        self.project = project
        self.log = (project / ".prefect" / f"told-by-{command[0]}.txt").open("ab")
        self.process = psutil.Popen(
            [sys.executable, "-m", "flows.command_line", *command],
            cwd=project,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def tree(self) -> list[psutil.Process]:
        """It and everything below it, the server included."""
        return [self.process, *self.process.children(recursive=True)]

    def told(self) -> str:
        return Path(self.log.name).read_text(errors="replace")

    def wait_for_a_night(self) -> None:
        """Returns when a stage is in the middle of its work."""
        pid = self.project / "inventory.pid"
        pid.unlink(missing_ok=True)
        wait_for(lambda: pid.exists() and pid.read_text(), 300, "a night")


def interrupt(serving: Serving) -> None:
    serving.process.send_signal(signal.SIGINT)


def terminate_all(serving: Serving) -> None:
    """As systemd does it by default: every process at once."""
    for each in serving.tree():
        each.terminate()


def kill_all(serving: Serving) -> None:
    """As a machine that goes down."""
    for each in serving.tree():
        each.kill()


def kill_first(serving: Serving) -> None:
    """As the kernel that is out of memory: one alone, and the others notice."""
    serving.process.kill()


def kill_flow(serving: Serving) -> None:
    """The night alone; what serves it goes on."""
    stage = psutil.Process(int((serving.project / "inventory.pid").read_text()))
    [flow] = [each for each in stage.parents() if "prefect.engine" in each.cmdline()]
    flow.kill()


ENDS: list[Callable[[Serving], None]] = [interrupt, terminate_all, kill_all, kill_first]


def by_the_minute() -> list[str]:
    return ["serve", "--cron", EVERY_MINUTE, "--port", str(free_port()), "--no-then-train"]


@pytest.fixture
def serving(deployed: Path) -> Iterator[Callable[..., Serving]]:
    """Starts `facemill serve`; at the end of the test nothing of it is left."""
    started: list[Serving] = []

    def start(*command: str) -> Serving:
        started.append(Serving(deployed, *(command or by_the_minute())))
        return started[-1]

    yield start
    for each in reversed(started):
        if each.process.is_running():
            left = each.tree()
            each.process.terminate()
            each.process.wait(240)
            _, left = psutil.wait_procs(left, timeout=60)
            for process in left:
                process.kill()
            assert not left
        each.log.close()


def nights(project: Path) -> list[tuple[str, str, str]]:
    """Name, state and message of each refresh that was due, oldest first, as the database has it."""
    query = """
        SELECT run.name, state.name, state.message FROM flow_run AS run
        JOIN flow ON flow.id = run.flow_id JOIN flow_run_state AS state ON state.id = run.state_id
        WHERE flow.name = 'refresh' AND run.expected_start_time < strftime('%Y-%m-%d %H:%M:%f', 'now')
        ORDER BY run.expected_start_time
    """
    with closing(sqlite3.connect(f"file:{project}/.prefect/prefect.db?mode=ro", uri=True)) as database:
        return [(name, state, message or "") for name, state, message in database.execute(query)]


def test_whatever_ends_a_night_the_next_one_comes(
    deployed: Path, serving: Callable[..., Serving], made_refresh: tuple[Path, Refreshed]
) -> None:
    set_knobs(deployed, **SLEEPS)
    for end in ENDS:
        night = serving()
        night.wait_for_a_night()
        processes = night.tree()
        end(night)
        _, left = psutil.wait_procs(processes, timeout=240)
        assert not left, f"{end.__name__} left {left}"
        print(end.__name__, Counter(state for _, state, _ in nights(deployed)), flush=True)
    night = serving()
    night.wait_for_a_night()
    kill_flow(night)
    set_knobs(deployed)
    wait_for(lambda: list_versions(deployed), 300, "a version by a night")
    wait_for(lambda: nights(deployed)[-1][1] != "Running", 120, "the end of that night")
    night.process.terminate()
    night.process.wait(240)
    assert "never awaited" not in night.told()
    found = nights(deployed)
    states = Counter(state for _, state, _ in found)
    print(states, *found, sep="\n")
    assert set(states) <= {"Crashed", "Completed", "Skipped", "Scheduled", "Late"}, found
    assert states["Crashed"] >= len(ENDS) + 1
    assert states["Completed"] >= 1
    assert not any("concurrency limit" in message for _, _, message in found)
    assert list_versions(deployed)[0].dataset == made_refresh[1].version.dataset  # as of one that nobody disturbed
    assert stages_run(deployed)[-len(REFRESH_STAGES) :] == list(REFRESH_STAGES)


def test_a_server_that_is_away_ends_no_night(deployed: Path, serving: Callable[..., Serving]) -> None:
    """Away for longer than a night takes, and than Prefect's own loops would bear."""
    server = ["server", "--port", str(free_port())]
    first = serving(*server)
    wait_for(lambda: "Ctrl-C ends it" in first.told(), 300, "the server")
    set_knobs(deployed, inventory={"sleep": 40})
    night = serving()
    night.wait_for_a_night()
    first.process.send_signal(signal.SIGINT)
    first.process.wait(60)
    wait_for(lambda: stages_run(deployed)[-1] == "curate", 300, "the stages, without a server")
    away = time.monotonic()
    wait_for(lambda: time.monotonic() - away > AWAY_S, 2 * AWAY_S, "the end of the time")
    assert nights(deployed)[0][1] == "Running"
    set_knobs(deployed)
    serving(*server)
    wait_for(lambda: nights(deployed)[0][1] == "Completed", 300, "the end of the night")
    assert night.process.is_running()
    assert "is away" in night.told()
    assert [version.name for version in list_versions(deployed)] == ["v1"]


def test_a_worker_that_dies_blocks_no_night(deployed: Path, serving: Callable[..., Serving]) -> None:
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    declared["deployments"][0]["schedules"][0]["cron"] = EVERY_MINUTE
    declared["deployments"][0]["parameters"] = {"then_train": False}
    (deployed / "prefect.yaml").write_text(yaml.safe_dump(declared))
    set_knobs(deployed, **SLEEPS)
    with project_server(deployed, port=free_port()) as server:
        server.wait()
        subprocess.run([sys.executable, "-m", "flows.command_line", "pools"], cwd=deployed, check=True, timeout=120)
        deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "nightly"]
        subprocess.run(deploy, cwd=deployed, check=True, timeout=180)
        night = serving("worker", "cpu")
        night.wait_for_a_night()
        processes = night.tree()
        kill_all(night)
        psutil.wait_procs(processes, timeout=60)
        set_knobs(deployed)
        night = serving("worker", "cpu")
        wait_for(lambda: list_versions(deployed), 300, "a version by the next night")
        wait_for(lambda: "Completed" in [state for _, state, _ in nights(deployed)], 120, "its end")
        interrupt(night)
        assert night.process.wait(240) == 130
    found = nights(deployed)
    assert found[0][1:] == ("Crashed", found[0][2])
    assert "is gone: it was killed, or the machine went down" in found[0][2]
    assert {state for _, state, _ in found} <= {"Crashed", "Completed", "Skipped", "Scheduled", "Late", "Pending"}


def test_serve_starts_its_server_again(deployed: Path, serving: Callable[..., Serving]) -> None:
    set_knobs(deployed, inventory={"sleep": 40})
    night = serving()
    night.wait_for_a_night()
    [server] = [each for each in night.tree() if "flows.server_process" in each.cmdline()]
    server.kill()
    wait_for(lambda: nights(deployed)[0][1] == "Completed", 300, "the end of the night")
    assert "the Prefect server has ended with code -9: starts again" in night.told()


def test_a_second_serve_in_the_same_project_is_told_about_the_first(
    deployed: Path, serving: Callable[..., Serving]
) -> None:
    first = serving()
    wait_for(lambda: "Ctrl-C ends it" in first.told(), 300, "the server")
    wait_for(lambda: (deployed / ".prefect" / "serve.lock").exists(), 120, "the lock")
    command = [sys.executable, "-m", "flows.command_line", "serve", "--port", str(free_port())]
    second = subprocess.run(command, cwd=deployed, capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode == 1
    assert "facemill serve is running already" in second.stderr
    assert first.process.is_running()


def test_of_many_missed_nights_one_is_made_up_and_the_others_are_skipped_in_one_step(
    deployed: Path, serving: Callable[..., Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two months off, with everything that a server does at its start: SQLite must bear it."""
    cron = f"0 {(datetime.now(UTC) + timedelta(hours=12)).hour} * * *"  # no night of its own comes meanwhile
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED", "false")  # as they are where no server was
    with project_server(deployed, port=free_port()) as server:
        server.wait()
        ours = {PREFECT_API_URL: server.api, PREFECT_API_AUTH_STRING: os.environ["PREFECT_API_AUTH_STRING"]}
        with temporary_settings(ours), get_client(sync_client=True) as client:
            made = cast(UUID, deployments(cron, "UTC", then_train=False)[0].apply())
            miss(client, client.read_deployment(made), MISSED)
    monkeypatch.delenv("PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED")
    assert Counter(state for _, state, _ in nights(deployed)) == {"Scheduled": MISSED}
    log = deployed / ".prefect" / "server.log"
    log.unlink()
    start = time.monotonic()
    night = serving("serve", "--cron", cron, "--port", str(free_port()), "--no-then-train")
    wait_for(lambda: f"skipped {MISSED} run(s)" in night.told(), 300, "the skipped nights")
    skipped_s = time.monotonic() - start
    wait_for(lambda: nights(deployed)[-1][1] == "Completed", 300, "the night that makes up for them")
    made_up_s = time.monotonic() - start
    time.sleep(15)  # the server's own look for late runs, which comes every few seconds
    found = nights(deployed)
    print(f"{MISSED} skipped after {skipped_s:.1f} s, made up after {made_up_s:.1f} s", flush=True)
    assert Counter(state for _, state, _ in found) == {SKIPPED: MISSED, "Completed": 1}
    *missed, (name, _, _) = found
    assert name.startswith("missed ")
    assert all(message.endswith(f"run {name} makes up for it.") for _, _, message in missed)
    assert "locked" not in log.read_text()
    with closing(sqlite3.connect(deployed / ".prefect" / "prefect.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [version.name for version in list_versions(deployed)] == ["v1"]
