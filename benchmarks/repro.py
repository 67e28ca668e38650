"""Nothing to do: what it costs to find that out, in seconds of the clock and of the processor, median and least
of five: on a machine that is busy with other things, those take longer, too.

    python benchmarks/repro.py [FOLDER …]      # projects that have been run; this one by default
    python benchmarks/repro.py --refresh …     # only the last of what follows, which wants neither model nor videos

Several projects, such as clones with other states of the code, are measured in turns. Targets: `dvc repro` 5 s,
`facemill why` 3 s, `facemill run refresh` beside a server that runs 10 s and 5 s of processor. Without one it brings
its own along, whose start is most of it. `facemill check` is the same Python asking nothing of DVC.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

RUNS = 5
FACEMILL = (sys.executable, "-m", "flows.command_line")
COMMANDS = {
    "dvc repro": (sys.executable, "-m", "dvc", "repro"),
    "facemill why": (*FACEMILL, "why"),
    "facemill check": (*FACEMILL, "check"),
    "facemill run refresh": (*FACEMILL, "run", "refresh"),
}
BESIDE = "facemill run refresh, beside a server"
START_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path()], metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--refresh", action="store_true", help="only a refresh beside a server")
    arguments = parser.parse_args()
    projects = [folder.resolve() for folder in arguments.folders]
    commands = {} if arguments.refresh else COMMANDS
    for project in projects:
        if commands and _timed(project, COMMANDS["dvc repro"]).ran_a_stage:
            print(f"{project}: the pipeline was stale; it is up to date now")
        _timed(project, COMMANDS["facemill run refresh"])  # names the dataset
    found: defaultdict[tuple[str, Path], list[Timed]] = defaultdict(list)
    for _ in range(arguments.runs):
        for what, command in commands.items():
            for project in projects:
                found[what, project].append(_timed(project, command))
    with ExitStack() as stack:
        for project in projects:
            stack.enter_context(_server(project))
        for _ in range(arguments.runs):
            for project in projects:
                found[BESIDE, project].append(_timed(project, COMMANDS["facemill run refresh"]))
    for (what, project), timed in found.items():
        wall, processor = ([getattr(each, name) for each in timed] for name in ("wall_s", "busy_s"))
        where = f" in {project}" if len(projects) > 1 else ""
        print(
            f"{what}{where}: {statistics.median(wall):.1f} s, {statistics.median(processor):.1f} s of processor; "
            f"the least {min(wall):.1f} and {min(processor):.1f} s"
        )


class Timed:
    """A command that has ended well: how long it took, and how long processors were busy with it and its children."""

    def __init__(self, wall_s: float, busy_s: float, said: str) -> None:
        self.wall_s, self.busy_s = wall_s, busy_s
        self.ran_a_stage = "Running stage 'collect'" in said


def _timed(project: Path, command: tuple[str, ...]) -> Timed:
    before, start = os.times(), time.monotonic()
    done = subprocess.run(
        command, cwd=project, env=_environment(project), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wall_s, after = time.monotonic() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed in {project}:\n{done.stdout}")
    busy = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Timed(wall_s, busy, done.stdout)


@contextmanager
def _server(project: Path) -> Iterator[None]:
    """A server of the project, on a port that is free."""
    command = [*FACEMILL, "server", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=project, env=_environment(project), stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        end = time.monotonic() + START_S
        while "Ctrl-C ends it" not in (line := process.stdout.readline() if process.stdout else ""):
            if not line or time.monotonic() > end:
                sys.exit(f"the server of {project} did not start")
        yield
    finally:
        process.terminate()
        process.wait()


def _environment(project: Path) -> dict[str, str]:
    """The code is the project's own; the byte code that Python keeps is used, as on any machine."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PATH": path, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1"}


if __name__ == "__main__":
    main()
