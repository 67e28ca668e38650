"""What DVC's own users use: `dvc plots` with the shipped templates, `dvc exp run` where git ignores the footage."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_chaos import tiny
from test_end_to_end import clone, environment

from facemill import tables
from facemill.schema import DATASET
from facemill.sources.sample.pictures import picture_bytes, picture_set
from tasks.report_page.plots import write_plots

PROJECT = Path(__file__).resolve().parents[2]
REPRODUCING = (PROJECT / "docs" / "reproducing.md").read_text()
CURVES = {"train_loss/reconstruction/anna": [(25, 0.4), (50, 0.3)], "val_psnr/anna": [(50, 21.5)], "alone": [(25, 1.0)]}


def face(identity: str, distance: float | None, yaw: float | None, status: str = "ok", role: str = "sample") -> dict:
    return {
        "face_id": f"{identity}{distance}{yaw}{status}{role}",
        "identity": identity,
        "role": role,
        "distance": distance,
        "yaw": yaw,
        "status": status,
    }


@pytest.fixture
def plotted(tmp_path: Path) -> Path:
    """A project in which nothing is but curves, a dataset, and the tables for DVC."""
    for name, points in CURVES.items():
        path = tmp_path / "data/train/curves/plots/metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"step\t{path.stem}", *(f"{step}\t{value}" for step, value in points)]
        path.write_text("\n".join(lines) + "\n")
    rows = [
        face("anna", 0.31, 3.0),
        face("anna", 0.30, -12.0),
        face("anna", 0.71, 0.0, status="rejected"),
        face("anna", 0.0, 0.0, role="reference"),
        face("bert", None, None),
        face("bert", 0.39, 1.0),
    ]
    (tmp_path / "data/dataset").mkdir()
    tables.write_part(tmp_path / "data/dataset/00000.parquet", tables.from_rows(rows, DATASET))
    write_plots(tmp_path)
    return tmp_path


def table(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "data/report/plots" / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def dvc(root: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment(root), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_curves_are_rows_by_step_curve_and_name(plotted: Path) -> None:
    assert [tuple(row.values()) for row in table(plotted, "curves.tsv")] == [
        ("25", "alone", "all", "1"),
        ("25", "train_loss/reconstruction", "anna", "0.4"),
        ("50", "train_loss/reconstruction", "anna", "0.3"),
        ("50", "val_psnr", "anna", "21.5"),
    ]


def test_every_collected_face_is_counted_once_and_references_are_not(plotted: Path) -> None:
    distances = table(plotted, "distances.tsv")
    faces = {name: sum(int(row["faces"]) for row in distances if row["identity"] == name) for name in ("anna", "bert")}
    assert faces == {"anna": 3, "bert": 1}
    assert len({row["distance"] for row in distances}) * 2 == len(distances)  # the same bins for both
    assert sum(int(row["faces"]) for row in table(plotted, "coverage.tsv")) == 3


def test_without_data_the_tables_have_their_headings_alone(tmp_path: Path) -> None:
    write_plots(tmp_path)
    headings = {path.name: path.read_text() for path in (tmp_path / "data/report/plots").iterdir()}
    assert headings == {
        "curves.tsv": "step\tcurve\tname\tvalue\n",
        "distances.tsv": "identity\tdistance\tfaces\n",
        "coverage.tsv": "identity\tyaw_deg\tfaces\n",
    }


@pytest.fixture
def committed(plotted: Path) -> Path:
    """The same as a DVC project with the shipped plots, in which everything is committed."""
    subprocess.run(["git", "init", "--quiet"], cwd=plotted, check=True)
    dvc(plotted, "init", "--quiet")
    shutil.copytree(PROJECT / ".dvc" / "plots", plotted / ".dvc" / "plots", dirs_exist_ok=True)
    plots = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["plots"]
    (plotted / "dvc.yaml").write_text(yaml.safe_dump({"plots": plots}))
    subprocess.run(["git", "add", "--all"], cwd=plotted, check=True)
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *author, "commit", "--quiet", "--message=made"], cwd=plotted, check=True)
    return plotted


def drawn(root: Path) -> list[dict[str, Any]]:
    """What Vega-Lite is told to draw on the page that DVC has written."""
    page = (root / "dvc_plots" / "index.html").read_text()
    assert "<DVC_METRIC" not in page
    return [json.loads(spec) for spec in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", page, re.DOTALL)]


def channels(spec: dict[str, Any]) -> dict[str, Any]:
    """Those of a drawing and of the layers that it may have."""
    found = dict(spec["spec"]["encoding"])
    for layer in spec["spec"].get("layer", []):
        found |= layer.get("encoding", {})
    return found


def test_dvc_draws_curves_distances_and_coverage(committed: Path) -> None:
    dvc(committed, "plots", "show")
    specs = drawn(committed)
    assert len(specs) == 3
    for spec in specs:
        values = spec["data"]["values"]
        assert values
        for name, channel in channels(spec).items():
            fields = [each["field"] for each in (channel if isinstance(channel, list) else [channel])]
            assert all(field in value for field in fields for value in values), (name, values[0])


def test_dvc_lays_two_runs_over_each_other_and_tells_them_apart(committed: Path) -> None:
    table = committed / "data/report/plots/curves.tsv"
    table.write_text(table.read_text() + "75\tval_psnr\tanna\t23.0\n")
    for name in ("distances.tsv", "coverage.tsv"):  # DVC draws what differs
        (table.parent / name).write_text((table.parent / name).read_text().replace("\t1\n", "\t2\n"))
    dvc(committed, "plots", "diff", "HEAD")
    specs = drawn(committed)
    assert len(specs) == 3
    for spec in specs:
        assert {value["rev"] for value in spec["data"]["values"]} == {"HEAD", "workspace"}
        by_run = [name for name, each in channels(spec).items() if isinstance(each, dict) and each["field"] == "rev"]
        assert by_run in (["color"], ["strokeDash"])
    [last] = [value for value in specs[0]["data"]["values"] if value["step"] == "75"]
    assert (last["rev"], last["value"]) == ("workspace", "23.0")


def test_dvc_says_what_differs_of_a_training_and_its_measures(tmp_path: Path) -> None:
    """By the metrics of the shipped dvc.yaml, with the options that the docs advise."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    metrics = [path for stage in stages.values() for path in stage.get("metrics", [])]
    assert "data/report/metrics.json" in metrics
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "--quiet")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"metrics": metrics}))
    for path in metrics:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('{"in": 4, "ok": 3}')
    (tmp_path / "data/report/metrics.json").write_text('{"swap": {"new_after": 0.4737}, "training": {"steps": 80}}')
    subprocess.run(["git", "add", "--all", "--force"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *author, "commit", "--quiet", "--message=made"], cwd=tmp_path, check=True)
    (tmp_path / "data/report/metrics.json").write_text('{"swap": {"new_after": 0.4046}, "training": {"steps": 160}}')
    told = [line.split() for line in dvc(tmp_path, "metrics", "diff").splitlines() if line.strip()]
    report = "data/report/metrics.json"
    assert told == [
        ["Path", "Metric", "HEAD", "workspace", "Change"],
        [report, "swap.new_after", "0.4737", "0.4046", "-0.0691"],
        [report, "training.steps", "80", "160", "80"],
    ]
    dvc(tmp_path, "exp", "save", "--name", "longer")
    [advised] = re.findall(r"^dvc (exp show .*?)(?:\s+#|$)", REPRODUCING, re.MULTILINE)
    rows = list(csv.DictReader(dvc(tmp_path, *shlex.split(advised), "--csv").splitlines()))
    measures = [(row["Experiment"], row["swap.new_after"], row["training.steps"]) for row in rows]
    assert measures == [("", "0.4737", "80"), ("longer", "0.4046", "160")]
    assert not [name for name in rows[0] if name.startswith("data/")]


