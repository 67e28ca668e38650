"""Dataset versions on a real git and DVC project whose `curate` writes the rows that params.yaml lists."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facemill.errors import FacemillError
from facemill.pictures import decode
from tasks.stages import only_one
from tasks.versions.comparison import Comparison, Difference, compare_versions, print_comparison, write_comparison
from tasks.versions.sheet import write_sheet
from tasks.versions.store import (
    Version,
    describe_saved,
    dvc,
    list_versions,
    print_versions,
    restore_version,
    save_version,
)

CURATE = """
import numpy as np
import yaml
from pathlib import Path
from facemill import tables
from facemill.files import write_json
from facemill.pictures import encode_jpeg
from facemill.schema import DATASET

rows = yaml.safe_load(Path("params.yaml").read_text())["rows"]
names = ("face_id", "identity", "status", "split", "error")
rows = [dict(zip(names, row)) for row in rows]
for row in rows[:-1]:  # the last one has no picture
    picture = np.full((200, 200, 3), ord(row["face_id"][0]), np.uint8)
    row["crop"] = {"bytes": encode_jpeg(picture), "path": None}
table = tables.from_rows(rows, DATASET)
tables.write_part(Path("data/dataset/00000.parquet"), table)
ok = sum(row["status"] == "ok" for row in rows)
write_json(Path("data/metrics/curate.json"), {"in": len(rows), "ok": ok, "rejected": len(rows) - ok, "failed": 0})
"""
DVC_YAML = """
stages:
  curate:
    cmd: python curate.py
    deps: [curate.py]
    params: [rows]
    outs: [data/dataset]
    metrics: [{data/metrics/curate.json: {cache: false}}]
  train:
    cmd: mkdir -p data/model && cp data/dataset/*.parquet data/model
    deps: [data/dataset]
    outs: [data/model]
"""
FIRST = "rows:\n- [a, ada, ok, train, null]\n- [b, ada, ok, val, null]\n- [c, bob, rejected, null, blurred]\nlimit: 1\n"
SECOND = "rows:\n- [a, ada, ok, train, null]\n- [c, bob, ok, train, null]\n- [d, bob, ok, val, null]\nlimit: 2\n"


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def make_project(root: Path) -> Path:
    """A project with one commit; nobody told git who the user is."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=root, check=True)
    (root / "curate.py").write_text(CURATE)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(FIRST)
    (root / ".gitignore").write_text("/data\n")
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=first")
    return root


def curate(root: Path) -> None:
    dvc.repro(root, "curate", deadline_s=60)


def faces(root: Path) -> list[str]:
    table: pa.Table = pq.read_table(root / "data" / "dataset")
    return list(table["face_id"].to_pylist())


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with versions v1 and v2; its params.yaml is that of v2."""
    root = make_project(tmp_path_factory.mktemp("versions") / "faces project")
    curate(root)
    save_version(root)
    (root / "params.yaml").write_text(SECOND)
    curate(root)
    save_version(root)
    return root


@pytest.fixture
def project(two_versions: Path, tmp_path: Path) -> Path:
    """A copy of that project, to change."""
    return Path(shutil.copytree(two_versions, tmp_path / "copy", symlinks=True))


@pytest.fixture(autouse=True)
def no_git_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")


def test_versions_are_listed_with_their_totals(two_versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = list_versions(two_versions)
    assert (first.name, first.totals["curate"]) == ("v1", {"in": 3, "ok": 2, "rejected": 1, "failed": 0})
    assert (second.name, second.totals["curate"]["ok"]) == ("v2", 3)
    print_versions([first, second])
    assert first.dataset[:12] in capsys.readouterr().out


def test_saving_leaves_branch_index_and_work_tree_alone(two_versions: Path) -> None:
    assert git(two_versions, "rev-list", "--count", "main").strip() == "1"
    assert git(two_versions, "diff", "--cached", "--name-only") == ""
    changed = {line[3:] for line in git(two_versions, "status", "--porcelain").splitlines()}
    assert changed == {"params.yaml", "dvc.lock"}


def test_a_version_can_be_checked_out_as_a_commit(two_versions: Path) -> None:
    listed = git(two_versions, "ls-tree", "-r", "--name-only", "dataset/v1", ".").splitlines()
    assert {"curate.py", "dvc.lock", "dvc.yaml", "params.yaml", "data/metrics/curate.json"} <= set(listed)
    assert git(two_versions, "show", "dataset/v1:./params.yaml") == FIRST


def test_the_same_data_is_never_two_versions(project: Path) -> None:
    (project / "params.yaml").write_text(SECOND.replace("limit: 2", "limit: 3"))
    again = save_version(project, "another name")
    assert (again.name, again.is_new) == ("v2", False)
    assert describe_saved(again, "another name") == "This data has a name already: it is version v2."
    assert describe_saved(again, None) == describe_saved(again, "v2") == "The dataset is version v2."
    assert len(list_versions(project)) == 2


def test_comparison_counts_added_removed_and_changed_faces(
    two_versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare_versions(two_versions, "v1", "v2")
    assert dict(found.added) == {("bob", "ok, val"): 1}
    assert dict(found.removed) == {("ada", "ok, val"): 1}
    assert dict(found.changed) == {("bob", "rejected, blurred", "ok, train"): 1}
    assert found.parameters["limit"] == (1, 2)
    print_comparison(found)
    assert "rejected, blurred" in capsys.readouterr().out


def test_comparison_lists_each_row_with_both_states(two_versions: Path, tmp_path: Path) -> None:
    found = compare_versions(two_versions, "v1", "v2")
    assert [(one.kind, one.id, one.identity, one.before, one.after) for one in found.differences] == [
        ("A", "d", "bob", "", "ok, val"),
        ("D", "b", "ada", "ok, val", ""),
        ("M", "c", "bob", "rejected, blurred", "ok, train"),
    ]
    write_comparison(tmp_path / "all.json", found)
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["rows"][2] == {
        "kind": "M",
        "id": "c",
        "identity": "bob",
        "source": "",
        "url": "",
        "before": "rejected, blurred",
        "after": "ok, train",
    }
    assert written["parameters"]["limit"] == [1, 2]
    assert (written["first"], written["second"]) == ("v1", "v2")


@pytest.mark.parametrize(
    ("limit", "listed", "more"), [(0, 0, "\n3 more rows differ.\n"), (2, 2, "\n1 more row differs.\n"), (3, 3, "")]
)
def test_rows_beyond_the_limit_are_counted(
    two_versions: Path, capsys: pytest.CaptureFixture[str], limit: int, listed: int, more: str
) -> None:
    first, second = list_versions(two_versions)
    rows = [Difference("A", f"face-{n}", "bob", "folder", "", "", "ok") for n in range(3)]
    print_comparison(Comparison(first, second, rows, {}), limit=limit)
    printed = capsys.readouterr().out
    assert printed.count("face-") == listed
    assert ("more" in printed) == bool(more)
    assert more in printed


def shown(page: Path) -> list[tuple[str, int | None]]:
    """(id, grey value of the picture or None) of each face of a page, in its order."""
    figures = re.findall(r"<figure>(.*?)</figure>", page.read_text(), re.DOTALL)
    found = []
    for figure in figures:
        picture = re.search(r'src="data:image/jpeg;base64,([^"]*)"', figure)
        caption = re.search(r"</b> (\S+)<br>", figure)
        assert caption is not None
        grey = None if picture is None else round(decode(base64.b64decode(picture[1])).mean())
        found.append((caption[1], grey))
    return found


def test_the_sheet_shows_each_face_as_the_version_has_it_that_it_is_in(two_versions: Path, tmp_path: Path) -> None:
    page = tmp_path / "changes.html"
    write_sheet(two_versions, page, compare_versions(two_versions, "v1", "v2"))
    assert shown(page) == [("d", None), ("b", ord("b")), ("c", ord("c"))]  # added, deleted, modified
    text = page.read_text()
    assert "rejected, blurred → ok, train" in text
    assert "no picture" in text
    assert "spread evenly" not in text


def test_a_sheet_of_many_shows_some_of_all_and_says_how_many(two_versions: Path, tmp_path: Path) -> None:
    first, second = list_versions(two_versions)
    rows = [Difference("A", f"{n:04d}", f"<{n // 100}>", "folder", "", "", "ok") for n in range(300)]
    page = tmp_path / "changes.html"
    write_sheet(two_versions, page, Comparison(first, second, rows, {}))
    assert [name for name, _ in shown(page)] == [f"{n:04d}" for n in range(0, 300, 5)]
    assert "60 of 300 shown, spread evenly" in page.read_text()
    assert "<b>&lt;2&gt;</b>" in page.read_text()


def test_a_sheet_is_a_page(two_versions: Path, tmp_path: Path) -> None:
    found = compare_versions(two_versions, "v1", "v1")
    with pytest.raises(FacemillError, match=r"changes\.jpg is to be a page for a browser: name it changes\.html"):
        write_sheet(two_versions, tmp_path / "changes.jpg", found)
    write_sheet(two_versions, tmp_path / "changes.html", found)
    assert (tmp_path / "changes.html").read_text().count("None.") == 3


def test_a_version_is_equal_to_itself(two_versions: Path) -> None:
    assert compare_versions(two_versions, "v1", "v1").is_empty


def test_restoring_brings_data_parameters_and_metrics_back(project: Path) -> None:
    restore_version(project, "v1")
    assert faces(project) == ["a", "b", "c"]
    assert (project / "params.yaml").read_text() == FIRST
    assert not dvc.stale(project, "curate")


def test_restoring_keeps_what_the_other_stages_made(project: Path) -> None:
    dvc.repro(project, "train", deadline_s=60)
    restore_version(project, "v1")
    assert (project / "data" / "model" / "00000.parquet").exists()
    assert "train:" in (project / "dvc.lock").read_text()
    assert dvc.stale(project, "train")


def test_restoring_refuses_to_lose_parameters_that_nobody_saved(project: Path) -> None:
    (project / "params.yaml").write_text(SECOND + "mine: 1\n")
    with pytest.raises(FacemillError, match=r"params\.yaml has changes that are in no commit"):
        restore_version(project, "v1")
    assert "mine" in (project / "params.yaml").read_text()
    restore_version(project, "v1", force=True)
    assert (project / "params.yaml").read_text() == FIRST


def test_what_a_person_said_of_faces_is_named_and_comes_back_with_the_data(project: Path) -> None:
    said = "sample_id,x,y,verdict,identity,by,date,why\n" + "a" * 64 + ",,,drop,,,,\n"
    (project / "params.yaml").write_text(SECOND.replace("d, bob, ok, val, null", "d, bob, rejected, null, dropped"))
    (project / "decisions.csv").write_text(said)
    curate(project)
    assert save_version(project).name == "v3"
    restore_version(project, "v1")
    assert not (project / "decisions.csv").exists()
    restore_version(project, "v3")
    assert (project / "decisions.csv").read_text() == said
    (project / "decisions.csv").write_text(said.replace("a", "b"))
    with pytest.raises(FacemillError, match=r"decisions\.csv has changes that are in no commit"):
        restore_version(project, "v1")


@pytest.mark.parametrize(
    "text",
    [SECOND.replace("\n", "\r\n"), "limit: 2\n" + SECOND.replace("limit: 2\n", ""), SECOND.replace("[a, ", "[ 'a',  ")],
    ids=["crlf", "order", "spelling"],
)
def test_parameters_are_compared_by_value(project: Path, text: str) -> None:
    (project / "params.yaml").write_bytes(text.encode())
    restore_version(project, "v1")
    assert faces(project) == ["a", "b", "c"]


def test_a_comment_that_nobody_saved_is_not_lost(project: Path) -> None:
    (project / "params.yaml").write_text(SECOND + "# why the limit is 2\n")
    with pytest.raises(FacemillError, match=r"params\.yaml has changes"):
        restore_version(project, "v1")


def test_a_clone_that_wants_crlf_gets_the_same_bytes(tmp_path: Path) -> None:
    root = make_project(tmp_path / "first")
    shutil.copy(Path(__file__).resolve().parents[3] / ".gitattributes", root)
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=attributes")
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", "first", "second")
    for name in ("params.yaml", "dvc.yaml", "curate.py"):
        assert (tmp_path / "second" / name).read_bytes() == (root / name).read_bytes()


def test_restoring_refuses_to_give_up_a_dataset_that_is_no_version(project: Path) -> None:
    (project / "params.yaml").write_text(SECOND.replace("[d,", "[e,"))
    curate(project)
    (project / "params.yaml").write_text(SECOND)
    with pytest.raises(FacemillError, match="no version yet"):
        restore_version(project, "v1")


def test_restoring_lost_data_changes_nothing(project: Path) -> None:
    shutil.rmtree(project / ".dvc" / "cache")
    before = (project / "dvc.lock").read_bytes()
    with pytest.raises(FacemillError, match="neither in DVC's cache nor in its remote"):
        restore_version(project, "v1")
    assert (project / "dvc.lock").read_bytes() == before
    assert (project / "params.yaml").read_text() == SECOND
    assert faces(project) == ["a", "c", "d"]


def test_an_interrupted_checkout_leaves_the_old_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, check_out, calls = (project / "dvc.lock").read_bytes(), dvc.checkout, []

    def interrupted_once(root: Path, stages: list[str]) -> None:
        check_out(root, stages)
        calls.append(faces(root))
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(dvc, "checkout", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        restore_version(project, "v1")
    assert calls == [["a", "b", "c"], ["a", "c", "d"]]
    assert (project / "dvc.lock").read_bytes() == before
    assert (project / "params.yaml").read_text() == SECOND


def test_nothing_is_restored_while_a_refresh_stage_runs(project: Path) -> None:
    with only_one(project, "extract"), pytest.raises(FacemillError, match="stage extract is already running"):
        restore_version(project, "v1")
    assert faces(project) == ["a", "c", "d"]


def test_lost_data_comes_back_from_the_default_remote(project: Path, tmp_path: Path) -> None:
    dvc.call(project, "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    assert dvc.default_remote(project) == "store"
    dvc.call(project, "push", "--all-tags")
    shutil.rmtree(project / ".dvc" / "cache")
    restore_version(project, "v1")
    assert faces(project) == ["a", "b", "c"]


def test_comparing_lost_data_says_where_it_should_be(project: Path) -> None:
    shutil.rmtree(project / ".dvc" / "cache")
    with pytest.raises(FacemillError, match="neither in DVC's cache nor in its remote"):
        compare_versions(project, "v1", "v2")


def test_data_changed_by_hand_gets_no_name(project: Path) -> None:
    (project / "data" / "dataset" / "more.txt").write_text("by hand")
    with pytest.raises(FacemillError, match=r"data/dataset is not what dvc\.lock says"):
        save_version(project)


def test_a_taken_name_is_refused(project: Path) -> None:
    (project / "params.yaml").write_text(SECOND.replace("[d,", "[e,"))
    curate(project)
    with pytest.raises(FacemillError, match="'v1' exists and holds other data"):
        save_version(project, "v1")
    assert save_version(project, "spring").is_new


def test_an_unknown_version_names_the_known_ones(two_versions: Path) -> None:
    with pytest.raises(FacemillError, match="no dataset version 'v9'; there are: v1, v2"):
        restore_version(two_versions, "v9")


def test_tags_of_others_are_no_versions(project: Path) -> None:
    git(project, "tag", "dataset/light")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "tag", "-a", "-m", "a note", "dataset/noted")
    assert [version.name for version in list_versions(project)] == ["v1", "v2"]


def test_outside_a_repository_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"no \.dvc in .*: run this in the project's folder"):
        save_version(tmp_path)
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(FacemillError, match="versions are git tags"):
        list_versions(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(FacemillError, match="holds no commit yet"):
        list_versions(tmp_path)
    (tmp_path / "below" / ".dvc").mkdir(parents=True)
    with pytest.raises(FacemillError, match="below the top of its git repository"):
        list_versions(tmp_path / "below")


def test_in_a_folder_of_the_project_the_error_names_the_project(two_versions: Path) -> None:
    with pytest.raises(FacemillError, match="lies inside the project") as error:
        list_versions(two_versions / "data" / "dataset")
    assert str(error.value).endswith(f"--root {two_versions}")


def test_without_a_dataset_there_is_nothing_to_name(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project")
    with pytest.raises(FacemillError, match="run `dvc repro curate` first"):
        save_version(root)


def test_the_tag_of_a_version_is_below_dataset(two_versions: Path) -> None:
    version: Version = list_versions(two_versions)[0]
    assert git(two_versions, "rev-parse", f"{version.tag}^{{commit}}").strip() == version.commit
