"""The report's section on the dataset: the way from pictures to training faces, and who fell by the way.

Only narrow columns are read whole; pictures are fetched for the few rows that are shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from facemill import schema, tables
from facemill.coverage import KINDS, Coverage
from facemill.measures import spread
from facemill.reasons import Reason, State
from facemill.references import choose
from facemill.schema import DatasetRow, FaceRow, RawRow, Row, TableSchema, UniqueRow
from facemill.train.dataset import dataset_sha256
from tasks.catalogue import Data
from tasks.curating.coverage import lacks, read_coverage
from tasks.curating.decided import decided_faces
from tasks.curating.decisions import read_decisions
from tasks.curating.references import References, reference_faces
from tasks.params import Params
from tasks.report_page.charts import histogram
from tasks.report_page.thumbnails import Album, pictures_of

FACE_PX, PICTURE_PX = 104, 132
MAX_PICTURES = 8
"""Of rejected pictures by reason."""
MAX_FILES = 40
MAX_IDENTITIES = 12
"""With a contact sheet of their own; the funnel and the counts hold all."""
_FACE_COLUMNS = ["face_id", "identity", "role", "sample_id", "sharpness", "yaw", "distance", "face_px", "split"]


@dataclass(frozen=True)
class Thumbnail:
    """A picture with what is said below it; `uri` is None where it could not be shown."""

    uri: str | None
    caption: str
    title: str = ""


@dataclass(frozen=True)
class Sheet:
    """Thumbnails under a heading; `total` counts also those that are not shown."""

    heading: str
    note: str
    total: int
    thumbnails: list[Thumbnail]


@dataclass(frozen=True)
class Funnel:
    """Of one identity: how many are left after each step."""

    identity: str
    steps: list[tuple[str, int]]
    train: int
    val: int

    @property
    def most(self) -> int:
        return max([count for _, count in self.steps] + [1])

    def counts(self) -> dict[str, int]:
        return {name.replace(" ", "_"): count for name, count in self.steps}


@dataclass(frozen=True)
class Readiness:
    """What an identity's accepted faces show, for the page."""

    identity: str
    coverage: Coverage
    sentence: str

    @property
    def pose(self) -> list[list[tuple[int, float, str]]]:
        """By pitch, from up to down, and yaw: the number of faces, its share of the most, and the bin in words."""
        pose, most = self.coverage.pose, max(int(self.coverage.pose.max()), 1)
        return [
            [
                (int(count), float(count) / most, f"{KINDS['pitch'][row]}, {KINDS['yaw'][column]}")
                for column, count in enumerate(pose[row])
            ]
            for row in reversed(range(len(pose)))
        ]


@dataclass(frozen=True)
class DatasetSection:
    fingerprint: str | None
    funnels: list[Funnel]
    references: list[Sheet]
    kept: list[Sheet]
    rejected: list[Sheet]
    pictures: list[Sheet]
    files: list[dict[str, str]]
    files_total: int
    histograms: list[tuple[str, str, Markup]]
    readiness: list[Readiness]
    lacks: list[str]

    def metrics(self) -> dict[str, Any]:
        """Accepted faces by split and identity, as plain values."""
        return {
            "fingerprint": self.fingerprint,
            "accepted": sum(funnel.train + funnel.val for funnel in self.funnels),
            "train": sum(funnel.train for funnel in self.funnels),
            "val": sum(funnel.val for funnel in self.funnels),
            "identities": {
                funnel.identity: {**funnel.counts(), "train": funnel.train, "val": funnel.val}
                for funnel in self.funnels
            },
            "readiness": {one.identity: one.coverage.plain() for one in self.readiness},
        }


@dataclass(frozen=True)
class Rows:
    """The narrow columns of the four tables of a refresh; empty where a stage has not run yet."""

    raw: list[RawRow]
    unique: list[UniqueRow]
    faces: list[FaceRow]
    dataset: list[DatasetRow]


def gather_dataset(root: Path, params: Params, album: Album) -> DatasetSection | None:
    """Reads the tables of the refresh; None where not even `raw` is there.

    Raises:
        FacemillError: a table of another version.
    """
    rows = Rows(
        raw=_rows(root / Data.RAW, schema.RAW, ["sample_id", "identity", "role", "source", "url"]),
        unique=_rows(
            root / Data.UNIQUE, schema.UNIQUE, ["sample_id", "identity", "role", "url", "keep", "duplicate_of"]
        ),
        faces=_rows(root / Data.FACES, schema.FACES, ["sample_id", "identity", "role", "url"]),
        dataset=_rows(root / Data.DATASET, schema.DATASET, _FACE_COLUMNS),
    )
    if not (rows.raw or rows.unique or rows.faces or rows.dataset):
        return None
    collected = [row for row in rows.dataset if row["role"] == "sample"]
    files = [_file(row) for row in rows.raw if row["status"] == State.FAILED]
    coverage = read_coverage(root, params.identities) if rows.dataset else {}
    names = {row["identity"] for row in rows.raw} | {row["identity"] for row in rows.dataset}
    return DatasetSection(
        fingerprint=dataset_sha256(root / Data.DATASET) if rows.dataset else None,
        funnels=[_funnel(name, rows) for name in sorted(names)],
        references=_reference_sheets(root, params, album),
        kept=_kept_sheets(root, collected, params, album),
        rejected=_rejected_sheets(root, collected, params, album),
        pictures=_picture_sheets(root, rows.unique, rows.faces, album),
        files=files[:MAX_FILES],
        files_total=len(files),
        histograms=_histograms(collected, params),
        readiness=[Readiness(name, one, one.sentence(name)) for name, one in coverage.items()],
        lacks=lacks(coverage, params.convert.becomes),
    )


