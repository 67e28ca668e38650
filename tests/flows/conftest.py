"""A project whose stages are quick stand-ins, real git and DVC around them, and one Prefect harness for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"  # before Prefect is imported
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"

import pytest
from prefect.testing.utilities import prefect_test_harness
from stand_ins import make_project

from flows.refresh import Refreshed, refresh


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """Prefect's own server on a throw-away database; its first start takes up to 18 s."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("flows") / "project")


@pytest.fixture(scope="session")
def made_refresh(prefect: None, made_project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Refreshed]:
    root = Path(shutil.copytree(made_project, tmp_path_factory.mktemp("refreshed") / "project"))
    return root, refresh(str(root))


@pytest.fixture
def refreshed(made_refresh: tuple[Path, Refreshed], tmp_path: Path) -> tuple[Path, Refreshed]:
    """A project in which the refresh has run once, to change; and what that run returned."""
    return Path(shutil.copytree(made_refresh[0], tmp_path / "refreshed")), made_refresh[1]


@pytest.fixture
def project(made_project: Path, tmp_path: Path) -> Path:
    """A fresh project with one commit, in which no stage has run."""
    return Path(shutil.copytree(made_project, tmp_path / "project"))
