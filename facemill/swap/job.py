"""One video of an archive as a piece of work that can be started any number of times.

A job is plain data and goes to any worker. Its outcome is a small JSON file that is written last: whoever finds one
that fits the job (same input, model and settings) and an output that is still as it was written has nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av.error

from facemill.device_choice import Device
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, foreign_stamp, is_as_stamped, read_json, stamp, write_json
from facemill.reasons import Reason, State
from facemill.swap.converter import Receipt, convert
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper, load_swapper

if TYPE_CHECKING:
    from facemill.track.models import FaceModels

Outcome = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConversionJob:
    """Attributes:
    video: the video's name in tables and messages.
    input: path of the video; `output`: where it goes; `outcome`: path of the JSON that says how it went.
    becomes: the identity that is replaced → the identity whose face is put there.
    fingerprint: of everything but the input that decides about the output's bytes.
    input_sha256: of the video as it was collected, where that is known.
    """

    video: str
    input: str
    output: str
    outcome: str
    model_dir: str
    becomes: Mapping[str, str]
    settings: SwapSettings
    fingerprint: str
    input_sha256: str | None = None


def convert_one(job: ConversionJob) -> Outcome:
    """Converts the video of a job, unless that has been done, and records the outcome.

    Returns:
        `status`, `error`, `detail`, and with status ok the fields of `Receipt` under `receipt`.

    Raises:
        FacemillError: what no other video would survive either: no model, a full disk.
    """
    before = finished(job)
    if before is not None and before["status"] == State.OK:
        return before
    video, output = Path(job.input), Path(job.output)
    outcome = _blank(job)
    try:
        outcome["input"] = _foreign_stamp(video)
        outcome["input_sha256"] = _checked_sha256(job, video)
        swapper = _swapper(job.model_dir, tuple(job.becomes.items()), job.settings.device)
        tools = _tools(swapper.device, json.dumps(_seen_with(job.settings)))
        receipt = _converted(video, output, swapper, tools, job.settings, outcome["input_sha256"])
    except InputError as error:
        output.unlink(missing_ok=True)  # of an earlier run with other settings: it would pass for this one's
        return record(job, outcome | {"status": error.reason.state, "error": error.reason, "detail": error.detail})
    done = {"output": stamp(output), "receipt": receipt.as_dict() | {"warnings": _warnings(receipt)}}
    return record(job, outcome | done | {"status": State.OK})


def finished(job: ConversionJob) -> Outcome | None:
    """The recorded outcome, if it belongs to this job's input and settings and its output is as it was written."""
    path = Path(job.outcome)
    if not path.exists():
        return None
    try:
        outcome: Outcome = read_json(path)
        fits = outcome["fingerprint"] == job.fingerprint and _same_input(job, outcome)
        whole = outcome["status"] != State.OK or is_as_stamped(
            Path(job.output), outcome["output"], outcome["receipt"]["output_sha256"]
        )
    except (FacemillError, KeyError, TypeError):  # not ours, or of an older version: as if it were not there
        return None
    return outcome if fits and whole else None


def record(job: ConversionJob, outcome: Outcome) -> Outcome:
    """Writes the outcome atomically and returns it."""
    write_json(Path(job.outcome), outcome)
    return outcome


def lost(job: ConversionJob, reason: Reason, detail: str) -> Outcome:
    """Records that the job ended without an outcome of its own."""
    return record(job, _blank(job) | {"status": reason.state, "error": reason, "detail": detail})


def _converted(
    video: Path, output: Path, swapper: Swapper, tools: FaceModels, settings: SwapSettings, input_sha256: str
) -> Receipt:
    try:
        return convert(video, output, swapper, tools, settings, input_sha256=input_sha256)
    except av.error.FFmpegError as error:  # not the disk: that is a FacemillError by now
        raise InputError(Reason.CONVERSION_FAILED, f"FFmpeg: {error.strerror}") from error


def _blank(job: ConversionJob) -> Outcome:
    keep = {"video": job.video, "fingerprint": job.fingerprint, "input_sha256": job.input_sha256}
    return keep | {"input": None, "output": None, "receipt": None, "status": "", "error": None, "detail": None}


def _warnings(receipt: Receipt) -> list[str]:
    notes = list(receipt.warnings)
    unseen = [identity for identity, frames in receipt.swapped.items() if frames == 0]
    if unseen:
        untouched = "" if receipt.frames_swapped else ": every frame is as it was"
        notes.append(f"{' and '.join(unseen)} {'was' if len(unseen) == 1 else 'were'} not seen{untouched}")
    if receipt.failures:
        notes.append("frames that failed: " + ", ".join(f"{n} {reason}" for reason, n in receipt.failures.items()))
    return notes


def _checked_sha256(job: ConversionJob, video: Path) -> str:
    try:
        found = file_sha256(video)
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error
    if job.input_sha256 is not None and found != job.input_sha256:
        raise InputError(Reason.UNREADABLE, "the file has changed since it was collected: run collect again")
    return found


def _same_input(job: ConversionJob, outcome: Outcome) -> bool:
    if job.input_sha256 is not None:
        return bool(outcome["input_sha256"] == job.input_sha256)
    return is_as_stamped(Path(job.input), outcome["input"], outcome["input_sha256"])


def _foreign_stamp(path: Path) -> dict[str, int]:
    try:
        return foreign_stamp(path)
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


@lru_cache(maxsize=1)
def _swapper(model_dir: str, becomes: tuple[tuple[str, str], ...], device: Device) -> Swapper:
    """A worker converts many videos with one model."""
    return load_swapper(Path(model_dir), dict(becomes), device)


@lru_cache(maxsize=1)
def _tools(device: str, seen_with: str) -> FaceModels:
    from facemill.track.models import FaceModels

    return FaceModels(device=device, **json.loads(seen_with))


def _seen_with(settings: SwapSettings) -> dict[str, Any]:
    """What of the settings `FaceModels` takes."""
    return {
        "detector": settings.detector,
        "options": settings.detector_options,
        "landmarks": settings.landmarks,
        "landmark_options": settings.landmark_options,
    }


def describe(settings: SwapSettings) -> dict[str, Any]:
    """What of the settings decides about the output's bytes, as plain values; of a subclass what SwapSettings has."""
    plain = settings.plain()
    return {one.name: plain[one.name] for one in fields(SwapSettings) if one.name not in ("decoder_threads", "device")}
