"""`dvc repro` with nothing to do, against the same Python asking nothing of DVC (`facemill check`), medians of five.

    python benchmarks/repro.py          # in a project where `dvc repro` or `make run` has run

Target: at most 10 s. What it costs is DVC's start, the look at the sources (stage `inventory`) and hashing by mtime.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 5


def main() -> None:
    repro = [sys.executable, "-m", "dvc", "repro"]
    if "Running stage 'collect'" in _run(repro)[1]:
        print("the pipeline was stale; it is up to date now")
    check = [sys.executable, "-m", "flows.command_line", "check"]
    repro_s = statistics.median(_run(repro)[0] for _ in range(RUNS))
    check_s = statistics.median(_run(check)[0] for _ in range(RUNS))
    print(
        f"dvc repro with nothing to do: {repro_s:.1f} s; facemill check: {check_s:.1f} s; ratio {repro_s / check_s:.1f}"
    )


def _run(command: list[str]) -> tuple[float, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": path})
    return time.monotonic() - start, done.stdout


if __name__ == "__main__":
    main()
