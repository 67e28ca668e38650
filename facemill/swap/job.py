"""One video of an archive as work that can be started any number of times, by any number of workers.

    pieces_of ──► nobody is replaced ──────────────────────────────────► pass_on: the file as it is
              └─► a piece a segment ──► convert_piece, anywhere ──► … ──► conclude: join, verify, publish

A job is plain data and goes to any worker, and so is a piece of it. What a piece made lies under its content's key: the
model, the settings, the faces and the frames that it reads; whoever finds one there has nothing to do. The video's
outcome is a small JSON file that is written last: whoever finds one that fits the job (same input, model, settings) and
an output that is still as it was written has nothing to do either.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt

from facemill.device_choice import Device
from facemill.errors import FacemillError, InputError
from facemill.files import atomic_path, file_sha256, foreign_stamp, is_as_stamped, is_full, read_json, stamp, write_json
from facemill.foreign_files import valid_name
from facemill.media import pixel_ratio
from facemill.model_folder import read_meta, references_of
from facemill.reasons import Reason, State
from facemill.swap.converter import (
    ConvertedSegment,
    KnownFaces,
    Receipt,
    check_failures,
    convert_segment,
    count_errors,
    join_segments,
    receipt_of_untouched,
)
from facemill.swap.detail.tracks import TrackChoice, choose_for_tracks
from facemill.swap.known import known_faces, wanted_of
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import ModelOrigin, Swapper, exemplars_of, load_swapper
from facemill.track.naming import name_tracks
from facemill.track.table import TrackedFiles, TrackedSegment, read_looks, read_predictors, read_segments

KEY_DIGITS = 32
CLAIM_FILE = "output.json"  # beside the parts: which file the job is about to write
CHANGED = "the file has changed since it was tracked: run the same command again"

Outcome = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConversionJob:
    """Attributes:
    video: the video's name in tables and messages.
    input: path of the video.
    output: where it goes if anybody in it is replaced; `passed_on`: where it goes if nobody is.
    outcome: path of the JSON that says how it went.
    parts: folder of what its segments became, until they are joined.
    origin: the model of that folder, and who becomes whom with it.
    fingerprint: of everything but the input that decides about the output's bytes.
    input_sha256: of the video as it was collected, where that is known.
    frames: how many it has, for all that its container says; 0 where that says nothing.
    corrections: track → whose it is by a person's word, None for nobody's; part of the fingerprint.
    packages: version of each package that decides about the output's bytes; for the receipt.
    """

    video: str
    input: str
    output: str
    passed_on: str
    outcome: str
    parts: str
    model_dir: str
    origin: ModelOrigin
    settings: SwapSettings
    fingerprint: str
    input_sha256: str | None = None
    frames: int = 0
    corrections: Mapping[int, str | None] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackedInput:
    """A job's video as it was tracked: `sha256` of its content, and where its faces stand."""

    sha256: str
    files: TrackedFiles


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One segment of a job's video. `wanted`: track → whose face it is, of those that are replaced."""

    job: ConversionJob
    tracked: TrackedInput
    segment: TrackedSegment
    wanted: Mapping[int, str]


@dataclass(frozen=True)
class Made:
    """What a piece came to: how many frames, and the JSON of its `ConvertedSegment`."""

    frames: int
    receipt: str


def pieces_of(job: ConversionJob, tracked: TrackedInput) -> tuple[Piece, ...]:
    """The work on a job's video, a piece for each segment; none where nobody in it is replaced.

    Raises:
        InputError: the video could not be tracked, or ends too early; OUTPUT_TAKEN.
        FacemillError: no model, no tracks where they should be, or tracks with landmarks of another predictor.
    """
    segments = read_segments(tracked.files)
    if any(each.cut for each in segments) and not job.settings.accept_cut:
        raise InputError(Reason.VIDEO_TRUNCATED, next((note for each in segments for note in each.warnings), ""))
    wanted = wanted_of(who_is_who(job, tracked), job.origin.becomes)
    check_place(job, Path(job.output if wanted else job.passed_on))
    if not wanted:
        check_failures(sum(each.frames for each in segments), count_errors(segments), job.settings)
        return ()
    _check_predictors(job, tracked)
    return tuple(Piece(job=job, tracked=tracked, segment=each, wanted=wanted) for each in segments)


def _check_predictors(job: ConversionJob, tracked: TrackedInput) -> None:
    """Raises FacemillError where the tracks have other landmarks than those that the model was trained on: each face
    would be drawn shifted. Tables may be older than params.yaml."""
    trained = read_meta(Path(job.model_dir))["landmarks"]
    if others := read_predictors(tracked.files) - {trained}:
        raise FacemillError(
            f"{job.video} was tracked with the landmarks of {' and of '.join(sorted(others))}, the model in "
            f"{job.model_dir} was trained on those of {trained}: run the stage track again (`facemill stage track`)"
        )


