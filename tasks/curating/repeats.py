"""Which of an identity's good faces show what a better one shows, and which are more than are wanted.

What one identity's faces gave is known by the content of the parts that they lie in: a refresh that brings nothing new
compares none of them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.align import transform
from facemill.coverage import bins_of, spread_choice
from facemill.embeddings import DIMENSIONS
from facemill.face_looks import LOOK_BYTES, FaceLooks, repeats
from facemill.reasons import Reason, State
from facemill.schema import FACES, Bool, String, Strings, TableSchema
from tasks.curating.judging import JUDGED
from tasks.work.cluster import InlinePool
from tasks.work.results import Made, Part, Shard, Store, WorkItem, content_key, make_parts

_LOOKED_AT = ["face_id", "look", "landmarks", "affine", "yaw", "pitch", "embedding", "sharpness", "face_px"]
_JUDGED = ["identity", "status", "kept", "reference", "cluster", "licence_rank", "video"]


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
        judged: the verdicts on each part, by its name; their names are hashes of what they hold.
        identities: whose faces are looked at; those of one at a time are in memory, with some 1.5 KB each.
        same_look: see `facemill.face_looks.repeats`.
        budget: how many of an identity are wanted at most; None for all.
    """
    holding: dict[str, list[Path]] = {identity: [] for identity in identities}
    for part in parts:
        verdicts = tables.read_part(judged[part.stem], JUDGED, ["identity", "status"])
        for identity in pc.unique(verdicts.filter(pc.equal(verdicts["status"], State.OK))["identity"]).to_pylist():
            holding.get(identity, []).append(part)
    plan = []
    for identity, own in holding.items():
        key = content_key(identity, [(content[part], judged[part.stem].stem) for part in own])
        value = identity, [(str(part), str(judged[part.stem])) for part in own]
        plan.append(Part(identity, (WorkItem(key, value),)))
    made = make_parts(store, plan, repeats_shard, None, InlinePool(), settings=(same_look, budget), rows_per_shard=1)
    rows = [row for path in made.paths.values() for row in tables.part_rows(path, REPEATS)]
    fallen = {row["face_id"]: (Reason(row["error"]), row["detail"]) for row in rows if not row["stays"]}
    return made, Repeats(fallen, [(row["clusters"][0], row["clusters"][1]) for row in rows if row["stays"]])


def repeats_shard(shard: Shard) -> list[list[RepeatRow]]:
    """An item is (identity, pairs of a part of `faces` and the verdicts on it); settings are (same_look, budget)."""
    return [_repeats_of(identity, parts, *shard.settings) for identity, parts in shard.items]


def _repeats_of(
    identity: str, parts: Sequence[tuple[str, str]], same_look: float, budget: int | None
) -> list[RepeatRow]:
    if not parts:
        return []
    ids, clusters, looks, kept = _best_first([*_good_faces(identity, parts)])
    fallen: list[RepeatRow] = []
    stands = repeats(looks, same_look, pinned=kept)
    for at in np.flatnonzero(stands != np.arange(len(ids))).tolist():
        other = int(stands[at])
        own_video = looks.video[at] >= 0 and looks.video[at] == looks.video[other]
        reason = Reason.SAME_LOOK if own_video else Reason.NEAR_DUPLICATE
        both = [clusters[at], clusters[other]] if at < kept else []
        row: RepeatRow = {"face_id": ids[at], "error": reason, "detail": f"of {ids[other]}"}
        fallen.append(row | {"stays": at < kept, "clusters": both})
    left = np.flatnonzero((stands == np.arange(len(ids))) | (np.arange(len(ids)) < kept))
    if budget is not None and len(left) > budget:
        fallen += [_too_many(ids[at], budget) for at in left[~_within(budget, left, looks, kept)].tolist()]
    return fallen


def _within(budget: int, left: npt.NDArray[np.int64], looks: FaceLooks, kept: int) -> npt.NDArray[np.bool_]:
    """(L,) which of the faces that repeat nothing are taken; those that a person has kept in any case."""
    chosen = left < kept
    others = left[~chosen]
    yaw, pitch = looks.angles_deg[others].T
    bins = bins_of(looks.points[others], yaw, pitch, looks.look[others])
    chosen[~chosen] = spread_choice(bins, max(0, budget - int(chosen.sum())))
    return chosen


def _too_many(face_id: str, budget: int) -> RepeatRow:
    detail = f"{budget} of its identity are wanted"
    return {"face_id": face_id, "error": Reason.OVER_BUDGET, "detail": detail, "stays": False, "clusters": []}


def _good_faces(identity: str, parts: Sequence[tuple[str, str]]) -> Iterator[pa.Table]:
    """Of each part the columns that decide, the landmarks as numbers of the crop."""
    for part, judged in parts:
        verdicts = tables.read_part(Path(judged), JUDGED, _JUDGED)
        good = pc.and_(pc.equal(verdicts["identity"], identity), pc.equal(verdicts["status"], State.OK))
        faces = tables.read_part(Path(part), FACES, _LOOKED_AT).filter(good)
        points, affines = tables.matrix(faces, "landmarks", (68, 2)), tables.matrix(faces, "affine", (2, 3))
        mapped = np.array([transform(*one) for one in zip(points, affines, strict=True)], np.float32)
        narrow = pa.FixedSizeListArray.from_arrays(pa.array(mapped.ravel()), 136)
        chosen = verdicts.filter(good).select(["kept", "reference", "cluster", "licence_rank", "video"])
        kept = faces.drop_columns(["landmarks", "affine"])
        yield pa.table({**_columns(kept), **_columns(chosen), "points": narrow})


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _best_first(parts: Sequence[pa.Table]) -> tuple[list[str], list[str], FaceLooks, int]:
    """The ids, the clusters and the looks of an identity's faces, the best first; so many a person has kept."""
    table = pa.concat_tables(parts)
    keys: list[tuple[str, Literal["ascending", "descending"]]] = [
        ("kept", "descending"),
        ("reference", "descending"),
        ("licence_rank", "ascending"),
        ("sharpness", "descending"),
        ("face_px", "descending"),
        ("face_id", "ascending"),
    ]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    look = np.frombuffer(b"".join(table["look"].to_pylist()), np.uint8)
    video = table["video"].combine_chunks().dictionary_encode().indices  # null for stills
    looks = FaceLooks(
        look=look.reshape(-1, LOOK_BYTES),
        points=tables.matrix(table, "points", (68, 2)),
        angles_deg=np.stack([table[angle].to_numpy() for angle in ("yaw", "pitch")], axis=1).astype(np.float32),
        embedding=tables.matrix(table, "embedding", (DIMENSIONS,)),
        video=pc.fill_null(video, -1).to_numpy().astype(np.int64),
    )
    kept = int(pc.sum(table["kept"]).as_py() or 0)
    return table["face_id"].to_pylist(), table["cluster"].to_pylist(), looks, kept
