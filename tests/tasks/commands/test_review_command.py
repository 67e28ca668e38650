"""`facemill review` without its page: which faces are shown, and what is written down."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from reviewed import PEOPLE, face_id, project, sha
from typer.testing import CliRunner

from facemill.errors import FacemillError
from facemill.files import write_json
from facemill.pictures import decode
from flows.command_line.main import app
from tasks.commands.review import FaceList, Wanted
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict, as_content, read_decisions, write_decisions


@pytest.fixture
def faces(tmp_path: Path, hopper: np.ndarray, collins: np.ndarray) -> FaceList:
    return FaceList(project(tmp_path / "project", {"anna": hopper, "bert": collins}), PEOPLE, "ann")


def ids(faces: FaceList, **wanted: str) -> list[str]:
    return faces.select(Wanted(**wanted))["face_id"].to_pylist()


def said(faces: FaceList) -> list[tuple[str, tuple[int, int] | None, str, str]]:
    return [(one.sample_id, one.place, one.verdict.value, one.identity) for one in faces.decisions]


def test_faces_are_found_by_person_reason_cluster_copies_and_what_was_said(faces: FaceList) -> None:
    assert len(ids(faces)) == 28 + 5 + 2
    assert len(ids(faces, identity="bert")) == 14
    assert ids(faces, reason="blurred") == [face_id("blurred")]
    assert len(ids(faces, state="rejected", identity="anna")) == 5
    assert set(ids(faces, copies=face_id("anna-3"))) == {face_id("anna-3"), face_id("copy")}
    in_shot = {face_id("anna-5"), face_id("anna-6"), face_id("frame")}
    assert set(ids(faces, cluster="talk.mp4#shot=0", identity="anna")) == in_shot
    faces.decide([face_id("blurred")], Verdict.KEEP)
    assert ids(faces, said="keep") == ids(faces, said="any") == [face_id("blurred")]
    assert len(ids(faces, said="none")) == 34
    assert ids(faces, said="drop") == []


def test_a_page_tells_all_that_a_person_decides_by(faces: FaceList) -> None:
    page = faces.page(Wanted(reason="near_duplicate"), "distance", 0, 10)
    [face] = page["faces"]
    assert (page["total"], face["copies"], face["place"]) == (1, 2, (160, 140))
    assert face["detail"] == f"of {face_id('anna-3')}"
    assert decode(faces.crop(face["face_id"])).shape == (192, 192, 3)
    yaws = [face["yaw"] for face in faces.page(Wanted(identity="bert"), "yaw", 4, 5)["faces"]]
    assert yaws == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_what_is_said_is_written_replaced_and_taken_back(faces: FaceList) -> None:
    one = face_id("blurred")
    assert faces.decide([one, face_id("stranger")], Verdict.DROP, why="no") == 2
    assert faces.decide([one], Verdict.KEEP) == 1
    assert faces.decide([face_id("stranger")], Verdict.KEEP, "bert") == 1
    place = (160, 140)
    assert said(faces) == [(sha("blurred"), place, "keep", "anna"), (sha("stranger"), place, "keep", "bert")]
    [first, _] = read_decisions(faces.root, PEOPLE)
    assert (first.by, len(first.date)) == ("ann", 10)
    faces.decide([one], None)
    assert said(faces) == [(sha("stranger"), place, "keep", "bert")]


def test_the_two_faces_of_a_picture_are_told_apart(faces: FaceList) -> None:
    left, right = (f"{sha('group')[:16]}-anna-{number}" for number in (0, 1))
    faces.decide([left], Verdict.KEEP)
    faces.decide([right], Verdict.DROP)
    assert said(faces) == [(sha("group"), (100, 100), "keep", "anna"), (sha("group"), (300, 100), "drop", "")]


def test_a_word_about_a_whole_picture_is_overruled_by_face_and_not_taken_back_by_accident(faces: FaceList) -> None:
    left, right = (f"{sha('group')[:16]}-anna-{number}" for number in (0, 1))
    whole = Decision(sha("group"), None, Verdict.DROP)
    write_decisions(faces.root / DECISIONS_FILE, [whole, Decision(sha("blurred"), None, Verdict.DROP)])
    faces.refresh()
    assert set(ids(faces, said="drop")) == {left, right, face_id("blurred")}
    with pytest.raises(FacemillError, match=r"line 2 of decisions.csv is about all 2 faces of this picture"):
        faces.decide([left], None)
    faces.decide([left], Verdict.KEEP)
    assert set(ids(faces, said="drop")) == {right, face_id("blurred")}
    faces.decide([face_id("blurred")], None)  # the only face of its picture
    assert ids(faces, said="drop") == [right]


def test_what_others_write_meanwhile_stays(faces: FaceList) -> None:
    other = FaceList(faces.root, PEOPLE, "bob")
    other.decide([face_id("turned")], Verdict.KEEP)
    faces.decide([face_id("blurred")], Verdict.DROP)
    assert [one.by for one in read_decisions(faces.root, PEOPLE)] == ["bob", "ann"]


def test_a_dataset_that_is_written_anew_is_read_anew(faces: FaceList, hopper: np.ndarray, collins: np.ndarray) -> None:
    write_decisions(faces.root / DECISIONS_FILE, [Decision(sha("anna-9"), None, Verdict.DROP)])
    faces.refresh()
    assert faces.overview()["gone"] == 0
    project(faces.root, {"anna": hopper, "bert": collins}, each=6)
    faces.refresh()
    assert len(ids(faces, identity="bert")) == 6
    assert (faces.overview()["decisions"], faces.overview()["gone"]) == (1, 1)
    with pytest.raises(FacemillError, match="some of these faces are not in the dataset any more"):
        faces.decide([face_id("anna-9")], Verdict.DROP)
    with pytest.raises(FacemillError, match="a refresh may have taken it away"):
        faces.crop(face_id("anna-9"))


def test_the_overview_says_whether_decisions_wait(faces: FaceList) -> None:
    assert not faces.overview()["waiting"]
    faces.decide([face_id("turned")], Verdict.KEEP)
    assert faces.overview()["waiting"]
    write_json(faces.root / "data/decisions.json", as_content(faces.decisions))
    assert not faces.overview()["waiting"]


def test_sheets_and_their_list_do_without_a_browser(faces: FaceList, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["review", *words, "--root", str(faces.root)])
        return result.output if result.exit_code == 0 else str(result.exception)

    folder = tmp_path / "sheets"
    assert "1 sheet of 21 faces" in run("sheets", str(folder), "--identity", "anna")
    assert "is there already, and may be filled in" in run("sheets", str(folder))
    assert decode((folder / "sheet-001.jpg").read_bytes()).shape == (3 * 132 - 4, 10 * 132 - 4, 3)
    listed = folder / "faces.csv"
    assert "no line has a verdict" in run("take", str(listed))

    with listed.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows, columns = list(reader), reader.fieldnames
    by_ended = {row["ended"]: row for row in rows}
    by_ended["blurred"]["verdict"] = "keep"
    by_ended["other_identity"] |= {"verdict": "keep", "identity": "bert", "why": "his nose"}
    by_ended["extreme_pose"]["verdict"] = "drop"
    with listed.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    assert "decisions.csv has 3 decisions of" in run("take", str(listed), "--by", "carl")
    found = {one.sample_id: one for one in read_decisions(faces.root, PEOPLE)}
    assert {one.by for one in found.values()} == {"carl"}
    assert (found[sha("blurred")].identity, found[sha("stranger")].identity) == ("anna", "bert")
    assert (found[sha("stranger")].why, found[sha("turned")].verdict) == ("his nose", Verdict.DROP)
