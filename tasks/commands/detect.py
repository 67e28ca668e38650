"""`facemill detect PATH --json`: where each face is, in a picture, a video or a whole folder, as records (S12).

Files are shared out among worker processes (`--jobs`): a video each, pictures some dozens at a time. Each writes its
records to a part of its own, and the parts are joined in the order of the names, so that the output is the same
whatever the number of workers. A file that kills its worker is found and becomes a record, like every other file that
cannot be used.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from facemill.detection_records import EndRecord, FileRecord, Record, to_line
from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, list_files, stable_name
from tasks.work.failures import Cut, Lost
from tasks.work.terminal import say

if TYPE_CHECKING:  # they load torch and dlib, and --help must be quick
    from facemill.recorder import Recorder, RecordSettings

PICTURES_A_UNIT = 32
FAILURES_NAMED = 5


@dataclass(frozen=True)
class FileGroup:
    """Files that a worker takes at a time, each with the name that it gets; `part`: where their records go."""

    files: tuple[tuple[str, str], ...]
    settings: RecordSettings
    part: str


@dataclass
class DetectTotals:
    """Totals of a run; `failures`: (file, reason and detail)."""

    files: int = 0
    frames: int = 0
    faces: int = 0
    tracks: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: DetectTotals) -> None:
        self.files += other.files
        self.frames += other.frames
        self.faces += other.faces
        self.tracks += other.tracks
        self.failures += other.failures

    def __str__(self) -> str:
        text = f"detect: {self.files} files, {self.frames} frames, {self.faces} faces in {self.tracks} tracks"
        if not self.failures:
            return text
        named = [f"{file}: {why}" for file, why in self.failures[:FAILURES_NAMED]]
        more = len(self.failures) - len(named)
        return f"{text}; {len(self.failures)} failed ({'; '.join(named)}{f'; and {more} more' if more else ''})"


def detect(
    path: Path, sink: BinaryIO, settings: RecordSettings, *, jobs: int = 1, show_progress: bool = False
) -> DetectTotals:
    """Writes the records of a file or folder to `sink`.

    Args:
        path: a picture, a video, or a folder of both with its subfolders.
        settings: what is looked for and kept.
        jobs: worker processes; 1 works in this one and writes each record as soon as it is there.

    Raises:
        FacemillError: no such path, nothing in it, a detector that is not there, or a full disk.
    """
    files = _files_of(path)
    totals = DetectTotals()
    if jobs == 1:
        for unit in _units(files, settings, Path()):
            totals.add(_write(_record(unit), sink))
        return totals
    with tempfile.TemporaryDirectory(prefix="facemill-detect-") as folder:
        units = _units(files, settings, Path(folder))
        for unit, summary in _by_workers(units, jobs, show_progress):
            with Path(unit.part).open("rb") as part:
                while block := part.read(1 << 20):
                    sink.write(block)
            Path(unit.part).unlink()
            totals.add(summary)
    return totals


def write_records(
    path: Path, settings: RecordSettings, *, output: Path | None, to_stdout: bool, jobs: int
) -> DetectTotals | None:
    """Writes the records of a file or folder where a command line wants them.

    Args:
        path: as for `detect`.
        settings: as for `detect`.
        output: file for the records, which appears whole or not at all.
        to_stdout: print them, where there is no `output`; with neither they are only counted.
        jobs: as for `detect`.

    Returns:
        The totals; None where whoever reads stdout had enough, as `| head` has.

    Raises:
        FacemillError: as `detect`.
    """
    try:
        with _sink(output, to_stdout) as sink:
            return detect(path, sink, settings, jobs=jobs, show_progress=not to_stdout)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None


def record_unit(unit: FileGroup) -> DetectTotals:
    """Writes the part of a unit, in a worker."""
    from tasks.work.cluster import one_thread

    one_thread()  # two workers that each take all cores stand in each other's way
    with Path(unit.part).open("wb") as part:
        return _write(_record(unit), part)


def _record(unit: FileGroup) -> Iterator[Record]:
    return _recorder(unit.settings).record((Path(path), name) for path, name in unit.files)


def _recorder(settings: RecordSettings) -> Recorder:
    return _loaded(pickle.dumps(settings))


@lru_cache(maxsize=1)
def _loaded(settings: bytes) -> Recorder:
    """Once a process: loading the models takes a second."""
    from facemill.recorder import Recorder

    return Recorder(pickle.loads(settings))


def _write(records: Iterable[Record], sink: BinaryIO) -> DetectTotals:
    totals = DetectTotals()
    name = ""
    for record in records:
        sink.write(to_line(record).encode("ascii"))
        if isinstance(record, FileRecord):
            name = record.file
        if isinstance(record, EndRecord):
            failed = [] if record.reason is None else [(name, record.detail or record.reason)]
            totals.add(DetectTotals(1, record.frames, record.faces, record.tracks, failed))
            sink.flush()
    return totals


def _files_of(path: Path) -> list[tuple[Path, str]]:
    if not path.exists():
        raise FacemillError(f"{path} does not exist: name a picture, a video or a folder")
    if not path.is_dir():
        return [(path, stable_name(path, path))]
    files = list_files(path, PICTURE_SUFFIXES | VIDEO_SUFFIXES, partial(say, error=True))
    if not files:
        known = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise FacemillError(f"no picture or video in {path}: files are taken by their suffix ({known})")
    return [(file, stable_name(file, path)) for file in files]


def _units(files: Sequence[tuple[Path, str]], settings: RecordSettings, folder: Path) -> list[FileGroup]:
    """In the files' order: each video alone, neighbouring pictures together."""
    groups: list[list[tuple[str, str]]] = []
    last_was_picture = False
    for path, name in files:
        picture = path.suffix.lower() in PICTURE_SUFFIXES
        if picture and last_was_picture and len(groups[-1]) < PICTURES_A_UNIT:
            groups[-1].append((str(path), name))
        else:
            groups.append([(str(path), name)])
        last_was_picture = picture
    return [FileGroup(tuple(group), settings, str(folder / f"{index:06d}")) for index, group in enumerate(groups)]


