"""Stage `curate`: table `faces` -> table `dataset`, the same rows with a verdict and, where accepted, a split.

An identity is defined by its reference pictures: one face of each, of those that agree with one another
(`facemill.references`). A face is accepted when its embedding lies near enough to them, it is the nearest such face of
its picture, and it is large, sharp and frontal enough. Every other row keeps one reason: those of `extract`,
doubtful_reference, other_identity, second_face, face_too_small, blurred, extreme_pose, near_duplicate, same_look, in
this order. The last two are for faces that show what a better one shows already (`facemill.face_looks`): copies of
whatever picture, mirrored too, and within a video the same pose, expression and light; over_budget is what is left
where fewer are wanted. Train and validation are split
by picture with its copies and by shot, so that no face has its twin on the other side. What a person has said of faces
in decisions.csv (`tasks.curating.decisions`) stands above all of these.

A part of `faces` is judged by itself once the references are known; only repeats and the split ask about all of them:
in memory are some 200 bytes of each good face of one identity at a time, and a number for each cluster. Faces are
compared again only where a part with good ones of their identity has changed, and a part is written anew only where a
verdict in it has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow.compute as pc

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from facemill.picture_licences import attribution, licence_of, work_of
from facemill.reasons import Reason, State
from facemill.schema import DATASET, FACES, Bool, DatasetRow, FaceRow, Float32, StateColumns, String, TableSchema
from facemill.split import Split
from tasks.catalogue import Data
from tasks.curating.decided import Decided, decided_faces
from tasks.curating.decisions import DECISIONS_FILE, as_content, read_decisions
from tasks.curating.judging import JUDGED, JudgedRow, JudgeSettings, judge_parts
from tasks.curating.references import find_references, listed
from tasks.curating.repeats import REPEATS, find_repeats
from tasks.params import Params
from tasks.work.cluster import InlinePool
from tasks.work.deciders import read_deciders
from tasks.work.file_hashes import hash_files
from tasks.work.results import Made, Part, Shard, Store, WorkItem, content_key, drop_unreached, make_parts, open_store
from tasks.work.scratch import scratch_folder
from tasks.work.terminal import say
from tasks.work.totals import Totals, count_rows, finish, publish_parts


class FinalRow(StateColumns, total=False):
    """What a row of `dataset` has beside those of a face: the verdict, its side, and whose its picture is."""

    identity: String  # another one than in `faces` where a person has said so
    cluster: String
    reference: Bool
    distance: Float32
    split: String
    page: String
    licence: String
    author: String
    rights: String


FINAL = TableSchema("split_faces", 3, FinalRow)


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Curates into `root/data/dataset`.

    Raises:
        FacemillError: `faces` is missing, or decisions.csv is broken; an identity has no usable reference, or only a
            person can say which; an identity ends without a single accepted face (the table is there then, to see why).
    """
    start = time.monotonic()
    output, identities = root / Data.DATASET, sorted(params.identities)
    parts = tables.checked_parts(root / Data.FACES, FACES)
    decided = _read_decided(root, parts, identities)
    references = find_references(root, parts, identities, decided.whose)

    code = read_deciders(root, "curate", params).key
    limits = params.curate.model_dump(mode="json", exclude={"val_share", "same_look", "budget"})
    judging = open_store(root, "curate-judge", JUDGED, code=code, limits=limits, references=references.key)
    choice = params.curate.same_look, params.curate.budget
    repeating = open_store(root, "curate-repeats", REPEATS, code=code, same_look=choice[0], budget=choice[1])
    writing = open_store(root, "curate", DATASET, code=code)  # what the parameters decide is in the verdicts
    content = hash_files(root, "faces", parts, ours=True)
    judged = judge_parts(judging, root, parts, content, JudgeSettings(references, params.curate, decided))
    found, repeats = find_repeats(repeating, parts, content, judged.paths, identities, *choice)
    accepted = _accepted(judged.paths.values(), repeats.fallen)
    split = Split.of(accepted, params.curate.val_share, identities, repeats.twins)
    made = judged + found + _dataset_parts(writing, root, parts, content, judged.paths, repeats.fallen, split)
    publish_parts(made.paths, output)
    kept_bytes = sum(map(drop_unreached, (judging, repeating, writing)))

    rows, counts = sum(map(tables.count_part, parts)), count_rows(output, DATASET)
    totals = Totals("curate", rows, counts, time.monotonic() - start, made.seconds, made.worked, kept_bytes=kept_bytes)
    finish(root, totals)
    _require_faces(output, identities)
    return totals