def test_the_graph_in_the_docs_is_the_one_of_dvc() -> None:
    assert dvc(PROJECT, "dag", "--md").strip() in REPRODUCING


def from_footage(values: dict[str, Any]) -> dict[str, Any]:
    for name, identity in tiny(values)["identities"].items():
        identity["sources"] = [{"kind": "folder", "path": f"footage/{name}"}]
    return values


@pytest.mark.slow
def test_experiments_run_in_the_project_in_a_temporary_checkout_and_from_the_queue(tmp_path: Path) -> None:
    """Footage that git ignores is not in DVC's checkouts; a relative path finds it all the same."""
    root = clone(tmp_path / "project", from_footage)
    for name in ("hopper", "collins"):
        (root / "footage" / name).mkdir(parents=True)
        for planted in picture_set(name, 4, 1):
            (root / "footage" / name / f"{planted.index}.jpg").write_bytes(picture_bytes(planted, 1))
    dvc(root, "repro", "--quiet", "inventory")
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *author, "commit", "--quiet", "--message=made"], cwd=root, check=True)
    dvc(root, "exp", "run", "--set-param", "train.steps=4", "--name", "here", "inventory")
    dvc(root, "exp", "run", "--temp", "--set-param", "train.steps=6", "--name", "beside", "inventory")
    dvc(root, "exp", "run", "--queue", "--set-param", "train.steps=10", "--name", "queued", "inventory")
    dvc(root, "exp", "run", "--run-all")
    rows = csv.DictReader(dvc(root, "exp", "show", "--csv").splitlines())
    steps = {row["Experiment"]: row["train.steps"] for row in rows if row["Experiment"]}
    assert steps == {"here": "4", "beside": "6", "queued": "10"}
    assert len(rows.fieldnames or ()) < 100
