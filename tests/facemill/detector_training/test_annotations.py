"""Annotations: three formats give the same boxes, each fault costs its box or picture and is told, the split stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from odd_files import make_no_files

from facemill.detector_training.annotations import AnnotatedPicture, Fault, read_annotations, split, survey_annotations
from facemill.errors import FacemillError
from facemill.pictures import encode_jpeg, encode_png

VOC_OBJECT = (
    "<object><name>face</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def picture(path: Path, width: int = 100, height: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = encode_png if path.suffix == ".png" else encode_jpeg
    path.write_bytes(encode(np.zeros((height, width, 3), np.uint8)))


def voc(path: Path, *boxes: tuple[object, ...], difficult: int = 0, filename: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(VOC_OBJECT.format(*box, difficult=difficult) for box in boxes)
    path.write_text(f"<annotation><filename>{filename}</filename>{objects}</annotation>")


def test_the_three_formats_give_the_same_boxes(tmp_path: Path) -> None:
    wider, dlib, pascal = tmp_path / "w", tmp_path / "d", tmp_path / "v"
    picture(wider / "WIDER_val" / "images" / "0--Parade" / "a.jpg")
    (wider / "split").mkdir()
    (wider / "split" / "wider_face_val_bbx_gt.txt").write_text("0--Parade/a.jpg\n1\n10 5 20 30 2 0 1 0 1 0 \n")
    picture(dlib / "a.jpg")
    (dlib / "testing.xml").write_text(
        "<?xml version='1.0' encoding='ISO-8859-1'?><dataset><images><image file='a.jpg'>"
        "<box top='5' left='10' width='20' height='30'/></image></images></dataset>"
    )
    picture(pascal / "images" / "a.png")
    voc(pascal / "annotations" / "a.xml", (10, 5, 30, 35), filename="a.jpg")
    found = [read_annotations(folder)[0] for folder in (wider, dlib, pascal)]
    assert [each.boxes_xyxy.tolist() for each in found] == [[[10, 5, 30, 35]]] * 3
    assert [each.subset for each in found] == ["val", "val", ""]
    assert (found[0].event, found[0].flags.tolist()) == ("0--Parade", [[2, 0, 1, 0, 1, 0]])


def test_ignored_faces_are_marked_in_each_format(tmp_path: Path) -> None:
    picture(tmp_path / "v" / "a.jpg")
    voc(tmp_path / "v" / "a.xml", (1, 1, 9, 9), difficult=1)
    picture(tmp_path / "d" / "a.jpg")
    (tmp_path / "d" / "x.xml").write_text(
        "<dataset><images><image file='a.jpg'><box top='1' left='1' width='8' height='8' ignore='1'/></image></images>"
        "</dataset>"
    )
    picture(tmp_path / "w" / "images" / "e" / "a.jpg")
    (tmp_path / "w" / "wider_face_val_bbx_gt.txt").write_text("e/a.jpg\n2\n1 1 8 8 0 0 0 1 0 0\n1 1 8 8 0 0 0 0 0 0\n")
    ignored = [read_annotations(tmp_path / name)[0].ignore.tolist() for name in "vdw"]
    assert ignored == [[True], [True], [True, False]]


def test_each_fault_costs_its_box_or_picture_and_is_told(tmp_path: Path) -> None:
    for name in ("good", "broken", "twisted"):
        picture(tmp_path / f"{name}.jpg")
    boxes = [(10, 5, 30, 35), (200, 5, 230, 35), (10, 5, 10, 35), ("x", 1, 2, 3), (90, 50, 130, 80)]
    voc(tmp_path / "good.xml", *boxes)
    (tmp_path / "broken.xml").write_text("<annotation><object>")
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>')
    voc(tmp_path / "lost.xml", (1, 2, 3, 4))
    voc(tmp_path / "text.xml", (1, 2, 3, 4))
    (tmp_path / "text.jpg").write_text("no picture")
    survey = survey_annotations(tmp_path)
    assert dict(survey.faults) == {
        Fault.BOX_OUTSIDE: 1,
        Fault.BOX_EMPTY: 1,
        Fault.BOX_BROKEN: 1,
        Fault.BOX_CLIPPED: 1,
        Fault.CORRUPT: 2,
        Fault.PICTURE_MISSING: 1,
        Fault.PICTURE_UNREADABLE: 1,
    }
    [good] = survey.pictures
    assert good.boxes_xyxy.tolist() == [[10, 5, 30, 35], [90, 50, 100, 60]]
    assert good.numbers is not None
    assert good.numbers.tolist() == [0, 4]
    assert "1 pictures, 2 faces" in survey.describe()
    assert "1 × picture missing, skipped (first: lost.xml)" in survey.describe()


def test_a_wider_list_with_faults_keeps_the_pictures_around_them(tmp_path: Path) -> None:
    for name in "abcde":
        picture(tmp_path / "images" / "e" / f"{name}.jpg")
    (tmp_path / "wider_face_train_bbx_gt.txt").write_text(
        "e/a.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"  # no face: WIDER FACE writes a line of zeros
        "e/b.jpg\n3\n1 1 5 5 0 0 0 0 0 0\n"  # two lines short
        "e/c.jpg\nmany\n1 1 5 5 0 0 0 0 0 0\n"
        "e/d.jpg\n1\n1 1 5\n"
        "e/e.jpg\n1\n1 1 5 5 0 0 0 0 0 0\n"
    )
    survey = survey_annotations(tmp_path)
    assert {each.path.stem: len(each.ignore) for each in survey.pictures} == {"a": 0, "d": 0, "e": 1}
    assert (survey.faults[Fault.CORRUPT], survey.faults[Fault.BOX_BROKEN]) == (2, 1)
    assert survey.first[Fault.CORRUPT] == "wider_face_train_bbx_gt.txt, line 4: 3 boxes announced, 1 there"


def test_a_name_in_an_annotation_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    picture(tmp_path / "set" / "a.jpg")
    (tmp_path / "set" / "x.xml").write_text(
        "<dataset><images><image file='../secret.jpg'/><image file='a.jpg'/></images></dataset>"
    )
    survey = survey_annotations(tmp_path / "set")
    assert [each.path.name for each in survey.pictures] == ["a.jpg"]
    assert survey.faults[Fault.PICTURE_MISSING] == 1


def test_annotations_and_pictures_that_are_no_files_are_faults_like_others(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", (1, 2, 30, 40))
    voc(tmp_path / "pipe of a picture.xml", (1, 2, 30, 40), filename="pipe.jpg")
    for suffix in (".xml", ".jpg", "_bbx_gt.txt"):
        make_no_files(tmp_path, suffix)
    survey = survey_annotations(tmp_path)
    assert [found.path.name for found in survey.pictures] == ["a.jpg"]
    assert survey.faults[Fault.CORRUPT] == 5  # two pipes, a socket, a device, and a folder


def test_a_folder_without_anything_usable_says_so(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="does not exist"):
        read_annotations(tmp_path / "nowhere")
    with pytest.raises(FacemillError, match="no annotations below"):
        read_annotations(tmp_path)
    voc(tmp_path / "a.xml", (1, 2, 3, 4))
    with pytest.raises(FacemillError, match=r"not one usable picture.*1 × picture missing"):
        read_annotations(tmp_path)


def annotated(name: str, subset: str = "") -> AnnotatedPicture:
    return AnnotatedPicture(Path(name), np.zeros((0, 4), np.float32), np.zeros(0, bool), subset=subset)


def test_the_split_depends_on_the_file_name_alone() -> None:
    every = [annotated(f"folder/{at}.jpg") for at in range(2000)]
    _, held_out = split(every)
    assert 360 < len(held_out) < 440
    _, fewer = split([annotated(f"elsewhere/{at}.png") for at in range(1999, 999, -1)])
    assert {each.path.stem for each in fewer} == {each.path.stem for each in held_out if int(each.path.stem) > 999}
    assert [each.path.stem for each in held_out[:5]] == ["8", "9", "39", "46", "47"]


def test_stated_subsets_win_over_the_hash() -> None:
    trained, held_out = split([annotated("1.jpg", "train"), annotated("2.jpg", "val")])
    assert ([each.path.name for each in trained], [each.path.name for each in held_out]) == (["1.jpg"], ["2.jpg"])


def test_the_real_sets_are_read_whole(shared: Path) -> None:
    survey = survey_annotations(shared / "data" / "detection" / "face_mask_voc")
    assert (len(survey.pictures), sum(len(each.ignore) for each in survey.pictures)) == (853, 4072)
    assert set(survey.faults) <= {Fault.BOX_CLIPPED}
    assert [len(side) for side in split(survey.pictures)] == [671, 182]
