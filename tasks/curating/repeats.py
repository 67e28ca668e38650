"""Which of an identity's good faces show what a better one shows, and which are more than are wanted.

What one identity's faces gave is known by the content of the parts that they lie in and by the verdicts on them: a
refresh that brings nothing new compares none of them again, and a person's word on a face only those of its identity.
While they are compared they lie in a file, and a few thousand at a time in memory.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.align import transform
from facemill.coverage import bins_of, spread_choice
from facemill.embeddings import DIMENSIONS
from facemill.face_looks import LOOK_BYTES, FaceLooks, Rows, repeats
from facemill.reasons import Reason, State
from facemill.schema import FACES, Bool, String, Strings, TableSchema
from tasks.curating.judging import JUDGED
from tasks.work.cluster import InlinePool
from tasks.work.results import Made, Part, Shard, Store, WorkItem, content_key, make_parts
from tasks.work.scratch import scratch_file

_LOOKED_AT = ["face_id", "look", "landmarks", "affine", "yaw", "pitch", "embedding", "sharpness", "face_px"]
_JUDGED = ["identity", "status", "kept", "reference", "cluster", "licence_rank", "video"]
_SAID = ["face_id", *_JUDGED[2:]]
_RANK: list[tuple[str, Literal["ascending", "descending"]]] = [
    ("kept", "descending"),
    ("reference", "descending"),
    ("licence_rank", "ascending"),
    ("sharpness", "descending"),
    ("face_px", "descending"),
    ("face_id", "ascending"),
]
"""What makes one face better than another, the most important first: sorted so, the best face lies first."""
_LOOK = np.dtype(
    [
        ("look", "u1", (LOOK_BYTES,)),
        ("points", "f4", (68, 2)),
        ("angles_deg", "f4", (2,)),
        ("embedding", "f4", (DIMENSIONS,)),
        ("video", "i8"),
    ]
)
"""What is compared of a face, as it lies in the file: the fields are those of `facemill.face_looks.FaceLooks`."""
_TAKEN_AT_ONCE = 2048


class RepeatRow(TypedDict, total=False):
    """A good face that shows what a better one shows, or that is one too many."""

    face_id: String
    error: String  # the reason's code: near_duplicate, same_look or over_budget
    detail: String  # which one
    stays: Bool  # all the same, since a person has kept it
    clusters: Strings  # of both


REPEATS = TableSchema("repeated_faces", 3, RepeatRow)


@dataclass(frozen=True)
class Repeats:
    """What repeats better faces.

    Attributes:
        fallen: reason and detail of each face that falls, by its id.
        twins: pairs of clusters that hold the same face twice, since a person has kept both.
    """

    fallen: Mapping[str, tuple[Reason, str]]
    twins: Sequence[tuple[str, str]] = ()


def find_repeats(
    store: Store,
    parts: Sequence[Path],
    content: Mapping[Path, str],
    judged: Mapping[str, Path],
    identities: Collection[str],
    same_look: float,
    budget: int | None,
) -> tuple[Made, Repeats]:
    """The good faces that show what a better one of their identity shows, and those that are more than are wanted.

    Better is one that a person has kept, then a reference, then the freer licence, the sharper face, the larger.

    Args:
        store: of `REPEATS`; `same_look` and `budget` are in its base.
        parts: of `faces`.
        content: of each part, its hash.
        judged: the verdicts on each part, by its name.
        identities: whose faces are looked at, one after another; of each face some 200 bytes are in memory.
        same_look: see `facemill.face_looks.repeats`.
        budget: how many of an identity are wanted at most; None for all.
    """
    holding: dict[str, list[tuple[Path, str]]] = {identity: [] for identity in identities}
    for part in parts:
        for identity, verdicts in _good_verdicts(judged[part.stem]).items():
            holding.get(identity, []).append((part, content_key(content[part], verdicts)))
    plan = []
    for identity, own in holding.items():
        key = content_key(identity, [key for _, key in own])
        value = identity, [(str(part), str(judged[part.stem])) for part, _ in own]
        plan.append(Part(identity, (WorkItem(key, value),)))
    made = make_parts(store, plan, repeats_shard, None, InlinePool(), settings=(same_look, budget), rows_per_shard=1)
    rows = [row for path in made.paths.values() for row in tables.part_rows(path, REPEATS)]
    fallen = {row["face_id"]: (Reason(row["error"]), row["detail"]) for row in rows if not row["stays"]}
    return made, Repeats(fallen, [(row["clusters"][0], row["clusters"][1]) for row in rows if row["stays"]])


def _good_verdicts(judged: Path) -> dict[str, list[list[Any]]]:
    """What the verdicts on a part say of its good faces, by identity: all that is asked of them below."""
    table = tables.read_part(judged, JUDGED, ["face_id", *_JUDGED])
    good = table.filter(pc.equal(table["status"], State.OK))
    found: dict[str, list[list[Any]]] = {}
    for identity, *said in zip(good["identity"].to_pylist(), *(good[name].to_pylist() for name in _SAID), strict=True):
        found.setdefault(identity, []).append(said)
    return found


def repeats_shard(shard: Shard) -> list[list[RepeatRow]]:
    """An item is (identity, pairs of a part of `faces` and the verdicts on it); settings are (same_look, budget)."""
    return [_repeats_of(identity, parts, *shard.settings) for identity, parts in shard.items]


def _repeats_of(
    identity: str, parts: Sequence[tuple[str, str]], same_look: float, budget: int | None
) -> list[RepeatRow]:
    if not parts:
        return []
    with _stored(identity, parts) as (faces, looks):
        numbers, kept = np.arange(len(looks)), int(pc.sum(faces["kept"]).as_py() or 0)
        stands = repeats(looks, same_look, pinned=kept)
        fallen = [*_fallen(faces, looks, stands, kept)]
        left = np.flatnonzero((stands == numbers) | (numbers < kept))
        if budget is not None and len(left) > budget:
            ids = faces["face_id"].take(left[~_within(budget, left, looks, kept)]).to_pylist()
            fallen += [_too_many(face_id, budget) for face_id in ids]
    return fallen


def _fallen(faces: pa.Table, looks: LooksInFile, stands: Rows, kept: int) -> Iterator[RepeatRow]:
    at = np.flatnonzero(stands != np.arange(len(stands)))
    video, other_video = looks.videos(at), looks.videos(stands[at])
    both = (faces.select(["face_id", "cluster"]).take(rows).to_pylist() for rows in (at, stands[at]))
    one_video = (video >= 0) & (video == other_video)
    for number, own_video, face, other in zip(at.tolist(), one_video.tolist(), *both, strict=True):
        yield {
            "face_id": face["face_id"],
            "error": Reason.SAME_LOOK if own_video else Reason.NEAR_DUPLICATE,
            "detail": f"of {other['face_id']}",
            "stays": number < kept,
            "clusters": [face["cluster"], other["cluster"]] if number < kept else [],
        }


def _within(budget: int, left: Rows, looks: LooksInFile, kept: int) -> npt.NDArray[np.bool_]:
    """(L,) which of the faces that repeat nothing are taken; those that a person has kept in any case."""
    chosen = left < kept
    bins = [_bins(looks.take(rows)) for rows in _blocks(left[~chosen])]
    together = {kind: np.concatenate([own[kind] for own in bins]) for kind in bins[0]} if bins else {}
    if together:
        chosen[~chosen] = spread_choice(together, max(0, budget - int(chosen.sum())))
    return chosen


def _bins(looks: FaceLooks) -> dict[str, Rows]:
    yaw_deg, pitch_deg = looks.angles_deg.T
    return bins_of(looks.points, yaw_deg, pitch_deg, looks.look)


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[at : at + _TAKEN_AT_ONCE] for at in range(0, len(rows), _TAKEN_AT_ONCE))


def _too_many(face_id: str, budget: int) -> RepeatRow:
    detail = f"{budget} of its identity are wanted"
    return {"face_id": face_id, "error": Reason.OVER_BUDGET, "detail": detail, "stays": False, "clusters": []}


@dataclass(frozen=True)
class LooksInFile:
    """`facemill.face_looks.StoredLooks` in a file of `_LOOK` records.

    Attributes:
        descriptor: of the file, open for reading.
        order: (N,) the numbers of the records, the best face first.
    """

    descriptor: int
    order: Rows

    def __len__(self) -> int:
        return len(self.order)

    def take(self, rows: Rows, /) -> FaceLooks:
        """Some of them, by their numbers."""
        records = self._records(rows)
        return FaceLooks(**{name: np.ascontiguousarray(records[name]) for name in _LOOK.names or ()})

    def videos(self, rows: Rows) -> Rows:
        """(M,) of some of them, as `FaceLooks.video`."""
        return np.concatenate([np.zeros(0, np.int64), *(self._records(some)["video"] for some in _blocks(rows))])

    def _records(self, rows: Rows) -> npt.NDArray[np.void]:
        # Read and not mapped: pages of a map count as memory of the process as long as the system likes.
        records = np.empty(len(rows), _LOOK)
        size, content = _LOOK.itemsize, records.view(np.uint8).data
        for number, record in enumerate(self.order[rows].tolist()):
            os.preadv(self.descriptor, [content[number * size : (number + 1) * size]], record * size)
        return records


@contextmanager
def _stored(identity: str, parts: Sequence[tuple[str, str]]) -> Iterator[tuple[pa.Table, LooksInFile]]:
    """An identity's good faces, the best first: the columns that rank them and their clusters, and their looks.

    The file lies where results do.
    """
    videos: dict[str, int] = {}
    ranks = []
    with scratch_file(Path(parts[0][1]).parent) as file:
        for part, judged in parts:
            faces, verdicts = _good_faces(identity, Path(part), Path(judged))
            file.write(_records(faces, verdicts, videos).tobytes())
            columns = ["cluster", *(name for name, _ in _RANK)]
            ranks.append(pa.table({name: (faces if name in _LOOKED_AT else verdicts)[name] for name in columns}))
        file.flush()
        rank = pa.concat_tables(ranks)
        order = pc.sort_indices(rank, sort_keys=_RANK)
        yield rank.take(order), LooksInFile(file.fileno(), order.to_numpy().astype(np.int64))


def _good_faces(identity: str, part: Path, judged: Path) -> tuple[pa.Table, pa.Table]:
    """The good faces of a part of `faces`, and the verdicts on them."""
    verdicts = tables.read_part(judged, JUDGED, _JUDGED)
    good = pc.and_(pc.equal(verdicts["identity"], identity), pc.equal(verdicts["status"], State.OK))
    return tables.read_part(part, FACES, _LOOKED_AT).filter(good), verdicts.filter(good)


def _records(faces: pa.Table, verdicts: pa.Table, videos: dict[str, int]) -> npt.NDArray[np.void]:
    """(N,) of `_LOOK`, the landmarks as numbers of the crop; a video that is not known gets the next number."""
    records = np.empty(len(faces), _LOOK)
    points, affines = tables.matrix(faces, "landmarks", (68, 2)), tables.matrix(faces, "affine", (2, 3))
    records["look"] = np.frombuffer(b"".join(faces["look"].to_pylist()), np.uint8).reshape(-1, LOOK_BYTES)
    records["points"] = [transform(*one) for one in zip(points, affines, strict=True)]
    records["angles_deg"] = np.stack([faces[angle].to_numpy() for angle in ("yaw", "pitch")], axis=1)
    records["embedding"] = tables.matrix(faces, "embedding", (DIMENSIONS,))
    records["video"] = [
        -1 if name is None else videos.setdefault(name, len(videos)) for name in verdicts["video"].to_pylist()
    ]
    return records
