"""The table of stages, and how one of them is run.

What stands here about a stage is said nowhere else, or held against it by a test: dvc.yaml (the same stages in the same
order, with their parameter groups and data), the command line, the flows, the report. A new stage is a module of its
name in this folder, a row of this table, the names of its tables in `tasks/catalogue.py` and an entry in dvc.yaml.

What is stale is DVC's business; running a stage here runs it whatever its state.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol, cast

from facemill.errors import FacemillError
from facemill.files import sweep
from facemill.locks import locked
from facemill.patience import Rule
from facemill.processes import ProcessId, ends_with
from tasks.catalogue import Data, metrics_file, weights_file

if TYPE_CHECKING:  # the command line reads the table, and must answer at once
    from tasks.params import Params
    from tasks.work.totals import Totals

_HOUR_S = 3600.0


class Run(Protocol):
    """The work of a stage: reads and writes below `root/data`, and says how every input ended.

    Raises:
        FacemillError: what is wrong and how to mend it.
    """

    def __call__(self, params: Params, root: Path, *, retry: bool = False) -> Totals: ...


class _Module(Protocol):
    run: Run


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline; paths are relative to the project's folder."""

    name: str
    """Also the name of its module in this folder, and of its entry in dvc.yaml."""
    does: str
    """One sentence: what it does."""
    params: tuple[str, ...]
    """The groups of params.yaml that decide what it makes."""
    reads: tuple[str, ...]
    """Tables and files that earlier stages have made."""
    makes: tuple[str, ...]
    """Tables and files that are its own: nobody else writes there."""
    metrics: str | None
    """File of its numbers."""
    rule: Rule
    """How long it may take and how often it is tried in a flow, where nobody watches."""
    rows: str | None = None
    """What its rows are, where the report shows how they ended."""
    refresh: bool = False
    """Whether it belongs to the refresh of the dataset, whose outcome versions name."""

    @property
    def run(self) -> Run:
        """The work. Its module is imported only now: most of them load torch."""
        module = cast(_Module, importlib.import_module(f"tasks.{self.name}"))  # a test holds each module to it
        return module.run


