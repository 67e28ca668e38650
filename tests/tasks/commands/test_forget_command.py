"""`facemill forget`: whatever a picture or a person left in a project is gone, by a search, and does not come back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import write_json
from facemill.pictures import encode_jpeg, sha256_hex
from facemill.schema import CONVERSIONS, DATASET, FACES, RAW, TRACKS, UNIQUE, VIDEOS
from facemill.sources.sample.pictures import picture_bytes, picture_set
from facemill.train.dataset import dataset_sha256
from flows.command_line.main import app
from tasks.commands.forget import Asked, forget
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict, read_decisions, write_decisions
from tasks.stages import REFRESH_STAGES, run_stage

SEED = 7
TABLES = {"raw": RAW, "unique": UNIQUE, "faces": FACES, "dataset": DATASET}
PEOPLE = {"anna": ("hopper", 12, 7), "bea": ("collins", 4, 7), "carl": ("collins", 4, 8)}


def write_params(root: Path, *people: str) -> None:
    rights = {"basis": "public_domain", "evidence": "the portraits ship with wheels"}
    own = {
        name: {"rights": rights, "references": [f"{name}-reference"], "sources": [{"kind": "folder", "path": name}]}
        for name in people
    }
    values = {
        "seed": SEED,
        "identities": own,
        "archive": {"kind": "folder", "path": "archive"},
        "collect": {"rows_per_shard": 4, "failure_limit": 1.0},
        "extract": {"crop_px": 128, "failure_limit": 1.0},
        "convert": {"becomes": {"anna": "bea"}},
        "cluster": {"kind": "inline"},
    } | {group: {} for group in ("train", "track", "dedup", "curate", "report")}
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def refresh(root: Path) -> None:
    for stage in REFRESH_STAGES:
        run_stage(stage, root)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of three people after two refreshes: two folders of one sample person, duplicates among them."""
    root = tmp_path_factory.mktemp("forget") / "project"
    (root / "archive").mkdir(parents=True)
    (root / "archive" / "not a video.mp4").write_text("text")
    for name, (person, count, seed) in PEOPLE.items():
        for folder in (name, f"{name}-reference"):
            (root / folder).mkdir()
        first, *others = picture_set(person, count, seed)
        (root / f"{name}-reference" / f"{name}.jpg").write_bytes(picture_bytes(first, seed))
        for number, planted in enumerate(others):
            (root / name / f"{number:02d}.jpg").write_bytes(picture_bytes(planted, seed))
    write_params(root, *PEOPLE)
    refresh(root)
    (root / "anna" / "later.jpg").write_bytes(b"no picture")
    refresh(root)  # so that scratch has the results of two plans
    return root


@pytest.fixture
def project(refreshed: Path, tmp_path: Path) -> Path:
    """A copy of that project, to change."""
    return Path(shutil.copytree(refreshed, tmp_path / "project", symlinks=True))


def rows(root: Path, name: str) -> list[dict[str, Any]]:
    return tables.read_table(root / "data" / name, TABLES[name]).to_pylist()


def in_order(root: Path, name: str) -> list[dict[str, Any]]:
    return sorted(rows(root, name), key=lambda row: (row.get("face_id") or "", row["identity"], row["url"]))


def told(root: Path, asked: Asked, **options: Any) -> list[str]:
    sentences: list[str] = []
    forget(root, asked, tell=sentences.append, **options)
    return sentences


def whatever_is_left(root: Path, needles: list[bytes]) -> list[str]:
    """Files below data and .work that hold any of these, tables as they lie there and as their rows say."""
    found = []
    for path in sorted(path for folder in ("data", ".work") for path in (root / folder).rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.read_table(path).to_pylist()).encode()
        found += [f"{path.relative_to(root)}: {needle[:40]!r}" for needle in needles if needle in content]
    return found


def standing(root: Path) -> dict[str, Any]:
    """An accepted face of anna whose picture stands for duplicates."""
    stand = {row["duplicate_of"] for row in rows(root, "unique") if row["duplicate_of"]}
    chosen = [
        row
        for row in rows(root, "dataset")
        if (row["status"], row["identity"], row["role"]) == ("ok", "anna", "sample") and row["sample_id"] in stand
    ]
    return chosen[0]


