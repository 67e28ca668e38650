"""What a person says of faces, against what the rules say: `decisions.csv` in the project's folder.

    sample_id,x,y,verdict,identity,by,date,why
    3f1a…,410,230,keep,anna,ann,2026-11-26,the blur is her hair
    90c2…,,,drop,,ann,2026-11-26,sunglasses

A face is named by its picture and a place in it, in pixels, which survive refreshes and other detectors. `keep` says
whose it is: also that of another identity than it was collected for. `drop` takes it away. Without a place all faces of
the picture are meant. `facemill review` writes the file; it can as well be written by hand, and belongs into git.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import write_bytes

DECISIONS_FILE = "decisions.csv"
COLUMNS = ("sample_id", "x", "y", "verdict", "identity", "by", "date", "why")
_NEEDED = COLUMNS[:5]
FORMAT = 1
MOST_BYTES = 64 * 2**20
"""Half a million decisions; a larger file is something else."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIXELS = re.compile(r"\d{1,6}")

Place = tuple[int, int]


class Verdict(StrEnum):
    """What a person says of a face."""

    KEEP = "keep"
    """It is taken, whatever the rules say of it."""
    DROP = "drop"


@dataclass(frozen=True)
class Decision:
    """What is said of a face, or of all faces of a picture.

    Attributes:
        sample_id: of the picture.
        place: x and y in pixels of the upright picture, in the face's box; None for all faces of the picture.
        identity: whose the face is, where it is kept.
        by: who says so; empty where that is not told, as are date and reason.
        line: of the file, for messages.
    """

    sample_id: str
    place: Place | None
    verdict: Verdict
    identity: str = ""
    by: str = ""
    date: str = ""
    why: str = ""
    line: int = field(default=0, compare=False)

    @property
    def said(self) -> list[Any]:
        """What decides about faces, and so what `curate` is made of: not who said it, when and why."""
        return [self.sample_id, *(self.place or (None, None)), self.verdict.value, self.identity]

    @property
    def about(self) -> tuple[str, Place | None]:
        """Which face is meant."""
        return self.sample_id, self.place


def read_decisions(root: Path, identities: Collection[str]) -> list[Decision]:
    """The decisions of a project in the order of their lines; none where there is no file.

    Args:
        root: of the project.
        identities: whose faces there can be.

    Raises:
        FacemillError: the file is broken; with the line, and what to write there.
    """
    path = root / DECISIONS_FILE
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FacemillError(f"{path} cannot be read ({error.strerror})") from error
    return parse_decisions(data, str(path), identities)


def parse_decisions(
    data: bytes, name: str, identities: Collection[str], *, beside: Collection[str] = (), blank: bool = False
) -> list[Decision]:
    """The decisions in the bytes of a file. Raises as `read_decisions`.

    Args:
        data: what stands in it.
        name: of the file, for messages.
        identities: whose faces there can be.
        beside: columns that may also be there, and say nothing.
        blank: it is a list that a person fills in: lines without a verdict say nothing, and faces that are dropped
            may have an identity.
    """
    if len(data) > MOST_BYTES:
        raise FacemillError(f"{name} has more than {MOST_BYTES // 2**20} MiB: that is no list of decisions")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise FacemillError(f"{name}, line {line}: not UTF-8; save it as UTF-8, or bring it back with git") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[tuple[str, Place | None], Decision] = {}
    header: list[str] = []
    try:
        for fields in reader:
            if not any(map(str.strip, fields)):
                continue
            if not header:
                header = _header(name, reader.line_num, [each.strip() for each in fields], beside)
                continue
            if (decision := _decision(name, reader.line_num, header, fields, identities, blank)) is None:
                continue
            if (other := found.get(decision.about)) is not None:
                raise FacemillError(
                    f"{name}, line {decision.line}: this face stands in line {other.line}, too; take one of them out"
                )
            found[decision.about] = decision
    except csv.Error as error:
        raise FacemillError(
            f"{name}, line {reader.line_num}: not CSV ({error}); close its quotes, or bring the file back with git"
        ) from error
    return [*found.values()]


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Writes the file in one step; the same decisions in the same order give the same bytes."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in decisions:
        x, y = one.place or ("", "")
        writer.writerow([one.sample_id, x, y, one.verdict.value, one.identity, one.by, one.date, one.why])
    write_bytes(path, out.getvalue().encode())


def as_content(decisions: Iterable[Decision]) -> dict[str, Any]:
    """What data/decisions.json holds: all that decides, sorted."""
    return {"format": FORMAT, "decisions": sorted((one.said for one in decisions), key=_sortable)}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two contents of data/decisions.json, in words."""
    before, after = ({tuple(one[:3]): one[3:] for one in each["decisions"]} for each in (old, new))
    kinds = (
        ("new", after.keys() - before.keys()),
        ("changed", {one for one in after.keys() & before.keys() if after[one] != before[one]}),
        ("taken back", before.keys() - after.keys()),
    )
    told = [f"{len(some)} {kind}" for kind, some in kinds if some]
    return [f"decisions: {', '.join(told)}"] if told else []


def _sortable(said: list[Any]) -> list[str]:
    return [str(each) for each in said]


def _header(name: str, line: int, fields: list[str], beside: Collection[str]) -> list[str]:
    missing = [each for each in _NEEDED if each not in fields]
    unknown = [each for each in fields if each not in COLUMNS and each not in beside]
    if missing or unknown or len(set(fields)) < len(fields):
        raise FacemillError(f"{name}, line {line}: the first line has to be `{','.join(COLUMNS)}`")
    return fields


def _decision(
    name: str, line: int, header: list[str], fields: list[str], identities: Collection[str], blank: bool
) -> Decision | None:
    def wrong(what: str) -> FacemillError:
        return FacemillError(f"{name}, line {line}: {what}")

    if len(fields) != len(header):
        raise wrong(f"{len(fields)} values for {len(header)} columns; a text with a comma stands in quotes")
    told = {key: value.strip() for key, value in zip(header, fields, strict=True)}
    if blank and not told["verdict"]:
        return None
    if not _SHA256.fullmatch(told["sample_id"].lower()):
        raise wrong(f"{told['sample_id'][:80]!r} is no sample_id: 64 digits, as the tables have them")
    x, y = told["x"], told["y"]
    if any(each and not _PIXELS.fullmatch(each) for each in (x, y)) or bool(x) != bool(y):
        raise wrong(f"x and y are {x[:20]!r} and {y[:20]!r}: write both in whole pixels, or neither for all faces")
    if told["verdict"] not in [*Verdict]:
        raise wrong(f"the verdict is {told['verdict'][:80]!r}: write keep or drop")
    verdict, identity = Verdict(told["verdict"]), told["identity"]
    known = ", ".join(sorted(identities))
    if verdict is Verdict.KEEP and identity not in identities:
        who = f"{identity[:80]!r}, whom params.yaml does not know" if identity else "nobody's"
        raise wrong(f"the face that is kept is {who}: write whose it is ({known}), or take the line out")
    if verdict is Verdict.DROP and identity and not blank:
        raise wrong("a face that is dropped is nobody's: leave `identity` empty, or write keep")
    return Decision(
        told["sample_id"].lower(),
        (int(x), int(y)) if x else None,
        verdict,
        identity if verdict is Verdict.KEEP else "",
        told.get("by", ""),
        told.get("date", ""),
        told.get("why", ""),
        line,
    )
