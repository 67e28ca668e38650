"""The night: look what lies in the sources, collect, deduplicate, extract, curate; then name the new dataset version.

    facemill run refresh            once, here and now
    facemill serve                  every night at three (docs/scheduling.md)

The version appears in `facemill version list` and on the Prefect page, with a contact sheet. Nothing new in the
sources, no new version. With `then_train` a night that brought something new starts the deployment `train/gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from facemill.errors import FacemillError
from flows import pages, pictures
from flows.at_work import project_flow, wait_for_server
from flows.stages import (
    Files,
    Metrics,
    forgiving,
    pushed,
    read_metrics,
    run_stage,
    show_freshness,
    show_pictures,
    show_reasons,
)
from flows.start import start_once
from tasks.curating.coverage import lacks, read_coverage
from tasks.inventory import current_code, look, would_change_nothing
from tasks.params import Params, load_params
from tasks.stages import REFRESH_STAGES, check_code
from tasks.versions import dvc
from tasks.versions.freshness import note_refresh
from tasks.versions.store import Version, save_version


@dataclass(frozen=True)
class Refreshed:
    version: Version
    metrics: dict[str, Metrics]
    """Of each stage, as in data/metrics."""


@project_flow("refresh", waits=False)
def refresh(then_train: bool = False) -> Refreshed:
    """Brings the dataset of the project in whose folder it runs up to date and names it.

    Args:
        then_train: start the deployment train/gpu if there is something to train on (needs a server).
    """
    project = Path.cwd()
    params = load_params(project)
    show_freshness(project, params)
    found = _look(project, params)
    show_reasons(project, found, asks_network=params.network_sources)
    idle = found is not None and is_up_to_date(project, params, found)
    if idle:
        get_run_logger().info("Nothing is new, and nothing that decides has changed: no stage runs.")
        metrics = {stage: read_metrics(project, stage) for stage in REFRESH_STAGES}
    else:
        metrics = _run_stages(project, asks_network=params.network_sources)
    version = name_version(project)
    note_refresh(project, version)
    show_freshness(project, params)
    if version.is_new or not idle:
        show_coverage(project, params, version)
        show_pictures("dataset", f"Dataset {version.name}", pictures.dataset_sheets(project))
    with pushed(project, REFRESH_STAGES):
        if then_train and dvc.stale(project, "train"):
            wait_for_server()
            start_once("train/gpu", f"train-{version.name}-{version.dataset}", then_convert=True)
    return Refreshed(version, metrics)


def _look(project: Path, params: Params) -> Files | None:
    """What the inventory would write now; None where that cannot be told here: the stage says what is wrong."""
    try:
        check_code(project)
        return look(params, project).files(current_code(params, project))
    except FacemillError:
        return None


def is_up_to_date(project: Path, params: Params, found: Files) -> bool:
    """Whether every stage of the refresh would do again what it has done; most nights bring nothing.

    The inventory has looked, then, and DVC is asked once for all stages: a tenth of what it costs to run them.
    """
    if params.network_sources or not would_change_nothing(params, project, found):
        return False  # DVC cannot see that the network has something new
    try:
        return not dvc.stale(project, *REFRESH_STAGES)
    except FacemillError:  # another DVC is at work, or dvc.yaml is wrong: the stages wait for it, or say so
        return False


def _run_stages(project: Path, *, asks_network: bool) -> dict[str, Metrics]:
    """Looks what lies in the sources, and if that or anything else has changed runs what depends on it."""
    first, *others = REFRESH_STAGES
    metrics = {first: run_stage(project, first)}
    changed = asks_network or dvc.stale(project, *others)
    for stage in others:
        # DVC cannot see that the network has something new.
        force = stage == "collect" and asks_network
        metrics[stage] = run_stage(project, stage, force=force) if changed else read_metrics(project, stage)
    return metrics


def show_coverage(project: Path, params: Params, version: Version) -> None:
    """What the faces of the new dataset show and what is missing, as an artifact."""
    with forgiving():
        coverage = read_coverage(project, params.identities)
        page = pages.coverage_page(coverage, lacks(coverage, params.convert.becomes))
        create_markdown_artifact(page, key="dataset-coverage", description=f"What the faces of {version.name} show")


@task(cache_policy=NO_CACHE)
def name_version(root: Path) -> Version:
    """Names the dataset, or finds the name that it has."""
    version = save_version(root, tell=get_run_logger().warning, is_untouched=True)  # DVC was asked, or has made it
    with forgiving():
        page = pages.version_page(version)
        create_markdown_artifact(page, key="dataset-version", description=f"Dataset {version.name}")
    return version
