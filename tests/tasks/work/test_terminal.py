"""Names that would steer a terminal, break rich's markup or are no text: printed so that a person can read them."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.reasons import State
from tasks.stages import print_totals
from tasks.versions.store import Version, print_versions
from tasks.work.progress import _bar, track
from tasks.work.terminal import lines, one_line, say, say_error, say_table
from tasks.work.totals import Totals

PROJECT = Path(__file__).resolve().parents[3]
HOSTILE = {
    "a closing tag": ("x[/b].mp4", "x[/b].mp4"),
    "a link": ("[link=http://x]a", "[link=http://x]a"),
    "a backslash at the end": ("a[b]\\", "a[b]\\"),
    "an emoji code": (":smile:.mp4", ":smile:.mp4"),
    "a colour": ("\x1b[31mred", r"\x1b[31mred"),
    "the window's title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "a control character of 8 bits": ("\x9b31m", r"\x9b31m"),
    "a line break": ("a\nerror: b", r"a\nerror: b"),
    "back to the start of the line": ("a\rb", r"a\rb"),
    "the other direction": ("\u202egpj.exe", r"\u202egpj.exe"),
    "bytes that are no text": (os.fsdecode(b"\xff\xfe.mp4"), "��.mp4"),
    "a name of people": ("Zoë, 李, نسرین\u200c", "Zoë, 李, نسرین\u200c"),
}
each = pytest.mark.parametrize(("name", "shown"), HOSTILE.values(), ids=HOSTILE)


@each
def test_a_name_is_shown_on_one_line_and_steers_nothing(name: str, shown: str) -> None:
    assert one_line(name) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_a_text_holds_it_can_be_written_and_has_no_control_character(text: str) -> None:
    shown = one_line(text).encode()  # half a pair has no UTF-8
    assert not any(byte < 32 or byte == 127 for byte in shown)


def test_the_lines_of_a_message_stay() -> None:
    assert lines("two wrong values:\n\ta: \x1b") == "two wrong values:\n\ta: \\x1b"


@each
def test_an_error_is_said_as_it_is(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_error("error", f"{name!s} is not a video")
    said = capsys.readouterr().err
    assert said == f"error: {lines(name)} is not a video\n"
    assert shown.replace(r"\n", "\n") in said


@each
def test_a_table_holds_it_in_cells_heads_and_titles(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_table((name, "rows"), [(name, 12)], title=name)
    said = capsys.readouterr().out
    assert said.count(shown) == 3
    assert len(said.splitlines()) == 6


def test_a_narrow_table_cuts_nothing_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    path = "/usr/local/lib/python3.11/dist-packages/prefect/engine.py"
    say_table(("run", "why not"), [("imaginary-cobra", f"process 113: {path}")])
    assert path in "".join(line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)


@each
def test_versions_totals_and_progress_show_it(
    name: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # nothing is folded
    print_versions([Version(name, "abc.dir", "f" * 40, datetime(2026, 1, 1, tzinfo=UTC))])
    print_totals(Totals(name, 1, {State.OK: {name: 1}}, 1.0))
    with track("convert", 2, "videos") as progress:
        progress.advance(note=name)
    assert capsys.readouterr().out.count(shown) == 4


@each
def test_a_progress_bar_shows_it(name: str, shown: str) -> None:
    with _bar() as bar:
        bar.console.file = io.StringIO()
        bar.add_task("convert", total=2, note=one_line(name))
        bar.refresh()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_gets_another_one(encoding: str) -> None:
    code = (
        "import os; from tasks.work.terminal import say, say_error, say_table\n"
        "name = os.fsdecode(b'\\xff') + ' 李…'\n"
        "say(name); say_error('error', name); say_table(['name'], [[name]])"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, timeout=60, check=True
    )
    assert result.stdout.decode(encoding)
    assert result.stderr.decode(encoding).startswith("error: ")


def test_an_argument_that_is_no_text_is_named_in_an_error() -> None:
    command = [sys.executable, "-m", "flows.command_line", "detect", b"\xff[/b].mp4"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=60, check=False)
    assert result.returncode == 2
    assert b"[/b].mp4" in result.stderr
    assert b"Traceback" not in result.stderr


def test_nothing_else_in_the_project_prints() -> None:
    found = []
    for path in [*PROJECT.glob("tasks/**/*.py"), *PROJECT.glob("flows/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            prints = isinstance(node, ast.Name) and node.id == "print"
            echoes = isinstance(node, ast.Attribute) and node.attr in ("echo", "secho")
            rich = isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.console", "rich.table")
            if prints or echoes or rich:
                found.append(f"{path.relative_to(PROJECT)}:{node.lineno}")
    assert {place.partition(":")[0] for place in found} == {"tasks/work/terminal.py"}


def test_what_is_said_arrives_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("done")
    say("a warning", error=True)
    assert capsys.readouterr() == ("done\n", "a warning\n")
