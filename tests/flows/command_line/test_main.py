"""The command line: a small tree, one message for each failure, the codes that scripts rely on."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from typer.main import get_command
from typer.testing import CliRunner

from flows.command_line.main import app
from flows.serve import serve_all

PROJECT = Path(__file__).resolve().parents[3]


def facemill(*arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def commands(command: Any, path: tuple[str, ...] = ("facemill",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) for the command and all below it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ALL = dict(commands(get_command(app)))
OPTIONS = {(*path, option.name): option for path, command in ALL.items() for option in command.params}
SENTENCE = re.compile(r"[A-Z]\S*( \S+){2,}\.")  # alone it must mean something: "Of the first steps." does not
FRAGMENT = re.compile(r"(Of|In|For|By|To|As|At|Which|How) ", re.IGNORECASE)
BOUNDS = re.compile(
    r"( \([^()]*\))+$"
)  # what an option of a settings class gets behind its sentence: (≥ 1) (default: 16)


def reads_alone(text: str | None) -> bool:
    """Whether a help text says something to a person who reads no other line."""
    return text is not None and bool(SENTENCE.fullmatch(BOUNDS.sub("", text))) and not FRAGMENT.match(text)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    first, *rest = ALL[path].help.split("\n\n")
    assert reads_alone(" ".join(first.split()))
    is_group = hasattr(ALL[path], "commands")
    assert is_group or any(part.startswith(f"Example: {' '.join(path)}") for part in rest)
    result = CliRunner().invoke(app, [*path[1:], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    written = [ALL[path].help, *(option.help or "" for option in ALL[path].params)]
    # Rich takes [x] for a style and shows nothing of it
    assert {word for text in written for word in text.split()} <= {*re.split(r"[│\s]+", result.output)}


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_the_help_of_every_option_is_a_sentence_that_reads_alone(option: tuple[str, ...]) -> None:
    assert reads_alone(OPTIONS[option].help)


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("Port of the Prefect server that is started if PREFECT_API_URL is not set.", True),
        ("Of the server, where PREFECT_API_URL names none.", False),
        ("In which that is meant.", False),
        ("jpeg or png.", False),
        ("How many updates.", False),
        ("Pictures in each update. (≥ 1) (default: 16)", True),
        ("Seed for weights", False),
        ("Seed for weights (≥ 0)", False),
        (None, False),
    ],
)
def test_a_help_text_is_told_from_a_fragment(text: str | None, alone: bool) -> None:
    assert reads_alone(text) is alone


def parameters_of_flows() -> dict[str, set[str]]:
    """Command below `facemill run` → parameters of the flows in the module of that name."""
    found = {}
    for path in (PROJECT / "flows").glob("*.py"):
        module = import_module(f"flows.{path.stem}")
        flows = [each for each in vars(module).values() if isinstance(each, Flow)]
        own = [each.fn for each in flows if each.fn.__module__ == module.__name__]
        if own:
            found[path.stem] = {name for function in own for name in inspect.signature(function).parameters}
    return found


def test_the_command_of_a_flow_has_all_parameters_of_the_flow() -> None:
    run = {path[-1]: {option.name for option in command.params} for path, command in ALL.items() if "run" in path[1:-1]}
    assert run == {name: parameters | {"root"} for name, parameters in parameters_of_flows().items()}


def test_serve_has_all_parameters_of_serving() -> None:
    parameters = inspect.signature(serve_all).parameters
    assert {option.name for option in ALL["facemill", "serve"].params} == {*parameters} - {"server"} | {"root", "port"}


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
        (["export", "model"], "facemill.model_folder"),
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
