"""Everything, in order: refresh, train, convert, report.

    facemill run pipeline

Training starts only if DVC finds the model stale: there is a new dataset version, other parameters, or no model yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.at_work import project_flow, wait_for_server
from flows.convert import convert
from flows.refresh import refresh
from flows.stages import Metrics, forgiving, run_stage
from flows.train import train
from tasks.catalogue import Data
from tasks.stages import REFRESH_STAGES, STAGES
from tasks.versions import dvc
from tasks.versions.store import Version

_OWN_FLOWS: dict[str, Callable[[], Metrics]] = {"train": train, "convert": convert}


@dataclass(frozen=True)
class Finished:
    version: Version
    trained: bool
    metrics: dict[str, Metrics]
    """Of each stage that ran."""


@project_flow("pipeline", waits=False)
def pipeline() -> Finished:
    """Brings dataset, model, videos and report of the project in whose folder it runs up to date."""
    project = Path.cwd()
    refreshed = refresh()
    metrics = dict(refreshed.metrics)
    stale = dvc.stale(project, "train")
    for stage in STAGES:
        if stage in REFRESH_STAGES or (stage == "train" and not stale):
            continue
        own = _OWN_FLOWS.get(stage)
        wait_for_server()  # the one before took hours, and a flow inside this one begins with a question to it
        metrics[stage] = own() if own else run_stage(project, stage)
    with forgiving():
        create_markdown_artifact(
            f"The report: open `{project / Data.REPORT}` in a browser.", key="report", description="Report"
        )
    return Finished(refreshed.version, stale, metrics)
