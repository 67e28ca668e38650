"""Pictures laid out for people: thumbnails, contact sheets, before/after strips.

Everything here is RGB uint8 in and out. Labels are left to the page that shows the pictures: OpenCV's fonts know
neither accents nor scripts, HTML does.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from facemill.pictures import RGB

Colour = tuple[int, int, int]
PAPER: Colour = (255, 255, 255)


def contact_sheet(
    pictures: Sequence[RGB], *, columns: int = 8, cell_px: int = 96, gap_px: int = 4, paper: Colour = PAPER
) -> RGB:
    """Pictures in rows of square cells, each fitted whole and centred.

    Args:
        pictures: RGB uint8 of any sizes, at least one.
        columns: cells in a row; fewer pictures make a narrower sheet.

    Returns:
        RGB uint8, rows × (cell_px + gap_px) − gap_px high.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = cell_px + gap_px
    sheet = _blank(rows * step - gap_px, columns * step - gap_px, paper)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        _place(sheet, fit(picture, cell_px), row * step, column * step, cell_px)
    return sheet


def strip(pictures: Sequence[RGB], *, height_px: int = 160, gap_px: int = 4, paper: Colour = PAPER) -> RGB:
    """Pictures side by side at one height, each keeping its aspect.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("a strip needs at least one picture")
    scaled = [to_height(picture, height_px) for picture in pictures]
    sheet = _blank(height_px, sum(one.shape[1] for one in scaled) + gap_px * (len(scaled) - 1), paper)
    x = 0
    for one in scaled:
        sheet[:, x : x + one.shape[1]] = one
        x += one.shape[1] + gap_px
    return sheet


def before_after(
    pairs: Sequence[tuple[RGB, RGB]], *, height_px: int = 160, gap_px: int = 4, paper: Colour = PAPER
) -> RGB:
    """Two rows: the originals above, what became of them below. Both pictures of a pair have one size.

    Raises:
        ValueError: no pairs, or a pair of two sizes.
    """
    for before, after in pairs:
        if before.shape != after.shape:
            raise ValueError(f"a pair must have one size, got {before.shape} and {after.shape}")
    rows = [strip([pair[row] for pair in pairs], height_px=height_px, gap_px=gap_px, paper=paper) for row in (0, 1)]
    space = _blank(gap_px, rows[0].shape[1], paper)
    return np.concatenate([rows[0], space, rows[1]])


def fit(picture: RGB, side_px: int) -> RGB:
    """The whole picture, scaled so that its longer side is `side_px`; never enlarged."""
    height, width = picture.shape[:2]
    return _scaled(picture, min(1.0, side_px / max(height, width)))


def to_height(picture: RGB, height_px: int) -> RGB:
    """The whole picture, RGB uint8, scaled to this height; its aspect stays."""
    height, width = picture.shape[:2]
    size = (max(1, round(width * height_px / height)), height_px)
    return _resized(picture, size)


def _place(sheet: RGB, picture: RGB, top: int, left: int, cell_px: int) -> None:
    height, width = picture.shape[:2]
    top += (cell_px - height) // 2
    left += (cell_px - width) // 2
    sheet[top : top + height, left : left + width] = picture


def _scaled(picture: RGB, factor: float) -> RGB:
    if factor == 1.0:
        return picture
    height, width = picture.shape[:2]
    return _resized(picture, (max(1, round(width * factor)), max(1, round(height * factor))))


def _resized(picture: RGB, size_wh: tuple[int, int]) -> RGB:
    shrinks = size_wh[1] < picture.shape[0]
    resized = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized, np.uint8)


def _blank(height: int, width: int, paper: Colour) -> RGB:
    return np.full((height, width, 3), paper, np.uint8)
