"""`facemill forget`: a picture or a person leaves a project, with all that was made of it, and does not come back.

    asked ─► found in raw, with its copies ─► forgotten.yaml ─► collect … curate without it ─► search ─► what is left
                                                                                                         to a person

forgotten.yaml is written first: whatever happens after that, nothing of it is collected again. Then the stages run
once more over what is here, without asking the network, so that duplicates, references and the split are those of a
project that never saw the picture. Then every file of the project is searched for what it was known by: scratch that
still has any goes, a report is removed, and whatever else is left is named with what to do about it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facemill import tables
from facemill.embeddings import DIMENSIONS, identity_distance
from facemill.errors import FacemillError
from facemill.files import read_object
from facemill.reasons import State
from facemill.schema import CONVERSIONS, DATASET, FACES, RAW, TRACKS, UNIQUE, VIDEOS, FaceRow, RawRow
from facemill.train.dataset import dataset_sha256
from tasks.catalogue import Data
from tasks.curating.decisions import DECISIONS_FILE, read_decisions, write_decisions
from tasks.params import Params, load_params
from tasks.stages import run_stage
from tasks.work.forgotten import FORGOTTEN_FILE, Forgotten, What, add_forgotten, hash_of, read_forgotten
from tasks.work.results import PLAN_FILE, drop_all_but_present
from tasks.work.scratch import WORK_FOLDER
from tasks.work.terminal import say
from tasks.work.traces import Traces, holders, middle_of

_TABLES = {"collect": Data.RAW, "dedup": Data.UNIQUE, "extract": Data.FACES, "curate": Data.DATASET}
_REPORTS = (Data.REPORT, Data.REPORT_MEASURES, Data.REPORT_PLOTS, Data.REPORT_METRICS)
_MODELS = (Path(Data.MODEL), Path(Data.TRAIN), Path(Data.EXPORT), Path(WORK_FOLDER) / "train")


@dataclass(frozen=True)
class Asked:
    """What a person wants forgotten: SHA-256 of pictures, addresses (of pictures or of pages), authors, identities."""

    pictures: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()

    @property
    def words(self) -> list[tuple[What, str]]:
        """Each with what it is."""
        return [
            *((What.PICTURE, each) for each in self.pictures),
            *((What.ADDRESS, each) for each in self.addresses),
            *((What.AUTHOR, each) for each in self.authors),
            *((What.IDENTITY, each) for each in self.identities),
        ]

    @classmethod
    def listed_in(cls, path: Path) -> Asked:
        """From a file with a SHA-256 or an address a line; empty lines and those that begin with # are left out.

        Raises:
            FacemillError: it cannot be read.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise FacemillError(f"{path} is no list that can be read ({error})") from error
        told = [line for line in lines if line and not line.startswith("#")]
        pictures = [line for line in told if len(line) == 64 and set(line.lower()) <= set("0123456789abcdef")]
        return cls(tuple(pictures), tuple(line for line in told if line not in pictures))

    def __add__(self, other: Asked) -> Asked:
        """Both."""
        return Asked(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass
class _Found:
    """What the tables hold of it.

    Attributes:
        traces: by what it is known.
        rows: how many rows of `raw`, copies left out, and how many copies.
        trained_on: faces of the dataset among them.
        embeddings: of the identities' references, where an identity is to be forgotten.
    """

    traces: Traces = field(default_factory=Traces)
    rows: int = 0
    copies: int = 0
    trained_on: int = 0
    embeddings: list[list[float]] = field(default_factory=list)


def forget(
    root: Path, asked: Asked, *, models: bool = False, versions: bool = False, tell: Callable[[str], None] = say
) -> list[Path]:
    """Removes from a project all that it holds of some pictures or people, and keeps them from being collected again.

    Args:
        root: of the project.
        asked: whom or what.
        models: also remove the project's model, its training and its export.
        versions: also remove earlier tables that hold it from DVC's cache, and from its remote if that is a folder.
        tell: gets what was done and what is left to a person.

    Returns:
        The files that hold it still, named to the person with what to do.

    Raises:
        FacemillError: nothing is asked, an identity stands in params.yaml still, or a stage cannot run; forgotten.yaml
            keeps it out by then, and the same command goes on.
    """
    words = [(what, word) for what, word in asked.words if word.strip()]
    if not words:
        raise FacemillError("say what is to be forgotten: --sha, --url, --author, --identity or --list")
    params = load_params(root)
    if known := sorted(set(asked.identities) & set(params.identities)):
        raise FacemillError(
            f"identities.{known[0]} stands in params.yaml: take it out there and in convert.becomes first, so that "
            "nothing is made of it again"
        )
    hashes: dict[What, set[str]] = {}
    for what, word in words:
        hashes.setdefault(what, set()).add(hash_of(what, word))
    found = _find(root, Forgotten({what: frozenset(some) for what, some in hashes.items()}))
    uses = [*_uses(root, asked, found, params)]
    files = _source_files(root, params, found)

    traces = found.traces
    pictures = [(What.PICTURE, each) for each in sorted(traces.sample_ids)]
    new = add_forgotten(root, [*words, *pictures, *((What.ADDRESS, each) for each in sorted(traces.addresses))])
    _drop_decisions(root, params, asked.identities, traces.sample_ids)
    traces.sample_ids.update(read_forgotten(root).hashes.get(What.PICTURE, ()))  # of a command that was cut off, too
    tell(
        f"{_count(found.rows, 'picture')} and {_count(found.copies, 'copy', 'copies')} of them are in this project; "
        f"{FORGOTTEN_FILE} has {_count(new, 'new entry', 'new entries')}. Commit it: it keeps them from coming back."
    )
    for sentence in _make_again(root):
        tell(sentence)
    left = _purge(root, traces, models=models)
    for sentence in [*uses, *_told(root, left), *files, *_earlier(root, traces, versions=versions)]:
        tell(sentence)
    return left


def _drop_decisions(root: Path, params: Params, identities: Collection[str], sample_ids: Collection[str]) -> None:
    """Takes out of decisions.csv what was said of faces that are forgotten."""
    known = read_decisions(root, {*params.identities, *identities})
    left = [one for one in known if one.sample_id not in sample_ids and one.identity not in identities]
    if len(left) < len(known):
        write_decisions(root / DECISIONS_FILE, left)


def _find(root: Path, wanted: Forgotten) -> _Found:
    """Everything that is known of the pictures, their copies and their faces."""
    found, clusters = _Found(), set[str]()
    ids, own = found.traces.sample_ids, 0
    for row in _rows_of_raw(root, ["identity", "url", "page", "author", "sample_id"]):
        if _covers(wanted, row):
            own += 1
            found.traces.addresses.update(filter(None, [row["url"]]))
            ids.update(filter(None, [row["sample_id"]]))
    if (root / Data.UNIQUE).is_dir():
        columns = ["sample_id", "cluster"]
        for one in tables.iterate_rows(root / Data.UNIQUE, UNIQUE, columns):
            if one["sample_id"] in ids and one["cluster"]:
                clusters.add(one["cluster"])
        for one in tables.iterate_rows(root / Data.UNIQUE, UNIQUE, columns):
            if one["cluster"] in clusters:
                ids.add(one["sample_id"])
    everything = 0
    for row in _rows_of_raw(root, ["identity", "url", "page", "author", "sample_id", "image"]):
        if row["sample_id"] in ids or _covers(wanted, row):
            everything += 1
            found.traces.addresses.update(filter(None, [row["url"]]))
            if row["image"]:
                found.traces.contents.add(middle_of(row["image"]["bytes"]))
    found.rows, found.copies = own, everything - own
    _find_faces(root, found, wanted)
    return found


def _rows_of_raw(root: Path, columns: list[str]) -> Iterator[RawRow]:
    if (root / Data.RAW).is_dir():
        yield from tables.iterate_rows(root / Data.RAW, RAW, columns)


def _covers(wanted: Forgotten, row: RawRow) -> bool:
    return wanted.covers(
        identity=row["identity"],
        sample_id=row["sample_id"],
        addresses=[row["url"], row["page"]],
        author=row["author"],
    )


def _find_faces(root: Path, found: _Found, wanted: Forgotten) -> None:
    ids = found.traces.sample_ids
    if (root / Data.FACES).is_dir():
        row: FaceRow
        for row in tables.iterate_rows(
            root / Data.FACES, FACES, ["sample_id", "identity", "role", "crop", "embedding"]
        ):
            if row["sample_id"] in ids and row["crop"]:
                found.traces.contents.add(middle_of(row["crop"]["bytes"]))
                if row["role"] == "reference" and wanted.covers(identity=row["identity"]):
                    found.embeddings.append(row["embedding"])
    if (root / Data.DATASET).is_dir():
        for one in tables.iterate_rows(root / Data.DATASET, DATASET, ["sample_id", "status", "reference"]):
            found.trained_on += one["sample_id"] in ids and bool(one["status"] == State.OK or one["reference"])


def _uses(root: Path, asked: Asked, found: _Found, params: Params) -> Iterator[str]:
    """The model and the videos that were made with it, and the archive's videos that show a person, in sentences."""
    described = root / Data.MODEL_META
    model: dict[str, Any] = read_object(described) if described.is_file() else {}
    people = sorted(set(asked.identities) & {str(name) for name in model.get("identities") or []})
    same = found.trained_on > 0 and model.get("dataset") == dataset_sha256(root / Data.DATASET)
    if people:
        yield f"{Data.MODEL} draws {', '.join(people)}: --models removes it; other copies of it are yours to delete."
    elif same:
        yield (
            f"{Data.MODEL} was trained with {_count(found.trained_on, 'face')} of it: train again, or --models removes "
            "it; other copies of it are yours to delete."
        )
    if (root / Data.CONVERSIONS).is_dir():
        columns = ["output", "dataset", "becomes"]
        made = [
            row["output"]
            for row in tables.iterate_rows(root / Data.CONVERSIONS, CONVERSIONS, columns)
            if row["output"]
            and (
                (same and row["dataset"] == model.get("dataset"))
                or {pair[side] for pair in row["becomes"] or [] for side in ("replaced", "new")} & set(asked.identities)
            )
        ]
        if made:
            videos = _count(len(made), "converted video")
            yield f"{videos} made with it: {_some(made)}. Delete them where they are kept."
    if found.embeddings and (root / Data.TRACKS).is_dir():
        shown = _shown_in(root, np.array(found.embeddings, np.float32), params.convert.identity_distance)
        if shown:
            yield (
                f"the archive shows this person in {_count(len(shown), 'video')}: {_some(shown)}. Tracks of these hold "
                "the face's embeddings as long as they lie there: take them out of the archive, and run the next "
                "refresh and `facemill stage track`."
            )


def _shown_in(root: Path, references: np.ndarray[Any, np.dtype[np.float32]], limit: float) -> list[str]:
    """The videos in whose tracks a face lies within the limit of a person's references."""
    shas = set()
    for row in tables.iterate_rows(root / Data.TRACKS, TRACKS, ["video_sha256", "looks"]):
        looks = np.array(row["looks"] or [], np.float32).reshape(-1, DIMENSIONS)
        if len(looks) and np.median([identity_distance(references, look) for look in looks]) <= limit:
            shas.add(row["video_sha256"])
    videos = tables.iterate_rows(root / Data.VIDEOS, VIDEOS, ["video", "sha256"])
    return sorted(row["video"] for row in videos if row["sha256"] in shas)


def _source_files(root: Path, params: Params, found: _Found) -> list[str]:
    """The files of a person's own that the pictures came from: those are theirs to delete."""
    from tasks.collecting.planning import plan_units

    try:
        units = plan_units(params, root)
    except FacemillError:  # the inventory says what is wrong
        return []
    addresses = found.traces.addresses
    files = sorted({str(unit.path) for unit in units if unit.path is not None and unit.key in addresses})
    return [f"the pictures themselves lie in your folders still: {_some(files)}. Delete them there."] if files else []


def _make_again(root: Path) -> Iterator[str]:
    """Runs the stages that have run, without the network; what one cannot make without the pictures is removed."""
    from tasks import collect

    if not (root / Data.RAW).is_dir():
        return
    run_stage("inventory", root)
    run_stage("collect", root, run=collect.run_without_network)
    broken = ""
    for name, table in list(_TABLES.items())[1:]:
        if not (root / table).is_dir():
            return
        if not broken:
            try:
                run_stage(name, root)
                continue
            except FacemillError as error:
                broken = f"stage {name} cannot run without them: {error}"
                yield broken
        shutil.rmtree(root / table)
        yield f"{table} is removed, since it was made with them."


def _purge(root: Path, traces: Traces, *, models: bool) -> list[Path]:
    """Removes all that can be made again, until a search finds nothing there; gives the files that hold it still."""
    for report in _REPORTS:
        path = root / report
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for plan in (root / WORK_FOLDER).glob(f"*/{PLAN_FILE}"):
        if any(plan.parent.glob("*.parquet")):
            drop_all_but_present(plan.parent)
    left = []
    for path in holders([root / Data.ALL, root / WORK_FOLDER], traces):
        relative = path.relative_to(root)
        if models and any(relative.is_relative_to(folder) for folder in _MODELS):
            continue
        if relative.parts[0] == WORK_FOLDER and not relative.is_relative_to(_MODELS[-1]):
            # a result goes with its receipt: either alone would be taken for none, and stay
            for each in path.parent.glob(f"{path.stem}.*"):
                each.unlink(missing_ok=True)
        else:
            left.append(path)
    if models:
        for folder in _MODELS:
            shutil.rmtree(root / folder, ignore_errors=True)
    return left


def _told(root: Path, left: Iterable[Path]) -> Iterator[str]:
    files = [str(path.relative_to(root)) for path in left]
    if models := [file for file in files if any(Path(file).is_relative_to(folder) for folder in _MODELS)]:
        yield f"a model holds pictures or names of it still, in {_some(models)}: --models removes it."
    if others := [file for file in files if file not in models]:
        yield f"a search finds it still in {_some(others)}: delete these."
    if not files:
        yield f"a search through {Data.ALL} and {WORK_FOLDER} finds nothing of it any more."


def _earlier(root: Path, traces: Traces, *, versions: bool) -> Iterator[str]:
    """What becomes of the tables of earlier refreshes, which DVC keeps."""
    from tasks.versions.purge import purge

    if not (root / ".dvc").is_dir():
        return
    if versions:
        yield from purge(root, traces)
    else:
        yield "DVC's cache and remote keep the tables of earlier refreshes: --versions removes those that hold it."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