@pytest.mark.parametrize("by", ["sha", "url", "list"])
def test_a_picture_leaves_with_its_copies_and_what_is_left_is_a_project_that_never_saw_it(
    project: Path, tmp_path: Path, by: str
) -> None:
    face = standing(project)
    copies = [row for row in rows(project, "unique") if row["cluster"] == face_cluster(project, face["sample_id"])]
    assert len(copies) > 1
    crops = [row["crop"]["bytes"] for row in rows(project, "faces") if row["sample_id"] == face["sample_id"]]
    files = sorted({row["url"] for row in copies})
    needles = [row["sample_id"].encode() for row in copies] + [row["sample_id"][:16].encode() for row in copies]
    needles += [(project / url).read_bytes() for url in files] + [url.encode() for url in files] + crops
    assert len(whatever_is_left(project, needles)) > len(needles)
    of_another = Decision("f" * 64, None, Verdict.DROP)
    write_decisions(project / DECISIONS_FILE, [Decision(face["sample_id"], None, Verdict.DROP), of_another])
    (tmp_path / "list.txt").write_text(f"# theirs\n\n{face['sample_id']}\n")
    asked = {
        "sha": Asked(pictures=(face["sample_id"],)),
        "url": Asked(addresses=(face["url"],)),
        "list": Asked.listed_in(tmp_path / "list.txt"),
    }[by]

    sentences = told(project, asked)
    assert whatever_is_left(project, needles) == []
    assert read_decisions(project, PEOPLE) == [of_another]
    assert "a search through data and .work finds nothing of it any more." in sentences
    assert any(files[0] in each and "Delete them there" in each for each in sentences)

    # It lies in the folder still, and neither a refresh nor one that has lost its scratch brings it back.
    refresh(project)
    shutil.rmtree(project / ".work")
    refresh(project)
    assert whatever_is_left(project, needles) == []

    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for folder in ("archive", *PEOPLE, *(f"{name}-reference" for name in PEOPLE)):
        shutil.copytree(project / folder, fresh / folder)
    for url in files:
        (fresh / url).unlink()
    write_params(fresh, *PEOPLE)
    refresh(fresh)
    for name in TABLES:
        assert in_order(project, name) == in_order(fresh, name), name


def face_cluster(root: Path, sample_id: str) -> str:
    [cluster] = {row["cluster"] for row in rows(root, "unique") if row["sample_id"] == sample_id}
    return str(cluster)


def test_a_person_leaves_once_params_no_longer_asks_for_them(project: Path) -> None:
    asked = Asked(identities=("carl",))
    with pytest.raises(FacemillError, match=r"identities\.carl stands in params\.yaml: take it out"):
        forget(project, asked)
    assert not (project / "forgotten.yaml").exists()
    own = [row for row in rows(project, "raw") if row["identity"] == "carl"]
    needles = [needle for row in own for needle in (row["image"]["bytes"], row["sample_id"].encode(), b"carl/")]
    write_params(project, "anna", "bea")
    told(project, asked)
    assert whatever_is_left(project, [*needles, b"carl"]) == []
    assert {row["identity"] for row in rows(project, "dataset")} == {"anna", "bea"}
    write_params(project, *PEOPLE)
    with pytest.raises(FacemillError, match=r"identities\.carl: this identity was asked to be forgotten \(forgotten"):
        run_stage("inventory", project)
    with pytest.raises(FacemillError, match="carl: this identity was asked to be forgotten"):
        run_stage("collect", project)


def test_what_cannot_be_made_without_the_pictures_is_removed(project: Path) -> None:
    [reference] = [row for row in rows(project, "raw") if (row["identity"], row["role"]) == ("bea", "reference")]
    sentences = told(project, Asked(pictures=(reference["sample_id"],)))
    assert any(re.search(r"stage curate cannot run without them: identity bea: no usable", each) for each in sentences)
    assert not (project / "data" / "dataset").exists()
    assert whatever_is_left(project, [reference["sample_id"].encode(), reference["image"]["bytes"]]) == []


def test_models_and_videos_that_were_made_with_it_are_named(project: Path) -> None:
    face = standing(project)
    picture = encode_jpeg(picture_of(face))
    write_json(
        project / "data/model/model.json",
        {"identities": ["anna", "bea"], "dataset": dataset_sha256(project / "data" / "dataset")},
    )
    (project / "data/model/exemplars.bin").write_bytes(b"of " + face["sample_id"].encode() + picture)
    (project / "data/report").mkdir()
    (project / "data/report/report.html").write_text("a page with thumbnails")
    fingerprint = dataset_sha256(project / "data" / "dataset")
    made = [
        {"video": "a.mp4", "output": "a.mp4", "dataset": fingerprint, "status": "ok"},
        {"video": "b.mp4", "output": None, "dataset": fingerprint, "status": "failed", "error": "conversion_failed"},
        {"video": "c.mp4", "output": "c.mp4", "dataset": "another", "status": "ok"},
    ]
    tables.write_part(project / "data/conversions/0.parquet", tables.from_rows(made, CONVERSIONS))
    copy = Path(shutil.copytree(project, project.parent / "copy"))

    said = "\n".join(told(project, Asked(pictures=(face["sample_id"],))))
    assert re.search(r"data/model was trained with \d+ faces? of it: train again", said)
    assert "1 converted video made with it: a.mp4. Delete" in said
    assert "a model holds pictures or names of it still, in data/model/exemplars.bin: --models removes it." in said
    assert "finds nothing" not in said
    assert not (project / "data/report/report.html").exists()

    said = "\n".join(told(copy, Asked(pictures=(face["sample_id"],)), models=True))
    assert not (copy / "data/model").exists()
    assert "finds nothing of it any more" in said


