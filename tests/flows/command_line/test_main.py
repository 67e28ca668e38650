"""The command line: a small tree, one message for each failure, the codes that scripts rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.command_line.main import app

PROJECT = Path(__file__).resolve().parents[3]
COMMANDS = [
    ["check"],
    ["stage"],
    ["run", "refresh"],
    ["run", "train"],
    ["run", "convert"],
    ["run", "pipeline"],
    ["serve"],
    ["pools"],
    ["server"],
    ["login"],
    ["convert"],
    ["detect"],
    ["export"],
    ["detector", "train"],
    ["detector", "evaluate"],
    ["version", "list"],
    ["version", "save"],
    ["version", "compare"],
    ["version", "restore"],
]


def facemill(*arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


def modules_after(*arguments: str, cwd: Path = PROJECT) -> set[str]:
    """Names of the modules that a command has imported when it ends."""
    code = (
        "import sys\n"
        "from flows.command_line.main import main\n"
        f"sys.argv = ['facemill', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=True
    )
    return set(result.stderr.splitlines())


@pytest.mark.parametrize("command", [[], ["run"], ["run", "refresh"], ["serve"], ["stage"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    heavy = {"torch", "dask", "distributed", "prefect", "cv2", "dlib", "av", "pyarrow"}
    assert modules_after(*command, "--help") & heavy == set()


@pytest.mark.parametrize(
    ("command", "does"),
    [
        (["stage", "curate"], "tasks.curate"),
        (["check"], "tasks.params"),
        (["version", "list"], "tasks.versions.store"),
        (["export"], "facemill.model_folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_that_are_no_flows_do_without_prefect(command: list[str], does: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    modules = modules_after(*command, cwd=tmp_path)
    assert does in modules
    assert "prefect" not in modules


def test_check_says_what_the_parameters_ask_for() -> None:
    result = facemill("check")
    assert result.returncode == 0
    assert "hopper becomes collins" in result.stdout


def test_a_failure_is_one_message_and_a_code(tmp_path: Path) -> None:
    result = facemill("check", "--root", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith("error: no params.yaml in")
    assert "Traceback" not in result.stderr


def test_traceback_is_shown_on_demand(tmp_path: Path) -> None:
    result = facemill("--traceback", "check", "--root", str(tmp_path))
    assert "Traceback" in result.stderr
    assert result.returncode == 1


def test_wrong_usage_is_code_two() -> None:
    assert facemill("stage", "extarct").returncode == 2


def test_a_stage_without_its_input_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    result = facemill("stage", "curate", "--root", str(tmp_path))
    assert result.returncode == 1
    assert "table faces is missing" in result.stderr


def test_an_interrupt_is_code_130_and_says_how_to_go_on() -> None:
    code = (
        "import signal, sys, tasks.stages\n"
        "from flows.command_line.main import main\n"
        "tasks.stages.run_stage = lambda *_, **__: signal.raise_signal(signal.SIGINT)\n"
        "sys.argv = ['facemill', 'stage', 'train']\n"
        "main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 130
    assert "run the same command to go on" in result.stderr


@pytest.mark.parametrize(
    "command", [["stage", "convert"], ["stage", "train"], ["convert", "clips", "out"]], ids=" ".join
)
def test_without_stated_rights_nothing_is_trained_and_nothing_is_converted(command: list[str], tmp_path: Path) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    del values["identities"]["collins"]["rights"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "clips").mkdir()
    arguments = [str(tmp_path / name) if name in ("clips", "out") else name for name in command]
    result = facemill(*arguments, "--root", str(tmp_path))
    assert result.returncode == 1
    assert "identities.collins.rights: missing" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "params.yaml"]
