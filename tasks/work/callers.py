"""For whom a stage works. DVC hands nothing on to the stage that it runs: kill DVC, and the stage would work on alone.

So a stage looks who called it and ends when one of them has ended (`facemill.processes.ends_with`), the way it ends on
Ctrl-C: a training saves, Dask's workers go, nothing half-written stays. That holds for a plain `dvc repro`, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from facemill.processes import ProcessId, running_process, this_process

CALLER_VARIABLE = "FACEMILL_CALLER"
"""Names the process that has called DVC, where that is one of ours: a flow."""
_DVC_VARIABLE = "DVC_STAGE"  # DVC sets it for each command that it runs


def callers() -> list[ProcessId]:
    """The processes without which this one has nobody to work for; none where a person has started it."""
    found = _dvc_and_shells() if _DVC_VARIABLE in os.environ else []
    caller = ProcessId.parse(os.environ.get(CALLER_VARIABLE, ""))
    if caller is not None and caller.is_here:
        found.append(caller)
    return found


def calling(environment: dict[str, str]) -> dict[str, str]:
    """An environment for DVC that names this process as its caller."""
    return environment | {CALLER_VARIABLE: str(this_process())}


def _dvc_and_shells() -> list[ProcessId]:
    """DVC, and the shell that may stand between it and this process."""
    found = []
    for parent in psutil.Process().parents():
        process = running_process(parent.pid)
        if process is None:
            continue
        found.append(process)
        try:
            words = parent.cmdline()
        except psutil.Error:
            words = []
        if any(Path(word).name == "dvc" for word in words):
            return found
    # DVC by another name, such as a script that calls its API: our parent at least. But not the first process of the
    # system, which adopts what has lost its parent and never ends.
    return [one for one in found[:1] if one.pid != 1]
