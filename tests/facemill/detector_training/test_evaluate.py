"""Average precision against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facemill.boxes import HOG_BOXES
from facemill.detect import Faces
from facemill.detector_training.annotations import AnnotatedPicture
from facemill.detector_training.evaluate import (
    average_precision,
    evaluate,
    subsets_by_height,
    wider_average_precision,
)
from facemill.detector_training.wider_lists import official_subsets
from facemill.errors import FacemillError
from facemill.pictures import encode_png


def truth(*boxes: tuple[float, ...], ignore: tuple[int, ...] = (), path: str = "e/a.jpg") -> AnnotatedPicture:
    flags = np.isin(np.arange(len(boxes)), ignore)
    return AnnotatedPicture(Path(path), np.array(boxes, np.float32).reshape(-1, 4), flags, event="e")


def faces(*rows: tuple[float, ...]) -> Faces:
    """Rows of x0, y0, x1, y1, score."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4])


def box(left: float, side: float = 20) -> tuple[float, ...]:
    return left, 0, left + side, side


A, B, C, NOWHERE = box(0), box(100), box(200), box(500)


def test_area_and_eleven_points_are_those_worked_out_by_hand() -> None:
    # by falling score: right, wrong, right, wrong; three faces to find
    found = [faces((*A, 0.9), (*NOWHERE, 0.8)), faces((*B, 0.7), (*NOWHERE, 0.6))]
    truths = [truth(A), truth(B, C)]
    area = average_precision(found, truths)
    assert area.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert area.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert area.ap == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert area.recall_at_default == pytest.approx(2 / 3)
    # recalls 0, .1, .2, .3 see precision 1; .4, .5, .6 see 2/3; the four beyond see nothing
    assert average_precision(found, truths, style="voc11").ap == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_a_second_detection_of_a_face_is_wrong() -> None:
    area = average_precision([faces((*A, 0.9), (*A, 0.8), (*B, 0.7))], [truth(A, B)])
    assert area.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert area.ap == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_ignored_and_small_faces_are_neither_right_nor_wrong() -> None:
    small = box(300, side=10)
    found = [faces((*A, 0.9), (*B, 0.8), (*small, 0.7))]
    area = average_precision(found, [truth(A, B, small, ignore=(0,))], min_side_px=16)
    assert (area.ap, area.faces, area.scores.tolist()) == (1.0, 1, [pytest.approx(0.8)])
    assert average_precision(found, [truth(A, B, small)]).faces == 3


def test_an_overlap_of_exactly_the_threshold_hits() -> None:
    half = (0.0, 0.0, 20.0, 10.0)  # 200 of 400 px
    assert average_precision([faces((*half, 0.9))], [truth(A)]).ap == 1.0
    assert average_precision([faces((*half, 0.9))], [truth(A)], iou=0.51).ap == 0.0


def test_nothing_found_and_nothing_to_find_are_zero() -> None:
    nothing = average_precision([Faces.empty()], [truth(A)])
    assert (nothing.ap, nothing.recall_at_default, nothing.faces) == (0.0, 0.0, 1)
    assert average_precision([faces((*A, 0.5))], [truth()]).ap == 0.0
    with pytest.raises(ValueError, match=r"longer|shorter"):
        average_precision([], [truth(A)])


def test_wider_precision_is_the_one_worked_out_by_hand() -> None:
    # scores stretch to 1, 0.5, 0.25, 0; faces A, B, C count: right, wrong, right, right of three
    found = [faces((*A, 5.0), (*NOWHERE, 3.0)), faces((*B, 2.0), (*C, 1.0))]
    truths = [truth(A), truth(B, C)]
    every = subsets_by_height(truths, {"all": 10})["all"]
    # envelope: recall 1/3 at 1; then 2/3 at 2/3 and 1 at 3/4, so both at 3/4
    assert wider_average_precision(found, truths, every) == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)


def test_wider_counts_no_detection_in_pictures_without_faces_but_their_faces_without_detections() -> None:
    found = [faces((*A, 5.0)), faces((*NOWHERE, 9.0)), Faces.empty()]
    truths = [truth(A), truth(), truth(B)]
    every = subsets_by_height(truths, {"all": 10})["all"]
    assert wider_average_precision(found, truths, every) == pytest.approx(1 / 2)


