"""`facemill export faces` and `import faces`: the dataset as folders that other tools and a file manager work with.

    FOLDER/anna/3f1a…-anna-0.jpg           a face of the dataset, aligned, as it is trained on
    FOLDER/anna/_blurred/90c2…-anna-0.jpg  a rejected one, by its reason (only where they are asked for)
    FOLDER/alignments.jsonl                a line of JSON for each face: landmarks, affine, box, pose, licence and more

What was done in the folder comes back as decisions of a person (`tasks.curating.decisions`): a face that was deleted is
dropped, one that was moved to a person's folder is kept for that person.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facemill import tables
from facemill.align import transform
from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.reasons import State
from facemill.schema import DATASET, DatasetRow
from tasks.catalogue import Data
from tasks.commands.review import FaceList, take
from tasks.curating.decided import place_of
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict

LIST = "alignments.jsonl"
FORMAT = 1
_AS_THEY_ARE = ["face_id", "sample_id", "identity", "source", "url", "page", "licence", "author", "attribution"]
_AS_THEY_ARE += ["split", "status", "error", "detail", "distance", "face_px", "sharpness", "yaw", "pitch", "roll"]
_COLUMNS = [*_AS_THEY_ARE, "box", "landmarks", "affine", "crop"]
_GONE_LIMIT = 0.5


def export_faces(root: Path, folder: Path, *, rejected: bool = False) -> dict[str, int]:
    """Writes the faces of the dataset as files, and the list of what is known of them; the list last.

    Args:
        root: of the project.
        folder: that gets them; new or empty.
        rejected: also those that curation has refused.

    Returns:
        How many of each identity.

    Raises:
        FacemillError: the folder holds something, there is no dataset, or no such face.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FacemillError(f"{folder} is not an empty folder: name a new one")
    counts: dict[str, int] = {}
    with atomic_path(folder / LIST) as temporary, temporary.open("w", encoding="utf-8") as stream:
        row: DatasetRow
        for row in tables.iterate_rows(root / Data.DATASET, DATASET, _COLUMNS):
            if row["crop"] and (row["status"] == State.OK or rejected):
                file = _file(row)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(row["crop"]["bytes"])
                stream.write(json.dumps(_line(row, file), ensure_ascii=False) + "\n")
                counts[row["identity"]] = counts.get(row["identity"], 0) + 1
    if not counts:
        raise FacemillError(f"{Data.DATASET} holds no face that could be exported: run `dvc repro curate` first")
    return counts


def import_faces(faces: FaceList, folder: Path, *, even_many: bool = False) -> int:
    """Takes what was done in the folders of an export as decisions; gives how many.

    Args:
        faces: of the project.
        folder: as `export_faces` has written it, with files deleted or moved between the folders of people.
        even_many: also where more than half of the faces of the dataset are gone.

    Raises:
        FacemillError: the list is missing or broken, with the line; a file lies there twice, or in the folder of
            nobody who is known; or most files are gone.
    """
    found: dict[str, Path] = {}
    for path in sorted(_files(folder)):
        if path.name in found:
            raise FacemillError(f"{path.name} lies in {folder} twice: leave the one that is right")
        found[path.name] = path.relative_to(folder)
    decisions, gone, kept = [], 0, 0
    for line in _read_list(folder / LIST):
        was, now = Path(line["file"]), found.get(Path(line["file"]).name)
        ours = len(was.parts) == 2  # not below a reason
        kept += ours
        gone += ours and now is None
        if now == was or (now is None and not ours):
            continue
        whose = now.parts[0] if now is not None and len(now.parts) == 2 else ""
        if whose and whose not in faces.identities:
            raise FacemillError(
                f"{folder / str(now)} lies in the folder of {whose!r}, whom params.yaml does not know: move it to one "
                f"of {', '.join(faces.identities)}"
            )
        if whose or ours:
            verdict = Verdict.KEEP if whose else Verdict.DROP
            decisions.append(Decision(line["sample_id"], place_of(line["box"]), verdict, whose))
    if gone > _GONE_LIMIT * kept and not even_many:
        raise FacemillError(
            f"{gone} of the {kept} faces of {folder} are gone: give --even-many if all of them are to be dropped"
        )
    return take(faces, decisions) if decisions else 0


def describe_import(count: int) -> str:
    """What became of an import, in a sentence."""
    if not count:
        return "Nothing was moved or deleted there: there is nothing to decide."
    return f"{DECISIONS_FILE} has {count} decisions of it. `dvc repro curate` applies them."


def _file(row: DatasetRow) -> str:
    below = "" if row["status"] == State.OK else f"_{row['error']}/"
    return f"{row['identity']}/{below}{row['face_id']}.jpg"


def _line(row: DatasetRow, file: str) -> dict[str, Any]:
    """What is known of a face, for other tools: points in pixels, of the picture and of the file."""
    points = np.reshape(row["landmarks"], (68, 2))
    affine = np.reshape(row["affine"], (2, 3))
    plain: dict[str, Any] = {name: value for name, value in row.items() if name in _AS_THEY_ARE}
    return {
        "format": FORMAT,
        "file": file,
        **plain,
        "box": row["box"],
        "landmarks": points.round(3).tolist(),
        "affine": affine.tolist(),
        "landmarks_in_file": transform(points, affine).round(3).tolist(),
    }


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names if name.endswith(".jpg"))


def _read_list(path: Path) -> Iterator[dict[str, Any]]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FacemillError(
            f"{path} cannot be read ({error.strerror}): name a folder that `facemill export faces` has written"
        ) from error
    with stream:
        for number, data in enumerate(stream, start=1):
            try:
                yield _checked(json.loads(data))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise FacemillError(f"{path}, line {number}: not as `facemill export faces` writes it") from error


def _checked(line: Any) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError where a line lacks what an import needs."""
    box, parts = [float(each) for each in line["box"]], Path(str(line["file"])).parts
    sample_id = str(line["sample_id"])
    if (
        line["format"] != FORMAT
        or not isinstance(line["box"], list)
        or len(box) != 4
        or not np.isfinite(box).all()
        or max(map(abs, box)) > 1e6
    ):
        raise ValueError("no face")
    if len(sample_id) != 64 or not set(sample_id) <= set("0123456789abcdef") or len(parts) not in (2, 3):
        raise ValueError("no picture")
    return {"file": str(line["file"]), "sample_id": sample_id, "box": box}