def _rows(folder: Path, table: TableSchema[Row], columns: list[str]) -> list[Row]:
    if not folder.is_dir():
        return []
    return list(tables.iterate_rows(folder, table, [*columns, "status", "error", "detail"]))


def _funnel(identity: str, rows: Rows) -> Funnel:
    """Pictures of role `sample`, references left out: they define the person and were chosen by hand."""
    raw = [row for row in rows.raw if row["identity"] == identity and row["role"] == "sample"]
    unique = [row for row in rows.unique if row["identity"] == identity and row["role"] == "sample"]
    faces = [row for row in rows.faces if row["identity"] == identity and row["role"] == "sample"]
    dataset = [row for row in rows.dataset if row["identity"] == identity and row["role"] == "sample"]
    accepted = [row for row in dataset if row["status"] == State.OK]
    with_face = {row["sample_id"] for row in faces if row["status"] == State.OK}
    splits = Counter(row["split"] for row in accepted)
    steps = [
        ("collected", len(raw)),
        ("readable", sum(row["status"] == State.OK for row in raw)),
        ("unique", sum(bool(row["keep"]) for row in unique)),
        ("with a face", len(with_face)),
        ("faces", sum(row["status"] == State.OK for row in faces)),
        ("accepted", len(accepted)),
    ]
    return Funnel(identity, steps, splits["train"], splits["val"])


def _reference_sheets(root: Path, params: Params, album: Album) -> list[Sheet]:
    """A sheet an identity: the faces of its reference pictures, those first that are not used, with the reason.

    Judged here and not read from `dataset`, which is not there where a person has to say first who is meant.
    """
    if not (root / Data.FACES).is_dir() or not (root / Data.UNIQUE).is_dir():
        return []
    parts = tables.checked_parts(root / Data.FACES, schema.FACES)
    whose = decided_faces(root, parts, read_decisions(root, params.identities)).whose
    sheets = []
    for identity, faces in list(reference_faces(root, parts, sorted(params.identities), whose).items())[
        :MAX_IDENTITIES
    ]:
        verdict = choose(faces)
        away = References.of({identity: verdict}).own
        urls = {face.face_id: face.url for face in faces}
        captions = {name: f"{urls[name]} is left out: {detail}" for name, (_, detail) in verdict.refused.items()}
        captions |= {
            name: f"used, {far:.2f} from the others" if len(away) > 1 else "used" for name, far in away.items()
        }
        chosen = list(captions)[: params.report.faces_per_sheet]
        crops = pictures_of(root / Data.FACES, schema.FACES, "face_id", "crop", chosen)
        thumbnails = [
            Thumbnail(album.add_encoded(crops.get(name), FACE_PX), captions[name], urls[name]) for name in chosen
        ]
        if thumbnails:
            note = verdict.question or "the faces that say what this person looks like"
            sheets.append(Sheet(identity, note, len(captions), thumbnails))
    return sheets


def _kept_sheets(root: Path, rows: Sequence[DatasetRow], params: Params, album: Album) -> list[Sheet]:
    """A sheet an identity: faces spread evenly from the most to the least alike."""
    by_identity = defaultdict[str, list[DatasetRow]](list)
    for row in rows:
        if row["status"] == State.OK:
            by_identity[row["identity"]].append(row)
    sheets = []
    for identity in sorted(by_identity)[:MAX_IDENTITIES]:
        faces = sorted(by_identity[identity], key=lambda row: (row["distance"] or 0.0, row["face_id"]))
        chosen = spread(faces, params.report.faces_per_sheet)
        captions = [_number(row["distance"], "{:.2f}") for row in chosen]
        thumbnails = _face_thumbnails(root, chosen, captions, album)
        sheets.append(
            Sheet(identity, "from the most to the least alike; distance to the references", len(faces), thumbnails)
        )
    return sheets