def _by_workers(units: Sequence[FileGroup], jobs: int, show_progress: bool) -> Iterator[tuple[FileGroup, DetectTotals]]:
    """Units in their order, as soon as all before them are done."""
    from tasks.params import ClusterParams
    from tasks.work.cluster import open_pool, run_all
    from tasks.work.progress import track

    finished: dict[int, DetectTotals] = {}
    next_one = 0
    shown = track("detect", len(units), "units") if show_progress else nullcontext()
    with shown as progress, open_pool(ClusterParams(workers=jobs)) as pool:
        for index, result in run_all(pool, record_unit, units, _files):
            finished[index] = _join(units[index], result) if isinstance(result, Cut) else result
            if progress is not None:
                progress.advance()
            while next_one in finished:
                yield units[next_one], finished.pop(next_one)
                next_one += 1


def _files(unit: FileGroup) -> tuple[Callable[[FileGroup], DetectTotals], list[FileGroup]]:
    """A unit in which a worker died or raised, file by file, so that only the poison is lost."""
    singles = [FileGroup((file,), unit.settings, f"{unit.part}-{number}") for number, file in enumerate(unit.files)]
    return record_unit, singles


def _join(unit: FileGroup, cut: Cut) -> DetectTotals:
    """The part of a unit from those of its files."""
    totals = DetectTotals()
    with Path(unit.part).open("wb") as whole:
        for single, result in zip(_files(unit)[1], cut.results, strict=True):
            if isinstance(result, Lost):
                totals.add(_write(_lost(single.files[0][1], unit.settings.detector, result), whole))
            else:
                whole.write(Path(single.part).read_bytes())
                totals.add(result)
            Path(single.part).unlink(missing_ok=True)
    return totals


def _lost(name: str, detector: str, lost: Lost) -> list[Record]:
    reason, detail = lost.reason, lost.detail or None
    end = EndRecord(status=reason.state.value, reason=reason.value, detail=detail, frames=0, faces=0, tracks=0)
    return [FileRecord(file=name, detector=detector, options={}), end]


@contextmanager
def _sink(output: Path | None, to_stdout: bool) -> Iterator[BinaryIO]:
    """Where the records go: a file that appears whole or not at all, stdout, or nowhere."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(output) as temporary, temporary.open("wb") as stream:
            yield stream
    elif to_stdout:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with open(os.devnull, "wb") as nowhere:
            yield nowhere