def who_is_who(job: ConversionJob, tracked: TrackedInput) -> dict[int, str | None]:
    """Track → the identity that it is, by its looks or by a person's word; None for somebody else.

    Raises:
        InputError: a correction names a track that the video does not have.
    """
    who = name_tracks(
        read_looks(tracked.files), _references(job.model_dir, job.origin.model_sha256), job.settings.identity_distance
    )
    if unknown := sorted(job.corrections.keys() - who.keys()):
        numbers = ", ".join(map(str, unknown))
        raise InputError(
            Reason.CONVERSION_FAILED,
            f"tracks.yaml names track {numbers}, which this video does not have: look at `facemill preview` again",
        )
    return who | dict(job.corrections)


def convert_piece(piece: Piece, on_frame: Callable[[], None] = lambda: None) -> Made:
    """Converts one segment, unless it lies there already.

    Args:
        on_frame: called with every frame that goes to the encoder.

    Raises:
        InputError: the segment cannot be read or encoded.
        FacemillError: what no other video would survive either: no model, a full disk.
    """
    job = piece.job
    becomes = tuple(job.origin.becomes.items())
    choices = {}
    if job.settings.detail == "exemplars":
        choices = _choices(
            job.fingerprint, piece.tracked.files, tuple(piece.wanted.items()), job.input, job.model_dir, becomes
        )
    known = known_faces(piece.tracked.files, piece.segment, piece.wanted, choices)
    key, suffix = _key(piece, known), Path(job.output).suffix
    part, receipt = Path(job.parts) / f"{key}{suffix}", Path(job.parts) / f"{key}.json"
    if not _is_there(receipt, part):
        swapper = _swapper(job.model_dir, job.origin.model_sha256, becomes, job.settings.device)
        with _ffmpeg_errors():
            made = convert_segment(Path(job.input), part, piece.segment.segment, known, swapper, job.settings, on_frame)
        write_json(receipt, made.as_dict())
    return Made(piece.segment.frames, str(receipt))


@dataclass(frozen=True)
class Ending:
    """The last piece of work on a video: `receipts` are those of its pieces, in their order; none: it is passed on."""

    job: ConversionJob
    tracked: TrackedInput
    receipts: tuple[str, ...]


def conclude(ending: Ending) -> Outcome:
    """Joins what the pieces became, or passes the video on, and records the outcome.

    Raises:
        FacemillError: a full disk.
    """
    try:
        return _join(ending) if ending.receipts else _pass_on(ending)
    except InputError as error:
        return failed(ending.job, error.reason, error.detail)


def _join(ending: Ending) -> Outcome:
    job, output = ending.job, Path(ending.job.output)
    input_stamp = check_input(job, ending.tracked)
    _claim(job, output)
    segments = [_read_receipt(Path(path), output.suffix) for path in ending.receipts]
    with _ffmpeg_errors():
        receipt = join_segments(
            Path(job.input), output, segments, job.origin, job.settings, input_sha256=ending.tracked.sha256
        )
    outcome = _succeeded(job, input_stamp, output, receipt)
    shutil.rmtree(job.parts, ignore_errors=True)
    return outcome


def _pass_on(ending: Ending) -> Outcome:
    """The file as it is, byte for byte; a copy, since who changes it in place must not change the input."""
    job, output, sha256 = ending.job, Path(ending.job.passed_on), ending.tracked.sha256
    segments = read_segments(ending.tracked.files)
    _claim(job, output)
    with atomic_path(output) as temporary, _read_errors():
        input_stamp = foreign_stamp(Path(job.input))
        shutil.copyfile(job.input, temporary)
        if file_sha256(temporary) != sha256:
            raise InputError(Reason.UNREADABLE, CHANGED)
        os.utime(temporary, ns=(input_stamp["mtime_ns"], input_stamp["mtime_ns"]))
    frames = sum(each.frames for each in segments)
    receipt = receipt_of_untouched(sha256, job.origin, frames, count_errors(segments))
    outcome = _succeeded(job, input_stamp, output, receipt)
    shutil.rmtree(job.parts, ignore_errors=True)
    return outcome


def check_place(job: ConversionJob, output: Path) -> None:
    """Whether a result may go to a place: nothing lies there, or what an earlier run of the same job has put there.

    Raises:
        InputError: OUTPUT_TAKEN, with the file's name and the remedy.
    """
    if os.path.lexists(output) and not _is_ours(job, output):
        raise InputError(
            Reason.OUTPUT_TAKEN,
            f"{valid_name(output.name)} lies there already, and no conversion is known to have written it: move it "
            "away, or choose another output folder, and run the same command again",
        )


