"""The refresh on a project of quick stages: one version for new data, none for old, none after a failure."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from stand_ins import latest_artifact, set_knobs, stages_run

from facemill.errors import FacemillError
from flows.refresh import Refreshed, refresh
from tasks.stages import REFRESH_STAGES, STAGES
from tasks.versions.store import list_versions

pytestmark = pytest.mark.usefixtures("prefect")
Done = tuple[Path, Refreshed]


def test_new_faces_make_a_new_version(refreshed: Done) -> None:
    project, _ = refreshed
    set_knobs(project, curate={"faces": 5})
    assert refresh().version.name == "v2"
    assert stages_run(project) == [*REFRESH_STAGES, "curate"]


@pytest.mark.usefixtures("refreshed")
def test_the_page_shows_rows_progress_version_and_faces() -> None:
    assert '"meaning": "the face is not sharp enough"' in latest_artifact("extract-rows")
    assert float(latest_artifact("extract-progress")) == 100
    assert "| curate | 4 | 3 | 1 | 0 |" in latest_artifact("dataset-version")
    assert "![hopper: accepted](data:image/jpeg;base64," in latest_artifact("dataset")


@pytest.mark.usefixtures("refreshed")
def test_the_page_says_why_each_stage_ran() -> None:
    rows = {row["stage"]: row["reason"] for row in json.loads(latest_artifact("why"))}
    assert list(rows) == list(STAGES)[1:]
    assert rows["train"] == "it has never run here"


@pytest.mark.usefixtures("refreshed")
def test_the_page_says_how_old_the_dataset_is() -> None:
    assert latest_artifact("freshness").startswith("# The dataset is fresh\n")


def test_reasons_that_cannot_be_told_stop_no_night(refreshed: Done, caplog: pytest.LogCaptureFixture) -> None:
    project, _ = refreshed
    set_knobs(project, curate={"faces": 5})
    (project / "accepted.yaml").write_text("neither: [stage nor digest")
    assert refresh().version.name == "v2"
    assert "accepted.yaml is not a list of" in caplog.text


def test_a_curate_that_exceeds_its_limit_names_no_version(refreshed: Done) -> None:
    project, _ = refreshed
    clock = project / ".work" / "refreshed.json"
    clock.write_text(clock.read_text().replace(json.loads(clock.read_text())["ended"], "2026-01-01T03:00:00+00:00"))
    retag(project, "2026-01-01T03:00:00+00:00")
    set_knobs(project, curate={"fail": 9, "says": "3 of 4 rows failed, limit 5%"})
    with pytest.raises(FacemillError, match="error: curate: 3 of 4 rows failed, limit 5%"):
        refresh()
    assert len(list_versions(project)) == 1
    assert latest_artifact("freshness").startswith("# ⚠ The dataset is too old\n")


def test_refresh_twice_makes_one_version_though_the_network_is_asked_again(refreshed: Done) -> None:
    project, first = refreshed
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["identities"]["hopper"]["sources"] = [{"kind": "google", "query": "somebody"}]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    second = refresh()
    assert (first.version.name, first.version.is_new) == ("v1", True)
    assert (second.version.name, second.version.is_new) == ("v1", False)
    assert stages_run(project) == [*REFRESH_STAGES, "collect"]
    assert second.metrics["curate"]["ok"] == 3
    assert "a source in the network is asked each time" in latest_artifact("why")


def test_a_night_that_brings_nothing_asks_dvc_once_for_all_stages(
    refreshed: Done, caplog: pytest.LogCaptureFixture
) -> None:
    _, first = refreshed
    second = refresh()
    assert second.metrics == first.metrics
    assert "Stage 'inventory' didn't change" in caplog.text
    assert "Stage 'collect' didn't change" not in caplog.text


def test_wrong_parameters_are_said_before_anything_runs(project: Path) -> None:
    with (project / "params.yaml").open("a") as stream:
        stream.write("dedup: {hash_distanze: 3}\n")
    with pytest.raises(FacemillError, match="did you mean 'hash_distance'"):
        refresh()
    assert stages_run(project) == []


def retag(project: Path, date: str) -> None:
    """Gives the version v1 another date."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    tag = f"dataset/{list_versions(project)[0].name}"
    message = subprocess.run(
        [*git, "tag", "-l", "--format=%(contents)", tag], cwd=project, capture_output=True, check=True
    )
    dated = {**os.environ, "GIT_COMMITTER_DATE": date}
    command = [*git, "tag", "--force", "--annotate", "--cleanup=verbatim", "--file=-", tag, f"{tag}^{{}}"]
    subprocess.run(command, cwd=project, env=dated, input=message.stdout, capture_output=True, check=True)
