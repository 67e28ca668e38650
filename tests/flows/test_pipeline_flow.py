"""All stages in order; training only where there is something to train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import latest_artifact, stages_run

from flows.pipeline import pipeline
from flows.refresh import Refreshed
from tasks.stages import STAGES

pytestmark = pytest.mark.usefixtures("prefect")


def test_training_starts_only_where_there_is_something_new_to_train_on(refreshed: tuple[Path, Refreshed]) -> None:
    project, _ = refreshed
    first = pipeline()
    assert (first.version.is_new, first.trained) == (False, True)
    assert stages_run(project) == list(STAGES)
    assert "report.html" in latest_artifact("report")
    second = pipeline()
    assert not second.trained
    assert stages_run(project) == list(STAGES)
