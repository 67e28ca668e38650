from __future__ import annotations

import numpy as np
import pytest

from facemill.boxes import around
from facemill.sheets import before_after, contact_sheet, fit, strip


def flat(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_contact_sheet_has_its_cells_in_reading_order() -> None:
    sheet = contact_sheet([flat(10, 10, value) for value in (10, 20, 30)], columns=2, cell_px=10, gap_px=2)
    assert sheet.shape == (22, 22, 3)
    assert [sheet[5, 5, 0], sheet[5, 17, 0], sheet[17, 5, 0], sheet[17, 17, 0]] == [10, 20, 30, 255]


def test_a_wide_picture_keeps_its_aspect_in_the_middle_of_its_cell() -> None:
    sheet = contact_sheet([flat(20, 40, 0)], cell_px=20)
    assert sheet.shape == (20, 20, 3)
    assert (sheet[5:15] == 0).all()
    assert (sheet[:5] == 255).all()


def test_a_strip_has_one_height() -> None:
    assert strip([flat(50, 100, 1), flat(30, 30, 2)], height_px=20, gap_px=4).shape == (20, 40 + 4 + 20, 3)


def test_before_stands_above_after() -> None:
    sheet = before_after([(flat(8, 8, 10), flat(8, 8, 200))], height_px=8, gap_px=2)
    assert (sheet[:8] == 10).all()
    assert (sheet[10:] == 200).all()


def test_a_pair_of_two_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        before_after([(flat(8, 8, 0), flat(8, 9, 0))])


@pytest.mark.parametrize("make", [contact_sheet, strip])
def test_nothing_to_show_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        make([])


def test_fit_never_enlarges() -> None:
    assert fit(flat(10, 5, 0), 100).shape == (10, 5, 3)
    assert fit(flat(200, 100, 0), 100).shape == (100, 50, 3)


def test_the_square_around_a_face_stays_inside_the_picture() -> None:
    x0, y0, x1, y1 = around((1000, 2000, 3), (5, 5, 105, 105), margin=2.0)
    assert (x0, y0, x1, y1) == (0, 0, 200, 200)
    assert around((1000, 2000, 3), (500, 500, 600, 600), margin=2.0) == (450, 450, 650, 650)


def test_a_face_that_fills_the_picture_shows_the_whole_picture() -> None:
    assert around((100, 150, 3), (10, 10, 90, 90), margin=1.5) == (0, 0, 150, 100)