def _is_ours(job: ConversionJob, output: Path) -> bool:
    """Whether an outcome of this job names a file as its own, or a run that was killed was about to write it."""
    try:
        earlier: Outcome = read_json(Path(job.outcome))
        if earlier["status"] == State.OK and output_of(job, earlier) == output:
            return True
    except (FacemillError, KeyError, TypeError):  # there is none
        pass
    return _claimed(job) == output


def _claim(job: ConversionJob, output: Path) -> None:
    """Says that a file which may lie there from now on is this job's: it appears before its outcome is recorded."""
    check_place(job, output)
    write_json(Path(job.parts) / CLAIM_FILE, {"output": str(output)})


def _claimed(job: ConversionJob) -> Path | None:
    try:
        return Path(read_json(Path(job.parts) / CLAIM_FILE)["output"])
    except (FacemillError, KeyError, TypeError):
        return None


def check_input(job: ConversionJob, tracked: TrackedInput) -> dict[str, int]:
    """The stamp of a video that is still the one that was tracked. Raises InputError if it is another one."""
    with _read_errors():
        stamped = foreign_stamp(Path(job.input))
        if file_sha256(Path(job.input)) != tracked.sha256:
            raise InputError(Reason.UNREADABLE, CHANGED)
        return stamped


def finished(job: ConversionJob) -> Outcome | None:
    """The recorded outcome, if it belongs to this job's input and settings and its output is as it was written."""
    path = Path(job.outcome)
    if not path.exists():
        return None
    try:
        outcome: Outcome = read_json(path)
        fits = outcome["fingerprint"] == job.fingerprint and _same_input(job, outcome)
        whole = outcome["status"] != State.OK or _same_output(job, outcome)
    except (FacemillError, KeyError, TypeError):  # not ours, or of an older version: as if it were not there
        return None
    return outcome if fits and whole else None


def output_of(job: ConversionJob, outcome: Outcome) -> Path:
    """Where the finished file of an outcome lies."""
    return Path(job.passed_on if outcome["receipt"]["passed_on"] else job.output)


def failed(job: ConversionJob, reason: Reason, detail: str) -> Outcome:
    """Records why there is no output; one of an earlier run with other settings would pass for this one's."""
    _drop_earlier(job)
    if claimed := _claimed(job):
        claimed.unlink(missing_ok=True)
    shutil.rmtree(job.parts, ignore_errors=True)
    return _record(job, {"input": _stamp_of(job), "status": reason.state, "error": reason, "detail": detail})


def _same_input(job: ConversionJob, outcome: Outcome) -> bool:
    known: str | None = outcome["input_sha256"]
    if job.input_sha256 is not None and known != job.input_sha256:
        return False
    if job.settings.verify == "thorough" and known is not None:
        return _has_content(Path(job.input), known)
    return job.input_sha256 is not None or is_as_stamped(Path(job.input), outcome["input"], known)


def _same_output(job: ConversionJob, outcome: Outcome) -> bool:
    path, sha256 = output_of(job, outcome), outcome["receipt"]["output_sha256"]
    if job.settings.verify == "thorough":
        return outcome["verify"] == "thorough" and _has_content(path, sha256)
    return is_as_stamped(path, outcome["output"], sha256)


def _has_content(path: Path, sha256: str) -> bool:
    """Whether the bytes of a file are the same, whatever its size and time say."""
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _succeeded(job: ConversionJob, input_stamp: Mapping[str, int], output: Path, receipt: Receipt) -> Outcome:
    _drop_earlier(job, but=output)
    told = receipt.as_dict() | {"warnings": _warnings(receipt)}
    of_input = {"input": dict(input_stamp), "input_sha256": receipt.input_sha256}
    return _record(job, of_input | {"status": State.OK, "output": stamp(output), "receipt": told})


def _drop_earlier(job: ConversionJob, but: Path | None = None) -> None:
    """Removes what an earlier run gave for this job, if it lies there as it was written; a file of somebody else's that
    has such a name is none of ours.

    Args:
        but: the place of what was given now.
    """
    try:
        earlier: Outcome = read_json(Path(job.outcome))
        path = output_of(job, earlier)
        ours = path != but and is_as_stamped(path, earlier["output"], earlier["receipt"]["output_sha256"])
    except (FacemillError, KeyError, TypeError):  # there was none, or it had failed
        return
    if ours:
        path.unlink(missing_ok=True)


