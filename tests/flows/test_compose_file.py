"""deploy/compose.yaml and its Dockerfile: as far as that can be seen without starting a container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from flows.command_line.main import app
from flows.staying import _FLOWS_END_S

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"


@pytest.fixture
def nights() -> dict[str, Any]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    [service] = services.values()
    return service


def test_the_command_is_the_one_of_the_unit_file(nights: dict[str, Any]) -> None:
    program, name, *options = nights["command"]
    assert program == "facemill"
    get_command(app).commands[name].make_context(name, list(options))  # type: ignore[attr-defined]  # a group
    [line] = [line for line in (DEPLOY / "facemill.service").read_text().splitlines() if line.startswith("ExecStart=")]
    assert line.replace('"', "").endswith(" ".join([name, *options]))


def test_a_stop_leaves_a_stage_the_time_that_it_needs(nights: dict[str, Any]) -> None:
    assert nights["stop_signal"] == "SIGTERM"
    minutes = nights["stop_grace_period"]
    assert minutes.endswith("m")
    assert 60 * int(minutes[:-1]) > _FLOWS_END_S


def test_the_clone_lies_where_the_image_expects_it(nights: dict[str, Any]) -> None:
    dockerfile = (DEPLOY / nights["build"]["dockerfile"].removeprefix("deploy/")).read_text()
    assert f"WORKDIR {nights['working_dir']}" in dockerfile
    assert f"..:{nights['working_dir']}" in nights["volumes"]
    assert (DEPLOY / nights["build"]["context"]).resolve() == PROJECT


def test_the_image_is_installed_as_make_installs() -> None:
    for file in (DEPLOY / "Dockerfile", PROJECT / "Makefile"):
        assert any(line.endswith("python deploy/install.py") for line in file.read_text().splitlines()), file


def _prints(command: list[str], argument: str) -> str:
    """What a command says; nothing where it fails, as docker does without its plug-in."""
    told = subprocess.run([*command, argument], capture_output=True, text=True)
    return told.stdout if told.returncode == 0 else ""


def compose() -> list[str]:
    """The command that reads such files, as far as one is installed."""
    for command in (["docker", "compose"], ["podman-compose"]):
        there = shutil.which(command[0]) and _prints(command, "version")
        if there and "config" in _prints(command, "--help"):  # podman-compose before 1.1 knows no such command
            return command
    return []


@pytest.mark.skipif(not compose(), reason="wants docker compose or podman-compose")
def test_compose_reads_it() -> None:
    subprocess.run([*compose(), "--file", str(DEPLOY / "compose.yaml"), "config"], check=True, timeout=60)
