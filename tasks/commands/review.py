"""`facemill review`: the faces of the dataset as a person looks through them, and what is said of them written down.

All but the crops is in memory, some 0.5 KB a face; crops are read from the part that holds them when they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_json
from facemill.locks import locked
from facemill.reasons import Reason, State
from facemill.schema import DATASET, DatasetRow
from tasks.catalogue import Data
from tasks.curating.decided import place_of, rows_meant
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict, as_content, read_decisions, write_decisions
from tasks.params import load_params
from tasks.work.scratch import WORK_FOLDER

_COLUMNS = ["face_id", "sample_id", "identity", "role", "source", "url", "page", "licence", "box", "face_px", "score"]
_COLUMNS += ["sharpness", "yaw", "pitch", "roll", "distance", "cluster", "split", "status", "error", "detail"]
_WORDS = ("identity", "role", "source", "licence", "split", "status", "error")
_COPIES = (Reason.NEAR_DUPLICATE, Reason.SAME_LOOK)
_WRITING_S = 10.0
_PARTS_KEPT = 8
ORDERS = {
    "table": (),
    "distance": ("distance", "descending"),
    "sharpness": ("sharpness", "ascending"),
    "size": ("face_px", "ascending"),
    "yaw": ("yaw", "ascending"),
}
"""How faces can be sorted: what is doubtful stands first."""
SAID = ("any", "none", *Verdict)


@dataclass(frozen=True)
class Wanted:
    """Which faces are looked through; what is empty leaves none out.

    Attributes:
        identity: whose they count for.
        state: ok, rejected or failed.
        reason: code of the reason why they are rejected.
        cluster: as the column says it: one shot of a video, or a picture with its copies.
        copies: id of a face: it and those that fell to it.
        said: any, none, keep or drop: what a person has said of them.
    """

    identity: str = ""
    state: str = ""
    reason: str = ""
    cluster: str = ""
    copies: str = ""
    said: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Wanted:
        """From what a page or a command line says. Raises FacemillError for what is none of these."""
        known = {name: values.get(name) or "" for name in cls.__dataclass_fields__}
        if not all(isinstance(each, str) for each in known.values()) or known["said"] not in ("", *SAID):
            raise FacemillError(f"no such choice of faces: {known}")
        return cls(**known)


class FaceList:
    """The faces of a project's dataset, as they are now: it is read again when the stage has written it anew."""

    def __init__(self, root: Path, identities: Sequence[str], by: str) -> None:
        """
        Args:
            root: of the project.
            identities: whose a face can be.
            by: who looks through them, for the file of decisions.

        Raises:
            FacemillError: there is no dataset, or decisions.csv is broken.
        """
        self.root, self.identities, self.by = root, sorted(identities), by
        self._folder = root / Data.DATASET
        self._read: tuple[Any, Any] = (None, None)
        self._faces: pa.Table
        self._parts: list[Path] = []
        self.decisions: list[Decision] = []
        self._said: dict[str, Decision] = {}
        self._crops = lru_cache(_PARTS_KEPT)(self._read_crops)
        self.refresh()

    def refresh(self) -> None:
        """Reads again what has changed. Raises as the class does."""
        table, file = _state(self._folder), _state(self.root / DECISIONS_FILE)
        if table is None or table != self._read[0]:
            self._load()
        if (table, file) != self._read:
            self._decisions_changed(read_decisions(self.root, self.identities))
        self._read = table, file

    def overview(self) -> dict[str, Any]:
        """Who is in the dataset, how faces ended and what was said, by number."""
        table = self._faces
        counts = Counter(zip(*(table[name].to_pylist() for name in ("identity", "status", "error")), strict=True))
        ended = [
            {"identity": who, "state": state, "reason": reason or "", "faces": count, "means": _meaning(reason)}
            for (who, state, reason), count in sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))
        ]
        said = Counter(one.verdict.value for one in self._said.values())
        return {
            "identities": self.identities,
            "faces": len(table),
            "ended": ended,
            "said": said,
            "decisions": len(self.decisions),
            "gone": len(self.decisions) - len(set(self._said.values())),
            "waiting": self._is_waiting(),
            "orders": [*ORDERS],
        }

    def select(self, wanted: Wanted, order: str = "table") -> pa.Table:
        """The rows of faces that are wanted, sorted. Raises FacemillError for an order that there is not."""
        if order not in ORDERS:
            raise FacemillError(f"faces are sorted by {', '.join(ORDERS)}, not by {order[:40]!r}")
        table = self._faces
        for column, value in (
            ("identity", wanted.identity),
            ("status", wanted.state),
            ("error", wanted.reason),
            ("cluster", wanted.cluster),
            ("stands_for", wanted.copies),
        ):
            if value:
                table = table.filter(pc.equal(table[column], value))
        if wanted.said:
            ids = [face_id for face_id, one in self._said.items() if wanted.said in ("any", "none", one.verdict.value)]
            among = pc.is_in(table["face_id"], pa.array(ids, pa.string()))
            table = table.filter(pc.invert(among) if wanted.said == "none" else among)
        return table.sort_by([ORDERS[order], ("face_id", "ascending")]) if ORDERS[order] else table

    def page(self, wanted: Wanted, order: str, offset: int, limit: int) -> dict[str, Any]:
        """Some of the wanted faces as plain values, and how many there are."""
        chosen = self.select(wanted, order)
        rows = chosen.slice(offset, limit).to_pylist()
        sizes = {name: _counts(self._faces[name]) for name in ("cluster", "stands_for")}
        faces = [
            {name: value for name, value in row.items() if name not in ("box", "part")}
            | {
                "place": place_of(row["box"]),
                "cluster_faces": sizes["cluster"].get(row["cluster"], 1),
                "copies": sizes["stands_for"].get(row["stands_for"], 1),
                "said": _plain(self._said.get(row["face_id"])),
            }
            for row in rows
        ]
        return {"total": len(chosen), "faces": faces}

    def crop(self, face_id: str) -> bytes:
        """The JPEG of a face's crop, as the table has it.

        Raises:
            FacemillError: there is no such face any more.
        """
        found = self._faces.filter(pc.equal(self._faces["face_id"], face_id))
        crop = self._crops(found["part"][0].as_py()).get(face_id) if len(found) else None
        if crop is None:
            raise FacemillError(f"no face {face_id[:80]!r} in {Data.DATASET}: a refresh may have taken it away")
        return crop

    def decide(self, face_ids: Sequence[str], verdict: Verdict | None, identity: str = "", why: str = "") -> int:
        """Writes down what a person says of faces; None takes back what was said. Gives how many faces it is about.

        Args:
            face_ids: as the table has them.
            verdict: keep or drop.
            identity: whose they are, of kept ones; empty for the one that each counts for now.
            why: in words; may be empty.

        Raises:
            FacemillError: an unknown face or identity, decisions.csv is broken, or what was said was said of a picture
                with several faces.
        """
        if identity and identity not in self.identities:
            raise FacemillError(f"{identity[:80]!r} is none of {', '.join(self.identities)}")
        lock = self.root / WORK_FOLDER / "decisions.lock"
        with locked(lock, f"{DECISIONS_FILE} is being written", "try again in a moment", wait_s=_WRITING_S):
            self.refresh()
            rows: list[DatasetRow] = self._faces.filter(
                pc.is_in(self._faces["face_id"], pa.array([*face_ids], pa.string()))
            ).to_pylist()
            if len(rows) < len(set(face_ids)):
                raise FacemillError("some of these faces are not in the dataset any more: load the page again")
            replaced = {self._replaced(row, verdict) for row in rows}
            kept = [one for one in self.decisions if one not in replaced]
            fresh = [] if verdict is None else [self._decision(row, verdict, identity, why) for row in rows]
            self.write([*kept, *dict.fromkeys(fresh)])
        return len(rows)

    def write(self, decisions: Sequence[Decision]) -> None:
        """Writes the file of decisions and takes them over."""
        write_decisions(self.root / DECISIONS_FILE, decisions)
        self.refresh()

    def _decision(self, row: DatasetRow, verdict: Verdict, identity: str, why: str) -> Decision:
        who = (identity or row["identity"]) if verdict is Verdict.KEEP else ""
        today = date.today().isoformat()
        return Decision(row["sample_id"], place_of(row["box"]), verdict, who, self.by, today, why)

    def _replaced(self, row: DatasetRow, verdict: Verdict | None) -> Decision | None:
        """What was said of a face and does not count any longer."""
        old = self._said.get(row["face_id"])
        if old is None or old.place is not None:
            return old
        others = [face_id for face_id, one in self._said.items() if one is old and face_id != row["face_id"]]
        if others and verdict is None:
            raise FacemillError(
                f"line {old.line} of {DECISIONS_FILE} is about all {len(others) + 1} faces of this picture: take it "
                "out there, or say of each face what holds for it"
            )
        return None if others else old

    def _load(self) -> None:
        self._crops.cache_clear()
        self._parts, loaded = tables.parts(self._folder), []
        for number, part in enumerate(self._parts):
            table = tables.read_part(part, DATASET, _COLUMNS)
            table = table.filter(pc.and_(table["box"].is_valid(), pc.not_equal(table["status"], State.FAILED)))
            loaded.append(table.append_column("part", pa.array([number] * len(table), pa.int32())))
        if not loaded:
            raise FacemillError(f"{Data.DATASET} has no parts: run `dvc repro curate` first")
        faces = pa.concat_tables(loaded)
        for name in _WORDS:
            at = faces.column_names.index(name)
            faces = faces.set_column(at, name, faces[name].dictionary_encode())
        copies = pc.is_in(faces["error"].cast(pa.string()), pa.array(_COPIES, pa.string()))
        stands_for = pc.if_else(copies, pc.utf8_slice_codeunits(faces["detail"], len("of ")), faces["face_id"])
        self._faces = faces.append_column("stands_for", stands_for).combine_chunks()

    def _decisions_changed(self, decisions: list[Decision]) -> None:
        ids = pa.array(sorted({one.sample_id for one in decisions}), pa.string())
        of_picture: dict[str, list[DatasetRow]] = {}
        for row in self._faces.filter(pc.is_in(self._faces["sample_id"], ids)).to_pylist():
            of_picture.setdefault(row["sample_id"], []).append(row)
        said: dict[str, Decision] = {}
        for one in sorted(decisions, key=lambda each: each.place is None):  # of a face before of a picture
            for row in rows_meant(one, of_picture.get(one.sample_id, [])):
                said.setdefault(row["face_id"], one)
        self.decisions, self._said = decisions, said

    def _is_waiting(self) -> bool:
        """Whether something was said that the dataset does not show yet."""
        path = self.root / Data.DECISIONS
        try:
            return bool(read_json(path) != as_content(self.decisions))
        except FacemillError:
            return bool(self.decisions)

    def _read_crops(self, part: int) -> dict[str, bytes]:
        rows = tables.part_rows(self._parts[part], DATASET, ["face_id", "crop"])
        return {row["face_id"]: row["crop"]["bytes"] for row in rows if row["crop"]}


def project_faces(root: Path, by: str) -> FaceList:
    """The faces of a project, looked through by somebody. Raises FacemillError as `FaceList`, or for params.yaml."""
    return FaceList(root, [*load_params(root).identities], by)


def take(faces: FaceList, decisions: Sequence[Decision]) -> int:
    """Takes what a person has filled in elsewhere into decisions.csv; what was said of the same place is replaced."""
    lock = faces.root / WORK_FOLDER / "decisions.lock"
    with locked(lock, f"{DECISIONS_FILE} is being written", "try again in a moment", wait_s=_WRITING_S):
        faces.refresh()
        today = date.today().isoformat()
        new = {one.about: replace(one, by=one.by or faces.by, date=one.date or today) for one in decisions}
        faces.write([*(one for one in faces.decisions if one.about not in new), *new.values()])
    return len(new)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in column.value_counts().to_pylist()}


def _meaning(reason: str | None) -> str:
    return Reason(reason).sentence if reason else "in the dataset"


def _plain(one: Decision | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "verdict": one.verdict.value,
        "identity": one.identity,
        "by": one.by,
        "date": one.date,
        "why": one.why,
        "of_picture": one.place is None,
    }
