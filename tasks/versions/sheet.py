"""The faces that two versions do not have in common, on a page that a person opens: added, deleted, modified.

One HTML file without requests, each face above its id and what became of it. Crops are read from the versions' tables
where they lie, and only those that are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from facemill.errors import FacemillError
from facemill.files import write_bytes
from tasks.report_page.thumbnails import Album
from tasks.versions.comparison import Comparison, Difference, Kind
from tasks.versions.store import Version
from tasks.versions.version_table import of_each_part

FACES = 60
"""So many of each kind are shown, spread evenly over all of it; of the rest the number is said."""
SIDE_PX = 128
_SUFFIXES = (".html", ".htm")
_TITLES: dict[Kind, str] = {"A": "Added", "D": "Deleted", "M": "Modified"}

Key = tuple[str, str]
"""(id of the face, identity), as `Difference` has them."""


@dataclass(frozen=True)
class ShownFace:
    """A face of the page: its picture as a data URI, None where there is none to show, and the words below it."""

    picture: str | None
    difference: Difference


@dataclass(frozen=True)
class Section:
    """Faces of one kind: those that are shown, and how many there are."""

    title: str
    faces: list[ShownFace]
    count: int


def check_sheet(path: Path) -> None:
    """Refuses a name that is none of a page, before anything is read.

    Raises:
        FacemillError: with a name that would do.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise FacemillError(f"{path} is to be a page for a browser: name it {path.with_suffix('.html').name}")


def write_sheet(root: Path, path: Path, comparison: Comparison) -> None:
    """Writes the page.

    Args:
        root: the project's folder.
        path: of the file, which ends in .html.
        comparison: what differs.

    Raises:
        FacemillError: another suffix, data that lies neither in DVC's cache nor in its remote, a full disk.
    """
    check_sheet(path)
    album, sections = Album(), []
    for kind, title in _TITLES.items():
        own = [one for one in comparison.differences if one.kind == kind]
        shown = _spread(own, FACES)
        crops = _crops(root, comparison.first if kind == "D" else comparison.second, shown)
        faces = [ShownFace(album.add_encoded(crops.get((one.id, one.identity)), SIDE_PX), one) for one in shown]
        sections.append(Section(title, faces, len(own)))
    page = _template().render(first=comparison.first, second=comparison.second, sections=sections)
    write_bytes(path, page.encode())


def _spread(found: Sequence[Difference], most: int) -> list[Difference]:
    """At most so many, evenly over all, so that no identity fills the page for its name."""
    count = min(most, len(found))
    return [found[at * len(found) // count] for at in range(count)]


def _crops(root: Path, version: Version, shown: Sequence[Difference]) -> dict[Key, bytes]:
    """The encoded crops of faces of a version, of those that have one."""
    wanted = {(one.id, one.identity) for one in shown}
    found: dict[Key, bytes] = {}
    for crops in of_each_part(root, version, partial(_crops_of, wanted)) if wanted else ():
        found |= crops
    return found


def _crops_of(wanted: set[Key], part: pq.ParquetFile) -> dict[Key, bytes]:
    """The wanted crops of a part; of its other row groups no picture is read."""
    found: dict[Key, bytes] = {}
    for group in range(part.num_row_groups):
        rows = part.read_row_group(group, columns=["face_id", "sample_id", "identity"]).to_pylist()
        places = {key: at for at, key in enumerate(_keys(rows)) if key in wanted}
        crops = part.read_row_group(group, columns=["crop"])["crop"] if places else ()
        found |= {key: data for key, at in places.items() if (data := (crops[at].as_py() or {}).get("bytes"))}
    return found


def _keys(rows: Sequence[dict[str, Any]]) -> Iterator[Key]:
    yield from ((row["face_id"] or row["sample_id"] or "", row["identity"] or "") for row in rows)


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "sheet.html.j2"
    )
