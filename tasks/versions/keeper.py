"""Mends what DVC leaves when it is killed, as soon as it is: a process of its own that waits for DVC's end.

DVC takes a tenth of a second and more to write dvc.lock, in place, after every stage. Killed then, it leaves a file
that the next `dvc repro` refuses before anything of ours runs. So the first stage that works for a DVC, or for a flow
that calls one DVC after another, starts a keeper, which outlives them and mends the file
(`tasks.versions.leftovers.mend`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from facemill.files import write_bytes
from facemill.processes import ProcessId, running_process
from tasks.work.scratch import WORK_FOLDER

LOG_FILE = f"{WORK_FOLDER}/keeper.log"
"""What the last keeper said: whoever called DVC may be gone by then, so it has no terminal."""
_KNOWN_FILE = f"{WORK_FOLDER}/keeper"  # the living keeper and the process that it waits for
_LOOK_EVERY_S = 0.2


def keep(root: Path, master: ProcessId) -> None:
    """Sees to it that a keeper waits for the end of a DVC or of the flow that calls it.

    To be called by a stage, of which DVC runs one at a time.
    """
    known = root / _KNOWN_FILE
    words = known.read_text(errors="replace").split() if known.exists() else []
    keeper = ProcessId.parse(words[0]) if len(words) == 2 and words[1] == str(master) else None
    if keeper is not None and keeper.is_here and keeper.is_alive:
        return
    with (root / LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(root), str(master)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # else what ends DVC's group ends the keeper
        )
    if (started := running_process(process.pid)) is not None:
        write_bytes(known, f"{started} {master}".encode())
    process.returncode = 0  # nobody asks how it ended, and Popen shall not warn that it lives on


def _wait_and_mend(root: Path, master: ProcessId) -> None:
    while master.is_alive:
        time.sleep(_LOOK_EVERY_S)
    from tasks.versions.leftovers import mend  # not while it only waits, perhaps for days

    mend(root)


if __name__ == "__main__":
    waited_for = ProcessId.parse(sys.argv[2])
    if waited_for is not None:
        _wait_and_mend(Path(sys.argv[1]), waited_for)