def _read_decided(root: Path, parts: Sequence[Path], identities: Collection[str]) -> Decided:
    """The faces that a person has decided about; says how many. What is read is what DVC then takes for our input."""
    decisions = read_decisions(root, identities)
    content, path = as_content(decisions), root / Data.DECISIONS
    known = None
    with suppress(FacemillError):  # there is none yet, or it was cut
        known = read_json(path)
    if known != content:
        write_json(path, content)
    decided = decided_faces(root, parts, decisions)
    if decisions:
        gone = f" {decided.gone} are about pictures or faces that are not there." if decided.gone else ""
        say(f"curate: decisions in {DECISIONS_FILE}: {len(decisions)}, about {len(decided.whose)} faces.{gone}")
    return decided


def dataset_shard(shard: Shard) -> list[list[DatasetRow]]:
    """Parts of `faces` with their verdicts. An item is (part of `faces`, table of verdicts)."""
    return [
        [
            _dataset_row(row, verdict)
            for row, verdict in zip(
                tables.part_rows(Path(faces), FACES), tables.part_rows(Path(verdicts), FINAL), strict=True
            )
        ]
        for faces, verdicts in shard.items
    ]


def _dataset_row(row: FaceRow, verdict: FinalRow) -> DatasetRow:
    licence = licence_of(verdict["licence"])
    return {
        **row,
        **verdict,
        "licence_id": licence.name,
        "licence_version": licence.version,
        "licence_address": licence.address,
        "attribution": attribution(licence, verdict["author"], work_of(verdict["page"], row["url"])),
    }


def _dataset_parts(
    store: Store,
    root: Path,
    parts: Sequence[Path],
    content: Mapping[Path, str],
    judged: Mapping[str, Path],
    repeats: Mapping[str, tuple[Reason, str]],
    split: Split,
) -> Made:
    """The parts of `dataset`, each from the part of `faces` of its name; those with the same verdicts are known."""
    with scratch_folder(root, "curate-verdicts") as scratch:
        plan = []
        for part in parts:
            verdicts = [_with_split(row, repeats, split) for row in tables.part_rows(judged[part.stem], JUDGED)]
            item = WorkItem(content_key(content[part], verdicts), (str(part), str(scratch / part.name)))
            if not store.holds([item.key]):
                tables.write_part(scratch / part.name, tables.from_rows(verdicts, FINAL), durable=False)
            plan.append(Part(part.stem, (item,)))
        return make_parts(store, plan, dataset_shard, None, InlinePool(), rows_per_shard=1)


def _with_split(verdict: JudgedRow, repeats: Mapping[str, tuple[Reason, str]], split: Split) -> FinalRow:
    final: FinalRow = {
        "identity": verdict["identity"],
        "cluster": split.cluster_of(verdict["cluster"]),
        "reference": verdict["reference"],
        "distance": verdict["distance"],
        "status": verdict["status"],
        "error": verdict["error"],
        "detail": verdict["detail"],
        "page": verdict["page"],
        "licence": verdict["licence"],
        "author": verdict["author"],
        "rights": verdict["rights"],
    }
    if verdict["face_id"] in repeats:
        reason, detail = repeats[verdict["face_id"]]
        final |= {"status": reason.state, "error": reason, "detail": detail}
    elif verdict["status"] == State.OK:
        final["split"] = "val" if split.is_val(verdict["cluster"]) else "train"
    return final


def _accepted(judged: Iterable[Path], repeats: Collection[str]) -> Iterator[tuple[str, str]]:
    for part in judged:
        table = tables.read_part(part, JUDGED, ["face_id", "identity", "cluster", "status"])
        accepted = table.filter(pc.equal(table["status"], State.OK))
        columns = (accepted[name].to_pylist() for name in ("face_id", "identity", "cluster"))
        yield from (
            (identity, name) for face_id, identity, name in zip(*columns, strict=True) if face_id not in repeats
        )


def _require_faces(output: Path, identities: Iterable[str]) -> None:
    found: dict[str, Counter[str]] = {identity: Counter() for identity in identities}
    samples: dict[str, Counter[str]] = {identity: Counter() for identity in identities}
    for part in tables.iterate_parts(output, DATASET, ["identity", "role", "status", "error", "face_index"]):
        for row in tables.to_rows(part, DATASET):
            if row["identity"] in found:
                found[row["identity"]][str(row["error"] or row["status"])] += 1
                if row["role"] != "reference" and row["face_index"] is not None:
                    samples[row["identity"]][str(row["error"] or row["status"])] += 1
    for identity, reasons in samples.items():
        if set(reasons) == {Reason.OTHER_IDENTITY}:
            say(
                f"curate: identity {identity}: none of the {reasons.total()} collected faces looks like its "
                "references. If the report shows somebody else among these, or no face at all, give better ones"
            )
    for identity, reasons in found.items():
        if not reasons[State.OK]:
            raise FacemillError(
                f"identity {identity}: not one usable face in {reasons.total()} rows ({listed(reasons)}). "
                "Give it better pictures, or widen the limits under `curate` in params.yaml"
            )
