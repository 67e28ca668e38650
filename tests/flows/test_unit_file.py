"""deploy/facemill.service: systemd reads it, and the command in it is one of ours."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from flows.command_line.main import app

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "facemill.service"


def test_the_command_of_the_unit_is_one_that_we_have() -> None:
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    program, name, *options = shlex.split(line.removeprefix("ExecStart="))
    assert program.endswith("/.venv/bin/facemill")
    command = get_command(app).commands[name]  # type: ignore[attr-defined]  # a group
    assert command.make_context(name, options).params["timezone"] == "UTC"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="wants systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "facemill").symlink_to(sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("%h/facemill", str(tmp_path)))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
