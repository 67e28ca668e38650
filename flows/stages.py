"""The Prefect task that runs a stage, whichever it is, and shows on the page how it goes and how it ended."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import State, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import task_run

from facemill.errors import FacemillError
from facemill.files import read_object
from facemill.patience import TRIES_AFTER_DEATH
from flows import pages
from flows.server_patience import asked_once
from tasks.catalogue import metrics_file
from tasks.commands.why import why
from tasks.params import Params
from tasks.stages import STAGES
from tasks.versions import dvc
from tasks.versions.freshness import freshness
from tasks.versions.remote import check_remote
from tasks.work.totals import read_times

Metrics = dict[str, Any]
Files = Mapping[str, Mapping[str, Any]]
_PAGE_EVERY_S = 2.0
_AWAY_EVERY_S = 60.0


def run_stage(root: Path, stage: str, *, force: bool = False, on_tick: Callable[[], None] = lambda: None) -> Metrics:
    """Brings a stage up to date through DVC, as often and as long as its rule allows; returns its metrics.

    Raises:
        FacemillError: the stage failed in its last try, with its last lines.
    """
    rule = STAGES[stage].rule

    def may_go_better(task: object, run: TaskRun, state: State[Any]) -> bool:
        ended = state.result(raise_on_failure=False)
        tries = max(rule.tries, TRIES_AFTER_DEATH) if isinstance(ended, dvc.StageDied) else rule.tries
        return isinstance(ended, dvc.StageFailed) and run.run_count < tries

    named = _run_stage.with_options(
        name=stage,
        retries=max(rule.tries, TRIES_AFTER_DEATH) - 1,
        retry_delay_seconds=rule.wait_s,
        retry_condition_fn=may_go_better,
    )
    return named(root, stage, force, on_tick)


def push(root: Path, stages: Iterable[str]) -> None:
    """Sends the stages' outputs to DVC's default remote; without one there is nothing to send to."""
    check_remote(root)
    if dvc.default_remote(root) is None:
        get_run_logger().info("no default DVC remote: the data stays on this machine")
        return
    _push.with_options(retries=dvc.TRANSFER.tries - 1, retry_delay_seconds=dvc.TRANSFER.wait_s)(root, tuple(stages))


@contextmanager
def pushed(root: Path, stages: Iterable[str]) -> Iterator[None]:
    """The same before the block, which runs although the remote is full, read-only or away: that is raised after it.

    What comes next needs no copy; but DVC sends and works one after the other.
    """
    failed: FacemillError | None = None
    try:
        push(root, stages)
    except FacemillError as error:
        failed = error
    yield
    if failed is not None:
        raise failed


def show_reasons(root: Path, files: Files | None, *, asks_network: bool = False) -> None:
    """Puts on the page why each stage is about to run again, or that it is up to date.

    It changes no work: whatever `facemill why` stumbles over is the log's, and the stages say it themselves.

    Args:
        root: the project's folder.
        files: what the inventory would write now; without them it is asked for once more, and says why not.
        asks_network: `collect` runs whether anything has changed or not.
    """
    with forgiving():
        reasons = why(root, files=files)
        if asks_network:
            reasons["collect"] = ["a source in the network is asked each time", *reasons["collect"]]
        create_table_artifact(pages.reasons_table(reasons), key="why", description="Why each stage runs again")


def show_freshness(root: Path, params: Params) -> None:
    """Puts on the page how old the dataset is, and whether that is too old; it changes no work.

    A refresh shows it before it begins, so that one that fails leaves the truth there, and again when it has ended.
    """
    with forgiving():
        found = freshness(root, params)
        create_markdown_artifact(pages.freshness_page(found), key="freshness", description="How old the dataset is")


def show_pictures(key: str, title: str, pictures: Iterable[tuple[str, bytes]]) -> None:
    """Puts pictures on the page, if there are any. A page that cannot be written is no reason to fail."""
    with forgiving():
        if found := list(pictures):
            create_markdown_artifact(pages.picture_page(title, found), key=key, description=title)


@contextmanager
def forgiving() -> Iterator[None]:
    """For what is only shown: it goes wrong (a server that restarts, a database that is locked), the work goes on."""
    try:
        with asked_once():
            yield
    except Exception as error:
        get_run_logger().warning("the page could not be updated: %s", error)


class ProgressBar:
    """A progress artifact that is updated at most every two seconds, and every minute while the server is away."""

    def __init__(self, name: str) -> None:
        self._key = f"{name}-progress"
        self._next = 0.0
        self._id: UUID | None = None
        self._show(0.0, "starting")

    def show(self, values: dict[str, Any], *, last: bool = False) -> None:
        """Shows values as tasks.work.progress writes them."""
        if last or time.monotonic() >= self._next:
            self._show(*pages.progress_words(values))

    def _show(self, percent: float, words: str) -> None:
        self._next = time.monotonic() + _AWAY_EVERY_S
        with forgiving():
            if self._id is None:
                made = create_progress_artifact(percent, key=self._key, description=words)
                self._id = cast(UUID, made)  # a coroutine only where it is called from one
            else:
                update_progress_artifact(self._id, progress=percent, description=words)
            self._next = time.monotonic() + _PAGE_EVERY_S


# The product is files, which DVC keeps: Prefect's cache would call a stage done whose files are gone.
@task(cache_policy=NO_CACHE)
def _run_stage(root: Path, stage: str, force: bool, on_tick: Callable[[], None]) -> Metrics:
    logger = get_run_logger()
    bar = ProgressBar(stage)
    with tempfile.TemporaryDirectory(prefix=f"facemill-{stage}-") as folder:
        progress = Path(folder) / "progress.json"

        def tick() -> None:
            bar.show(_read(progress))
            on_tick()

        dvc.repro(
            root,
            stage,
            deadline_s=STAGES[stage].rule.deadline_s,
            force=force,
            retry=(task_run.run_count or 1) > 1,
            on_line=logger.info,
            on_tick=tick,
            progress_file=progress,
        )
        bar.show(_read(progress) or {"done": 1, "total": 1, "note": "done"}, last=True)
    metrics = read_metrics(root, stage)
    if metrics:
        with forgiving():
            create_table_artifact(pages.counts_table(metrics), key=f"{stage}-rows", description=f"Rows of {stage}")
    return metrics


def read_metrics(root: Path, stage: str) -> Metrics:
    """A stage's rows by state and reason, and how long it took, from when it ran last; nothing if it never has."""
    path = root / metrics_file(stage)
    return {**read_object(path), **read_times(root, stage)} if path.exists() else {}


@task(name="push", cache_policy=NO_CACHE)
def _push(root: Path, stages: tuple[str, ...]) -> None:
    dvc.push(root, stages, on_line=get_run_logger().info)


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return values
