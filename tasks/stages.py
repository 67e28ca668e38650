"""The table of stages and how one is run from the command line.

The order here is the order of the pipeline. What is stale is DVC's business (`dvc.yaml`); running a stage here runs it
whatever its state.
"""

from __future__ import annotations

import fcntl
import importlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from facemill.errors import FacemillError
from tasks.params import check_groups, load_params
from tasks.work.shards import WORK_FOLDER, Totals

STAGES = ("inventory", "collect", "dedup", "extract", "curate", "train", "convert", "report")
REFRESH_STAGES = STAGES[:5]


def run_stage(name: str, root: Path, *, retry: bool = False) -> Totals:
    """Runs one stage in the project at `root`.

    Args:
        name: one of `STAGES`.
        root: the folder with params.yaml; outputs go to `root/data`.
        retry: also take up the rows that failed before.

    Raises:
        FacemillError: unknown stage, wrong parameters, the stage is running already, or its own errors.
    """
    if name not in STAGES:
        raise FacemillError(f"no stage {name!r}; the stages are {', '.join(STAGES)}")
    params = load_params(root)
    if name == STAGES[0]:
        check_groups(root)  # before DVC stumbles over it, stage after stage
    module = importlib.import_module(f"tasks.{name}")
    with only_one(root, name), _termination_is_an_interrupt():
        totals: Totals = module.run(params, root, retry=retry)
    return totals


@contextmanager
def only_one(root: Path, name: str) -> Iterator[None]:
    """Two runs of one stage would fight over its scratch folder. The lock dies with its process."""
    path = root / WORK_FOLDER / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FacemillError(f"stage {name} is already running in {root}: wait for it, or stop it") from error
        yield


@contextmanager
def _termination_is_an_interrupt() -> Iterator[None]:
    """SIGTERM ends a stage the way Ctrl-C does: through `finally`, so that nothing half-written stays."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def print_totals(totals: Totals) -> None:
    """The last lines of a stage: states, reasons, seconds."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{totals.stage}: {totals.rows_in} in, {totals.seconds:.1f} s", title_justify="left")
    table.add_column("state")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    for state, reasons in sorted(totals.counts.items()):
        for reason, count in sorted(reasons.items()):
            table.add_row(state, reason, str(count))
    Console(file=sys.stdout).print(table)