def test_a_face_outside_the_subset_is_neither_right_nor_wrong_however_often_it_is_found() -> None:
    found = [faces((*A, 5.0), (*A, 4.0), (*B, 3.0))]
    subset = [np.array([False, True])]
    assert wider_average_precision(found, [truth(A, B)], subset) == 1.0
    assert wider_average_precision(found, [truth(A, B)], [np.array([True, True])]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_detections_between_two_thresholds_count_together() -> None:
    # 0.9999 and 0.9995 of the range fall between the thresholds 1 and 0.999: the wrong one cannot come after the right
    found = [faces((*A, 10_000.0), (*NOWHERE, 9_999.0), (*B, 9_995.0), (*C, 0.0))]
    assert wider_average_precision(found, [truth(A, B, C)], [np.ones(3, bool)]) == pytest.approx(2 / 3 * 3 / 4 + 1 / 4)
    assert average_precision(found, [truth(A, B, C)]).ap == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)


def test_heights_make_nested_subsets() -> None:
    subsets = subsets_by_height([truth(box(0, 60), box(100, 40), box(200, 12), box(300, 5), box(400, 80), ignore=(4,))])
    assert {name: rows[0].tolist() for name, rows in subsets.items()} == {
        "easy": [True, False, False, False, False],
        "medium": [True, True, False, False, False],
        "hard": [True, True, True, False, False],
    }


def cell(*items: object) -> np.ndarray:
    """A MATLAB column cell array, as loadmat gives it back."""
    column = np.empty((len(items), 1), object)
    for at, item in enumerate(items):
        column[at, 0] = item
    return column


def test_official_lists_are_read_by_event_and_file(tmp_path: Path) -> None:
    from scipy.io import savemat

    for name, numbers in (("easy", [[2]]), ("medium", [[1], [2]]), ("hard", np.zeros((0, 1)))):
        rows = cell(cell(np.array(numbers, np.uint8), np.array([[1]], np.uint8)))
        table = {"event_list": cell("e"), "file_list": cell(cell("a", "b")), "gt_list": rows}
        savemat(tmp_path / f"wider_{name}_val.mat", table)
    subsets = official_subsets(tmp_path, [truth(A, B, C)])
    assert [subsets[name][0].tolist() for name in ("easy", "medium", "hard")] == [
        [False, True, False],
        [True, True, False],
        [False, False, False],
    ]
    with pytest.raises(FacemillError, match=r"does not know e/z\.jpg"):
        official_subsets(tmp_path, [truth(A, path="e/z.jpg")])
    (tmp_path / "wider_easy_val.mat").write_bytes(b"no matrix")
    with pytest.raises(FacemillError, match=r"wider_easy_val\.mat is not one of"):
        official_subsets(tmp_path, [truth(A)])


class Bright:
    """Finds the one bright rectangle of a picture: enough of a detector to know what it must score."""

    name, box_convention = "bright", HOG_BOXES

    def detect(self, pictures):
        return [self._one(picture[:, :, 0] > 128) for picture in pictures]

    def _one(self, lit: np.ndarray) -> Faces:
        ys, xs = np.nonzero(lit)
        return faces((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.9)) if len(xs) else Faces.empty()


def test_a_run_measures_what_is_known_and_tells_what_it_could_not_read(tmp_path: Path) -> None:
    truths = []
    for at, side in enumerate((20, 40, 60)):
        picture = np.zeros((100, 100, 3), np.uint8)
        picture[:side, :side] = 255 if side < 60 else 0
        path = tmp_path / f"{at}.png"
        path.write_bytes(encode_png(picture))
        truths.append(truth((0, 0, side, side), path=str(path)))
    (tmp_path / "9.png").write_bytes(b"rubbish")
    report = evaluate(Bright(), [*truths, truth(A, path=str(tmp_path / "9.png"))], batch=2)
    wanted = {"ap": 2 / 3, "recall": 2 / 3, "easy": 0.0, "medium": 1 / 2, "hard": 2 / 3, "faces": 3, "pictures": 3}
    assert {name: report.numbers[name] for name in wanted} == pytest.approx(wanted)
    assert report.unreadable[0].startswith("9.png: ")
