"""A project whose stages are quick stand-ins, real git and DVC around them, and one Prefect harness for all tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"  # before Prefect is imported
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_PROFILES_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from stand_ins import make_project

from flows.refresh import Refreshed, refresh


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's own server on a throw-away database; its first start takes up to 18 s."""
    # Else it would want the login of the checkout, which prefect.toml names, if one was made since the tests began.
    none = {PREFECT_PROFILES_PATH: tmp_path_factory.mktemp("prefect") / "profiles.toml"}
    with temporary_settings(none), prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def no_deployments(prefect: None) -> None:
    """On the server that all tests share, no deployment of another test is left."""
    with get_client(sync_client=True) as client:
        for one in client.read_deployments():
            client.delete_deployment(one.id)


@pytest.fixture(scope="session")
def database(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty prefect.db to copy into a project's .prefect: a server that had to make its own would start for long."""
    address = PREFECT_API_DATABASE_CONNECTION_URL.value()
    copy = tmp_path_factory.mktemp("database") / "prefect.db"
    with closing(sqlite3.connect(address.partition("///")[2])) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        for table in ("flow_run", "flow", "deployment", "work_pool", "artifact"):
            target.execute(f"DELETE FROM {table}")
        target.commit()
    return copy


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("flows") / "project")


@pytest.fixture(scope="session")
def made_refresh(prefect: None, made_project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Refreshed]:
    root = Path(shutil.copytree(made_project, tmp_path_factory.mktemp("refreshed") / "project"))
    with contextlib.chdir(root):
        return root, refresh()


@pytest.fixture
def refreshed(
    made_refresh: tuple[Path, Refreshed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Refreshed]:
    """A project in which the refresh has run once, to change, as the current folder; and what that run returned."""
    root = Path(shutil.copytree(made_refresh[0], tmp_path / "refreshed"))
    monkeypatch.chdir(root)
    return root, made_refresh[1]


@pytest.fixture
def project(made_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh project with one commit, in which no stage has run, as the current folder."""
    root = Path(shutil.copytree(made_project, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root