def picture_of(face: dict[str, Any]) -> Any:
    from facemill.pictures import decode

    return decode(face["crop"]["bytes"])


def test_the_archive_that_shows_a_forgotten_person_is_named(project: Path) -> None:
    embeddings = {
        name: [row["embedding"] for row in rows(project, "faces") if row["identity"] == name and row["embedding"]]
        for name in ("anna", "carl")
    }
    tracks = [
        {"video_sha256": "a" * 64, "track": 0, "looks": embeddings["anna"][:2], "status": "ok"},
        {"video_sha256": "c" * 64, "track": 0, "looks": embeddings["carl"][:2], "status": "ok"},
        {"video_sha256": "c" * 64, "track": 1, "looks": [], "status": "ok"},
    ]
    tables.write_part(project / "data/tracks/0.parquet", tables.from_rows(tracks, TRACKS))
    videos = [{"video": f"{one}.mp4", "sha256": one * 64, "status": "ok"} for one in "ac"]
    shutil.rmtree(project / "data/videos")
    tables.write_part(project / "data/videos/0.parquet", tables.from_rows(videos, VIDEOS))
    write_params(project, "anna", "bea")
    said = "\n".join(told(project, Asked(identities=("carl",))))
    assert "the archive shows this person in 1 video: c.mp4." in said


def test_what_is_not_here_is_kept_out_from_now_on(project: Path) -> None:
    before = {name: in_order(project, name) for name in TABLES}
    extra = picture_bytes(picture_set("hopper", 4, 99)[1], 99)
    sentences = told(project, Asked(pictures=(sha256_hex(extra),), addresses=("anna/new.jpg",)))
    assert sentences[0].startswith("0 pictures and 0 copies of them are in this project; forgotten.yaml has 2 new entr")
    (project / "anna" / "another name.jpg").write_bytes(extra)
    (project / "anna" / "new.jpg").write_bytes((project / "anna" / "00.jpg").read_bytes() + b" ")
    refresh(project)
    assert {name: in_order(project, name) for name in TABLES} == before


def test_what_an_author_makes_later_is_a_row_that_tells_nothing(project: Path) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["identities"]["anna"]["sources"] += [{"kind": "folder", "path": "signed", "author": "Ann  Other"}]
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    (project / "signed").mkdir()
    pictures = [picture_bytes(planted, 98) for planted in picture_set("hopper", 4, 98)]
    (project / "signed" / "first.jpg").write_bytes(pictures[0])
    refresh(project)
    [signed] = [row for row in rows(project, "raw") if row["url"] == "signed/first.jpg"]
    told(project, Asked(authors=("ann other",)))
    needles = [signed["sample_id"].encode(), signed["sample_id"][:16].encode(), b"Ann", b"first.jpg", pictures[0]]
    assert whatever_is_left(project, needles) == []

    (project / "signed" / "second.jpg").write_bytes(pictures[1])
    refresh(project)
    [later] = [row for row in rows(project, "raw") if row["error"] == "forgotten"]
    kept = {"identity": "anna", "role": "sample", "source": "folder", "url": "", "status": "rejected"}
    assert {name: value for name, value in later.items() if value is not None} == kept | {
        "error": "forgotten",
        "detail": "",
        "unit": later["unit"],
    }
    assert not [row for row in rows(project, "dataset") if row["error"] != "forgotten" and not row["sample_id"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what is to be forgotten"),
        (["--sha", "abc"], "'abc' is no SHA-256 of a picture"),
        (["--list", "gone.txt"], "gone.txt is no list that can be read"),
        (["--url", " "], "say what is to be forgotten"),
    ],
)
def test_the_command_refuses_what_means_nothing(project: Path, arguments: list[str], message: str) -> None:
    found = CliRunner().invoke(app, ["forget", "--root", str(project), *arguments])
    assert message in str(found.exception)
    assert not (project / "forgotten.yaml").exists()


def test_a_command_that_was_cut_off_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = standing(project)
    stage: Callable[..., Any] = run_stage

    def killed(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "extract":
            raise KeyboardInterrupt
        return stage(name, *arguments, **options)

    monkeypatch.setattr("tasks.commands.forget.run_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        told(project, Asked(pictures=(face["sample_id"],)))
    needles = [face["sample_id"].encode(), face["sample_id"][:16].encode(), face["crop"]["bytes"]]
    assert whatever_is_left(project, needles)
    monkeypatch.undo()
    told(project, Asked(pictures=(face["sample_id"],)))
    assert whatever_is_left(project, needles) == []