def _stamp_of(job: ConversionJob) -> dict[str, int] | None:
    """Of the input, if there is one: a file that failed is tried again when it is another one."""
    try:
        return foreign_stamp(Path(job.input))
    except OSError:
        return None


def _record(job: ConversionJob, what: Mapping[str, Any]) -> Outcome:
    """Writes the outcome atomically and returns it."""
    blank: Outcome = {"video": job.video, "fingerprint": job.fingerprint, "input_sha256": job.input_sha256}
    blank |= {"verify": job.settings.verify, "packages": dict(job.packages)}
    blank |= dict.fromkeys(("input", "output", "receipt", "error", "detail"))
    outcome: Outcome = blank | dict(what)
    write_json(Path(job.outcome), outcome)
    return outcome


def _key(piece: Piece, known: KnownFaces) -> str:
    """Of everything that a piece reads."""
    digest = hashlib.sha256()
    job, segment = piece.job, piece.segment.segment
    plain = [job.fingerprint, piece.tracked.sha256, segment.start, segment.end, sorted(known.errors.items())]
    digest.update(json.dumps(plain).encode())
    for pts, found in sorted(known.faces.items()):
        for face in found:
            digest.update(json.dumps([pts, face.identity, face.strength]).encode())
            digest.update(np.ascontiguousarray(face.landmarks, "<f4").tobytes())
            if face.detail:
                for values in (face.detail.index, face.detail.weight, face.detail.gain):
                    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:KEY_DIGITS]


def _read_receipt(receipt: Path, suffix: str) -> ConvertedSegment:
    """What is known of a converted segment, whose part lies beside its receipt under the film's suffix."""
    return ConvertedSegment.from_dict(receipt.with_suffix(suffix), read_json(receipt))


def _is_there(receipt: Path, part: Path) -> bool:
    """Whether a finished part lies there: the receipt is written last, and names the part's hash."""
    if not receipt.exists():
        return False
    try:
        known = _read_receipt(receipt, part.suffix)
        return file_sha256(part) == known.part.sha256
    except (FacemillError, OSError, KeyError, TypeError, ValueError):  # cut, or of an older version
        return False


def _warnings(receipt: Receipt) -> list[str]:
    notes = list(receipt.warnings)
    unseen = [identity for identity, frames in receipt.swapped.items() if frames == 0]
    if receipt.passed_on:
        notes.append(f"{' and '.join(unseen)} {_was(unseen)} not seen: the file is the source's, byte for byte")
    elif unseen:
        notes.append(f"{' and '.join(unseen)} {_was(unseen)} not seen")
    if receipt.failures:
        notes.append("frames that failed: " + ", ".join(f"{n} {reason}" for reason, n in receipt.failures.items()))
    return notes


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


@contextmanager
def _ffmpeg_errors() -> Iterator[None]:
    """What FFmpeg raises is this video's failure; a full disk is a FacemillError by now."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise InputError(Reason.CONVERSION_FAILED, f"FFmpeg: {error.strerror}") from error


@contextmanager
def _read_errors() -> Iterator[None]:
    """A file that cannot be read is this video's failure."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


@lru_cache(maxsize=2)
def _choices(
    fingerprint: str,
    files: TrackedFiles,
    wanted: tuple[tuple[int, str], ...],
    video: str,
    model_dir: str,
    becomes: tuple[tuple[str, str], ...],
) -> dict[int, TrackChoice]:
    """Whole tracks are looked at, so a worker that converts several segments of a video looks once. The
    fingerprint says which model lies in the folder, and which tracks in the files."""
    exemplars = exemplars_of(Path(model_dir), dict(becomes))
    ratio = pixel_ratio(Path(video)) if exemplars else 1.0
    return choose_for_tracks(files, dict(wanted), dict(becomes), exemplars, ratio)


@lru_cache(maxsize=1)
def _swapper(model_dir: str, model_sha256: str, becomes: tuple[tuple[str, str], ...], device: Device) -> Swapper:
    """A worker converts many videos with one model. It may outlive that, and the next one lies in the same folder."""
    return load_swapper(Path(model_dir), dict(becomes), device)


@lru_cache(maxsize=1)
def _references(model_dir: str, model_sha256: str) -> dict[str, npt.NDArray[np.float32]]:
    return references_of(read_meta(Path(model_dir)))


def describe(settings: SwapSettings) -> dict[str, Any]:
    """What of the settings decides about the output's bytes, as plain values; of a subclass what SwapSettings has."""
    plain = settings.plain()
    return {one.name: plain[one.name] for one in fields(SwapSettings) if one.name not in ("device", "verify")}
