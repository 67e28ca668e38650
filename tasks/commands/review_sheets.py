"""`facemill review` without a browser: contact sheets of faces, and a list in which a person fills in verdicts.

The list has the columns of decisions.csv and a line for each face, with the sheet and the number by which it is found
there. Lines whose verdict stays empty say nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from facemill.errors import FacemillError
from facemill.files import sweep, write_bytes
from facemill.pictures import RGB, decode, encode_jpeg
from facemill.sheets import contact_sheet, fit
from tasks.commands.review import FaceList, Wanted, take
from tasks.curating.decided import place_of
from tasks.curating.decisions import COLUMNS, DECISIONS_FILE, parse_decisions

LIST = "faces.csv"
BESIDE = ("sheet", "number", "ended", "detail")
_COLUMNS, _ROWS, _CELL_PX = 10, 8, 128
_JPEG_QUALITY = 88


def write_sheets(faces: FaceList, wanted: Wanted, folder: Path) -> list[str]:
    """Writes sheets of some faces, the least alike first, and the list of what they show.

    Returns:
        Sentences for a person.

    Raises:
        FacemillError: there is no such face, or the folder holds a list already, which may be filled in.
    """
    chosen = faces.select(wanted, "distance").drop_columns(["part"])
    if not len(chosen):
        raise FacemillError("there is no face of this choice: `facemill review` shows which reasons there are")
    if (folder / LIST).exists():
        raise FacemillError(f"{folder / LIST} is there already, and may be filled in: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, deep=False)
    out, on_a_sheet = io.StringIO(newline=""), _COLUMNS * _ROWS
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *BESIDE])
    sheets = range(0, len(chosen), on_a_sheet)
    for at in sheets:
        name = f"sheet-{at // on_a_sheet + 1:03d}.jpg"
        rows = chosen.slice(at, on_a_sheet).to_pylist()
        cells = []
        for number, row in enumerate(rows, start=at + 1):
            cells.append(_numbered(decode(faces.crop(row["face_id"])), number))
            writer.writerow(_line(row, name, number))
        sheet = contact_sheet(cells, columns=_COLUMNS, cell_px=_CELL_PX)
        write_bytes(folder / name, encode_jpeg(sheet, quality=_JPEG_QUALITY), durable=False)
    write_bytes(folder / LIST, out.getvalue().encode("utf-8-sig"))  # the mark by which spreadsheets know UTF-8
    return [
        f"{folder}: {len(sheets)} {'sheet' if len(sheets) == 1 else 'sheets'} of {len(chosen)} faces.",
        f"Write keep or drop into the column `verdict` of {folder / LIST}, and another name into `identity` where a "
        f"face is somebody else's; then `facemill review take {folder / LIST}`.",
    ]


def take_list(faces: FaceList, path: Path) -> str:
    """Takes the verdicts of a list into decisions.csv; a sentence for a person.

    Raises:
        FacemillError: the list is broken, with the line, or nothing is filled in.
    """
    decisions = parse_decisions(path.read_bytes(), str(path), faces.identities, beside=BESIDE, blank=True)
    if not decisions:
        raise FacemillError(f"{path}: no line has a verdict; write keep or drop into that column")
    return f"{DECISIONS_FILE} has {take(faces, decisions)} decisions of {path}. `dvc repro curate` applies them."


def _line(row: Mapping[str, Any], sheet: str, number: int) -> list[Any]:
    """The face, whose it is now, nothing said; and where it is shown and how it ended."""
    ended = row["error"] or row["status"]
    return [
        row["sample_id"],
        *place_of(row["box"]),
        "",
        row["identity"],
        "",
        "",
        "",
        sheet,
        number,
        ended,
        row["detail"],
    ]


def _numbered(picture: RGB, number: int) -> RGB:
    """A crop with its number in a corner. Digits are all that OpenCV's fonts are good for."""
    small = fit(picture, _CELL_PX).copy()
    (width, height), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    cv2.rectangle(small, (0, 0), (width + 6, height + 8), (20, 24, 31), cv2.FILLED)
    cv2.putText(small, str(number), (3, height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return small