_TABLE = (
    Stage(
        name="inventory",
        does="Lists what lies in the sources, the references and the archive, by content.",
        params=("identities", "archive", "extract", "train", "track", "convert"),
        reads=(),
        makes=(Data.INVENTORY, Data.DECISIONS, Data.WEIGHTS, Data.CODE),
        metrics=None,
        rule=Rule(1 * _HOUR_S, 2, 30, "reads every file: a network drive may be away for a moment"),
        refresh=True,
    ),
    Stage(
        name="collect",
        does="Collects the pictures of every source, each as a row, and the videos of the archive.",
        params=("seed", "identities", "archive", "collect"),
        reads=(Data.INVENTORY,),
        makes=(Data.RAW, Data.VIDEOS, Data.ARCHIVE),
        metrics=metrics_file("collect"),
        rule=Rule(8 * _HOUR_S, 3, 60, "hosts fail for minutes; only the rows that failed are fetched again"),
        rows="pictures",
        refresh=True,
    ),
    Stage(
        name="dedup",
        does="Marks exact and near duplicates and keeps the best picture of each group.",
        params=("dedup",),
        reads=(Data.RAW,),
        makes=(Data.UNIQUE,),
        metrics=metrics_file("dedup"),
        rule=Rule(4 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
        rows="pictures",
        refresh=True,
    ),
    Stage(
        name="extract",
        does="Finds faces and their landmarks, and makes an aligned crop and an embedding of each.",
        params=("extract",),
        reads=(Data.UNIQUE, weights_file("extract")),
        makes=(Data.FACES,),
        metrics=metrics_file("extract"),
        rule=Rule(12 * _HOUR_S, 2, 60, "a machine may lose its workers; finished shards are kept"),
        rows="pictures",
        refresh=True,
    ),
    Stage(
        name="curate",
        does="Keeps the wanted identities at the wanted quality, split, with a reason for every other face.",
        params=("curate",),
        reads=(Data.FACES, Data.UNIQUE, Data.DECISIONS),
        makes=(Data.DATASET,),
        metrics=metrics_file("curate"),
        rule=Rule(2 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
        rows="faces",
        refresh=True,
    ),
    Stage(
        name="train",
        does="Trains a face-swap model of everybody in the dataset.",
        params=("seed", "train"),
        reads=(Data.DATASET, weights_file("train")),
        makes=(Data.MODEL, Data.TRAIN),
        metrics=metrics_file("train"),
        rule=Rule(48 * _HOUR_S, 3, 60, "a GPU may be taken or lost; training goes on from its last checkpoint"),
        rows="faces",
    ),
    Stage(
        name="track",
        does="Follows every face through the videos of the archive, with landmarks and embeddings.",
        params=("track", "archive"),
        reads=(Data.VIDEOS, Data.ARCHIVE, weights_file("track")),
        makes=(Data.SEGMENTS, Data.TRACKS, Data.TRACK_POINTS),
        metrics=metrics_file("track"),
        rule=Rule(48 * _HOUR_S, 2, 60, "a machine may lose its workers; finished segments are kept"),
        rows="videos",
    ),
    Stage(
        name="convert",
        does="Converts the videos of the archive, with the face replaced and everything else kept.",
        params=("track", "convert", "archive"),
        reads=(
            Data.MODEL,
            Data.VIDEOS,
            Data.ARCHIVE,
            Data.SEGMENTS,
            Data.TRACKS,
            Data.TRACK_POINTS,
            weights_file("convert"),
        ),
        makes=(Data.CONVERTED, Data.CONVERSIONS),
        metrics=metrics_file("convert"),
        rule=Rule(4 * _HOUR_S, 2, 60, "only publishes what the tasks of each video left; a drive may be away"),
        rows="videos",
    ),
    Stage(
        name="report",
        does="Writes one page with pictures and measures, the same numbers as JSON, and the few that DVC compares.",
        params=(
            "seed",
            "identities",
            "archive",
            "collect",
            "dedup",
            "extract",
            "curate",
            "train",
            "track",
            "convert",
            "report",
        ),
        reads=(
            Data.RAW,
            Data.UNIQUE,
            Data.FACES,
            Data.DATASET,
            Data.TRAIN,
            Data.MODEL,
            Data.ARCHIVE,
            Data.SEGMENTS,
            Data.TRACKS,
            Data.TRACK_POINTS,
            Data.CONVERTED,
            Data.CONVERSIONS,
            Data.METRICS,
        ),
        makes=(Data.REPORT, Data.REPORT_MEASURES, Data.REPORT_PLOTS),
        metrics=Data.REPORT_METRICS,
        rule=Rule(2 * _HOUR_S, 1, 0, "no network, no chance: a second try would fail alike"),
    ),
)
STAGES = {stage.name: stage for stage in _TABLE}
"""Name → stage, in the order of the pipeline."""
REFRESH_STAGES = tuple(name for name, stage in STAGES.items() if stage.refresh)
PARAM_GROUPS = tuple(dict.fromkeys(group for stage in _TABLE for group in stage.params))
"""The groups of params.yaml that stages name, and dvc.yaml with them."""


def run_stage(name: str, root: Path, *, retry: bool = False, run: Run | None = None) -> Totals:
    """Runs one stage in the project at `root`.

    Args:
        name: one of `STAGES`.
        root: the folder with params.yaml; outputs go to `root/data`.
        retry: also take up the rows that failed before.
        run: in place of the stage's own work.

    Raises:
        FacemillError: unknown stage, another clone's code, wrong parameters, the stage is running already, or its own
            errors.
    """
    from tasks.params import check_groups, load_params
    from tasks.versions import keeper, leftovers
    from tasks.work.callers import callers
    from tasks.work.deciders import current_deciders, write_deciders

    if name not in STAGES:
        raise FacemillError(f"no stage {name!r}; the stages are {', '.join(STAGES)}")
    check_code(root)
    params = load_params(root)
    if name == next(iter(STAGES)):
        check_groups(root, PARAM_GROUPS)  # before DVC stumbles over it, stage after stage
    masters = callers()
    with only_one(root, name, works_for=masters), _termination_is_an_interrupt(), ends_with(masters):
        if masters:
            leftovers.keep_lock(root)
            keeper.keep(root, masters[-1])
        else:
            leftovers.mend(root)
        stage = STAGES[name]
        if stage.reads:  # what the inventory found may be older than the code that runs now
            write_deciders(root, name, current_deciders(root, name, params))
        for folder in {(root / made).parent for made in (*stage.makes, stage.metrics) if made}:
            sweep(folder, deep=False)  # what a killed run left half-written
        totals = (run or stage.run)(params, root, retry=retry)
        _check_params_stayed(root, stage, params)
        return totals


def _check_params_stayed(root: Path, stage: Stage, before: Params) -> None:
    """DVC writes down the parameters as they are when a stage has ended, as what its outputs were made with."""
    from tasks.params import load_params

    try:
        now = load_params(root)
    except FacemillError as error:
        raise FacemillError(
            f"params.yaml was edited while stage {stage.name} ran, and is wrong now: {error}"
        ) from error
    if edited := [group for group in stage.params if getattr(now, group) != getattr(before, group)]:
        raise FacemillError(
            f"params.yaml was edited while stage {stage.name} ran ({', '.join(edited)}): what it made belongs to the "
            "old parameters; run the same command again"
        )


def check_code(root: Path) -> None:
    """An installed `facemill` runs the code of its own clone, and who changes that of this one would wonder.

    Raises:
        FacemillError: the project has code of its own, and this process runs another one's.
    """
    here = Path(__file__).resolve()
    theirs = root / "tasks" / here.name
    if theirs.exists() and not theirs.samefile(here):
        raise FacemillError(
            f"{root} has code of its own, but this facemill runs that of {here.parents[1]}: activate the environment "
            "of that clone first (. .venv/bin/activate), or make it with `make setup`"
        )


def stage_lock(root: Path, name: str) -> Path:
    """The file that is locked while a stage runs."""
    from tasks.work.scratch import WORK_FOLDER

    return root / WORK_FOLDER / f"{name}.lock"


@contextmanager
def only_one(root: Path, name: str, *, works_for: Sequence[ProcessId] = ()) -> Iterator[None]:
    """Two runs of one stage would fight over its scratch folder. The lock dies with its process.

    Args:
        works_for: as `facemill.locks.locked` has it.

    Raises:
        FacemillError: the stage is running already, with who runs it; or the folder cannot be written to.
    """
    with locked(
        stage_lock(root, name),
        f"stage {name} is already running in {root}",
        "wait for it, or stop it",
        works_for=works_for,
    ):
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
    from tasks.work.terminal import one_line, say, say_table

    rows = [
        (state, reason, count)
        for state, reasons in sorted(totals.counts.items())
        for reason, count in sorted(reasons.items())
    ]
    count = f"{totals.rows_in} row" + ("" if totals.rows_in == 1 else "s")
    say(f"Stage {one_line(totals.stage)} took {totals.seconds:.1f} s for {count}, which ended like this:")
    say_table(("state", "reason", "rows"), rows)
