"""What stands in a night's way from outside: another Prefect's database, old names, an idle pool, clocks, remotes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.states import Completed, Running
from stand_ins import set_knobs, stages_run
from test_nights_command import polled
from test_runs import put, runs_of

from facemill.errors import FacemillError
from facemill.locks import locked
from facemill.patience import Rule
from facemill.processes import this_process
from flows.login import ensure_login
from flows.nights import read_nights
from flows.pools import create_pools
from flows.refresh import Refreshed, refresh
from flows.runs import MAKE_UP, PROCESS, put_right
from flows.serve import _registered, _retire, deployments, serve_all
from flows.server import Server, project_server
from tasks.versions import dvc
from tasks.versions.store import list_versions

Done = tuple[Path, Refreshed]
NIGHTLY = deployments("0 3 * * *", "UTC", then_train=True)[0]


@pytest.fixture
def client(no_deployments: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def old_home(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """.prefect of a project in which a server of this version has run before."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "project" / ".prefect"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    ensure_login(home)
    shutil.copy(database, home)
    return home


def test_a_database_of_a_newer_prefect_is_refused_with_a_sentence(old_home: Path) -> None:
    with closing(sqlite3.connect(old_home / "prefect.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
        database.commit()
    made_by = r"its database in .*\.prefect was made by another version of Prefect: install that one, or move it away"
    with project_server(old_home.parent) as server, pytest.raises(FacemillError, match=made_by):
        server.wait()


def test_a_database_of_an_older_prefect_is_brought_up_to_date(old_home: Path) -> None:
    def revision() -> str:
        with closing(sqlite3.connect(old_home / "prefect.db")) as database:
            return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])

    newest = revision()
    downgrade = [sys.executable, "-m", "prefect", "server", "database", "downgrade", "--yes", "--revision", "-1"]
    subprocess.run(downgrade, cwd=old_home.parent, check=True, timeout=120, capture_output=True)
    assert revision() != newest
    with project_server(old_home.parent) as server:
        server.wait()
    assert revision() == newest


def renamed(name: str) -> RunnerDeployment:
    """The deployment refresh/nightly under another name."""
    return cast(RunnerDeployment, refresh.to_deployment(name, schedule=NIGHTLY.schedules[0].schedule, tags=[MAKE_UP]))


def test_a_deployment_that_was_renamed_asks_for_no_night_any_more_and_alarms_nobody(
    client: SyncPrefectClient,
) -> None:
    old = client.read_deployment(cast(UUID, renamed("every-night").apply()))
    new = client.read_deployment(cast(UUID, NIGHTLY.apply()))
    for each in (old, new):
        schedule(client, each)
    _retire(client, _registered(client, [NIGHTLY]))
    assert client.read_deployment(old.id).paused
    assert not client.read_deployment(new.id).paused
    polled(client, new)
    found = read_nights(client, 10)
    assert found.troubles == []
    assert len(found.coming) == len(set(found.coming)) == 3


def test_a_second_serve_in_one_project_is_refused_and_registers_nothing(
    client: SyncPrefectClient, project: Path
) -> None:
    (project / ".prefect").mkdir(exist_ok=True)
    with locked(project / ".prefect" / "serve.lock", "", ""):
        told = rf"facemill serve is running already in {project} \(process {os.getpid()}, since .*end that one first"
        with pytest.raises(FacemillError, match=told):
            serve_all(Server(str(client.api_url)), "0 3 * * *")
    assert client.read_deployments() == []


def test_a_work_pool_without_a_worker_is_told(client: SyncPrefectClient) -> None:
    create_pools()
    made = NIGHTLY.model_copy(update={"work_pool_name": "cpu"})
    deployment = client.read_deployment(cast(UUID, made.apply()))
    schedule(client, deployment)
    untaken = "Nobody takes the runs of refresh/nightly: start `facemill worker cpu`."
    assert read_nights(client, 10).troubles == [untaken]
    polled(client, deployment, by_worker_of="cpu")
    assert read_nights(client, 10).troubles == []


def test_a_clock_that_is_set_back_an_hour_ends_and_makes_up_nothing(client: SyncPrefectClient) -> None:
    nightly = client.read_deployment(cast(UUID, NIGHTLY.apply()))
    done = put(client, nightly, Completed())
    at_work = put(client, nightly, Running(), **{PROCESS: str(this_process())})
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert put_right(client, [nightly], alone=True, now=hour_ago) == []
    assert {run.id for run in runs_of(client, nightly)} == {done.id, at_work.id}
    told = read_nights(client, 10, now=hour_ago)
    assert [night.state for night in told.last] == ["Running", "Completed"]
    assert all(night.minutes is None or night.minutes >= 0 for night in told.last)


def test_an_hour_that_comes_twice_asks_for_its_night_once(client: SyncPrefectClient) -> None:
    nightly = client.read_deployment(cast(UUID, NIGHTLY.apply()))
    schedule(client, nightly)
    coming = read_nights(client, 10).coming
    schedule(client, nightly, from_hours=-1)
    assert read_nights(client, 10).coming == coming


def schedule(client: SyncPrefectClient, deployment: DeploymentResponse, from_hours: int = 0) -> None:
    """The server looks ahead by its clock."""
    start = datetime.now(UTC) + timedelta(hours=from_hours)
    span = {"start_time": start.isoformat(), "end_time": (start + timedelta(3)).isoformat()}
    client.request("POST", f"/deployments/{deployment.id}/schedule", json=span)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    elif os.geteuid() == 0:
        pytest.skip("wants to mount a read-only file system")
    else:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)


def test_a_remote_that_is_read_only_keeps_nobody_from_the_new_version(
    refreshed: Done, read_only_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = refreshed
    monkeypatch.setattr(dvc, "TRANSFER", Rule(60.0, 1, 0, "at once"))
    dvc.call(project, "remote", "add", "--local", "--default", "store", str(read_only_disk / "store"))
    set_knobs(project, curate={"faces": 5})
    with pytest.raises(FacemillError, match=r"dvc push failed; the data is kept here\. (.|\n)*Read-only"):
        refresh()
    assert [version.name for version in list_versions(project)] == ["v1", "v2"]


def test_a_remote_that_is_full_gets_the_version_as_soon_as_it_has_room(
    refreshed: Done, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = refreshed
    monkeypatch.setattr(dvc, "TRANSFER", Rule(60.0, 1, 0, "at once"))
    dvc.call(project, "remote", "add", "--local", "--default", "store", str(tiny_disk))
    if not tiny_disk.is_mount():
        pytest.skip("wants to mount a disk that can be full")
    filling = tiny_disk / "filling"
    with filling.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while stream.write(bytes(4096)):
            pass
    set_knobs(project, curate={"faces": 5})
    with pytest.raises(FacemillError, match=r"dvc push failed; the data is kept here\. (.|\n)*No space left"):
        refresh()
    assert [version.name for version in list_versions(project)] == ["v1", "v2"]
    filling.unlink()
    assert refresh().version.name == "v2"
    assert dvc.call(project, "status", "--cloud", "curate").strip() == "Cache and remote 'store' are in sync."


def test_a_merge_conflict_in_dvc_lock_ends_the_night_with_the_way_out(refreshed: Done) -> None:
    project, _ = refreshed
    before = stages_run(project)
    lock = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> other\n")
    with pytest.raises(FacemillError, match=r"merge conflict: take one side with `git checkout --ours dvc\.lock`"):
        refresh()
    assert stages_run(project) == before
    (project / "dvc.lock").write_text(lock)
    assert refresh().version.name == "v1"