def _rejected_sheets(root: Path, rows: Sequence[DatasetRow], params: Params, album: Album) -> list[Sheet]:
    by_reason = defaultdict[str, list[DatasetRow]](list)
    for row in rows:
        if row["error"] and row["face_id"]:
            by_reason[row["error"]].append(row)
    share = max(6, params.report.faces_per_sheet // max(1, len(by_reason)))
    sheets = []
    for reason in sorted(by_reason):
        faces = sorted(by_reason[reason], key=lambda row: str(row["face_id"]))
        chosen = spread(faces, share)
        thumbnails = _face_thumbnails(root, chosen, [_why(row) for row in chosen], album)
        if any(thumbnail.uri for thumbnail in thumbnails):
            sheets.append(Sheet(_code_words(reason), sentence(reason), len(faces), thumbnails))
    return sheets


def _picture_sheets(root: Path, pictures: Sequence[UniqueRow], faces: Sequence[FaceRow], album: Album) -> list[Sheet]:
    """Whole pictures that never became a face: near duplicates and pictures without one."""
    shown_reasons = (Reason.NEAR_DUPLICATE, Reason.NO_FACE)
    by_reason = defaultdict[str, dict[str, UniqueRow | FaceRow]](dict)
    rows: list[UniqueRow | FaceRow] = [*pictures, *faces]
    for row in rows:
        if row["error"] in shown_reasons:
            by_reason[row["error"]][row["sample_id"]] = row
    sheets = []
    for reason, unique in sorted(by_reason.items()):
        chosen = [unique[name] for name in spread(sorted(unique), MAX_PICTURES)]
        found = pictures_of(root / Data.RAW, schema.RAW, "sample_id", "image", {row["sample_id"] for row in chosen})
        thumbnails = [
            Thumbnail(uri, str(row["identity"]), str(row["url"] or ""))
            for row in chosen
            if (uri := album.add_encoded(found.get(row["sample_id"]), PICTURE_PX))
        ]
        if thumbnails:
            sheets.append(Sheet(_code_words(reason), sentence(reason), len(unique), thumbnails))
    return sheets


def _face_thumbnails(root: Path, rows: Sequence[DatasetRow], captions: Sequence[str], album: Album) -> list[Thumbnail]:
    wanted = {row["face_id"] for row in rows}
    crops = pictures_of(root / Data.DATASET, schema.DATASET, "face_id", "crop", wanted)
    if missing := wanted - crops.keys():  # rejected rows may have left their crop in `faces`
        crops |= pictures_of(root / Data.FACES, schema.FACES, "face_id", "crop", missing)
    return [
        Thumbnail(
            album.add_encoded(crops.get(row["face_id"]), FACE_PX), caption, f"{row['identity']} · {row['face_id']}"
        )
        for row, caption in zip(rows, captions, strict=True)
    ]


def _histograms(rows: Sequence[DatasetRow], params: Params) -> list[tuple[str, str, Markup]]:
    """(heading, what the dashed line is, chart) for accepted and rejected faces."""
    limits = params.curate
    ok = [row["status"] == State.OK for row in rows]
    plans: list[tuple[str, list[float], tuple[float, ...]]] = [
        ("Distance to the references", [row["distance"] for row in rows], (limits.identity_distance,)),
        ("Yaw, degrees", [row["yaw"] for row in rows], (-limits.max_yaw_deg, limits.max_yaw_deg)),
        ("Sharpness", [row["sharpness"] for row in rows], (limits.min_sharpness,)),
    ]
    drawn = []
    for heading, values, marks in plans:
        groups = {
            name: [value for value, good in zip(values, ok, strict=True) if good == wanted and value is not None]
            for name, wanted in (("accepted", True), ("rejected", False))
        }
        if any(groups.values()):
            limit = " and ".join(f"{mark:g}" for mark in marks).replace("-", "−")
            drawn.append((heading, f"limit {limit}", histogram(groups, label=heading, limits=marks)))
    return drawn


def sentence(reason: str | None) -> str:
    """What a reason code means; the code itself where it is none of ours."""
    try:
        return Reason(reason or "").sentence
    except ValueError:
        return reason or ""


def _file(row: RawRow) -> dict[str, str]:
    return {
        "name": str(row["url"] or row["sample_id"] or "?"),
        "identity": str(row["identity"] or ""),
        "reason": sentence(row["error"]),
        "detail": str(row["detail"] or ""),
    }


def _why(row: DatasetRow) -> str:
    """The number that decided, where there is one."""
    texts: dict[str, str] = {
        Reason.OTHER_IDENTITY: _number(row["distance"], "{:.2f}"),
        Reason.BLURRED: _number(row["sharpness"], "{:.0f}"),
        Reason.EXTREME_POSE: _number(row["yaw"], "{:.0f}°"),
        Reason.HIDDEN: (row["detail"] or "").partition(",")[0],
        Reason.FACE_TOO_SMALL: _number(row["face_px"], "{:.0f} px"),
    }
    return texts.get(row["error"] or "", "")


def _number(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value).replace("-", "−")


def _code_words(reason: str | None) -> str:
    return (reason or "unknown").replace("_", " ")
