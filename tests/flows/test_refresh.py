"""The refresh on a project of quick stages: one version for new data, none for old, none after a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from stand_ins import latest_artifact, set_knobs, stages_run

from facemill.errors import FacemillError
from flows.refresh import Refreshed, is_up_to_date, refresh
from flows.stages import Files
from tasks import inventory
from tasks.params import load_params
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
    assert "## hopper: readiness " in latest_artifact("dataset-coverage")


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
    ask_the_network(project)
    second = refresh()
    assert (first.version.name, first.version.is_new) == ("v1", True)
    assert (second.version.name, second.version.is_new) == ("v1", False)
    assert stages_run(project) == [*REFRESH_STAGES, "collect"]
    assert second.metrics["curate"]["ok"] == 3
    assert "a source in the network is asked each time" in latest_artifact("why")


@pytest.fixture
def looked(refreshed: Done) -> Done:
    """The same where the real inventory has looked, too; its stand-in writes something else."""
    inventory.run(load_params(refreshed[0]), refreshed[0])
    return refreshed


def test_a_night_that_brings_nothing_runs_no_stage(looked: Done, caplog: pytest.LogCaptureFixture) -> None:
    project, first = looked
    second = refresh()
    assert (second.metrics, second.version.name, second.version.is_new) == (first.metrics, "v1", False)
    assert "no stage runs" in caplog.text
    assert "Stage '" not in caplog.text  # DVC was asked, and nothing begun
    assert json.loads((project / ".work" / "refreshed.json").read_text())["brought_new"] is False


def look(project: Path) -> Files:
    params = load_params(project)
    return inventory.look(params, project).files(inventory.current_code(params, project))


WORK: dict[str, Callable[[Path], object]] = {
    "another source": lambda project: change_params(project, archive={"kind": "sample", "seconds": 2.0}),
    "another input of a stage": lambda project: set_knobs(project, curate={"faces": 5}),
    "a lost table": lambda project: shutil.rmtree(project / "data" / "dataset"),
    "a table that was changed": lambda project: (project / "data" / "extract" / "made.txt").write_text("by hand"),
    "no lock": lambda project: (project / "dvc.lock").unlink(),
    "a source in the network": lambda project: ask_the_network(project),
}


@pytest.mark.parametrize("work", WORK)
def test_a_night_that_has_work_is_none_that_brings_nothing(looked: Done, work: str) -> None:
    project, _ = looked
    assert is_up_to_date(project, load_params(project), look(project))
    WORK[work](project)
    assert not is_up_to_date(project, load_params(project), look(project))


def test_another_source_alone_makes_the_inventory_run(looked: Done, caplog: pytest.LogCaptureFixture) -> None:
    project, _ = looked
    change_params(project, archive={"kind": "sample", "seconds": 2.0})
    refresh()
    assert "Stage 'inventory' didn't change" in caplog.text  # its stand-in reads no parameters


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


def change_params(project: Path, **changed: object) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(params | changed))


def ask_the_network(project: Path) -> None:
    identities = yaml.safe_load((project / "params.yaml").read_text())["identities"]
    identities["hopper"]["sources"] = [{"kind": "google", "query": "somebody"}]
    change_params(project, identities=identities)


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
