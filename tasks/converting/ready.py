"""What is asked once, before days of work, and not video by video: whether a conversion can be done at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facemill.errors import FacemillError
from facemill.swap.job import ConversionJob
from facemill.swap.swapper import load_swapper
from facemill.video import check_encoder
from tasks.converting.plan import input_bytes
from tasks.work.room import Place, existing, try_to_write

GREY = 128


def check_ready(jobs: Sequence[ConversionJob], *, check_space: bool = True) -> None:
    """Looks at what all jobs need: the encoder, the model, the place for the results.

    Args:
        jobs: what is to be done, of one plan.
        check_space: whether too little space ends the run.

    Raises:
        FacemillError: one of them is not as it has to be.
    """
    if not jobs:
        return
    first = jobs[0]
    check_encoder(first.settings.encoder)
    check_model(Path(first.model_dir), first.origin.becomes)
    for folder in {Path(path).parent for job in jobs for path in (job.output, job.outcome)}:
        try_to_write(existing(folder), Place(folder, "results go", "or choose another folder"))
    if check_space:
        _check_space(jobs)


def check_model(model_dir: Path, becomes: Mapping[str, str]) -> None:
    """Reads a model, which looks at all its numbers, and lets it draw a face of everybody who is put there.

    Raises:
        FacemillError: weights that are not finite, or are not those of this model, or a face of another shape.
    """
    swapper = load_swapper(model_dir, becomes, "cpu")
    side = swapper.input_px
    crop = np.full((side, side, 3), GREY, np.uint8)
    for replaced in becomes:
        try:
            [face] = swapper.swap([crop], [replaced])
        except (RuntimeError, ValueError) as error:
            raise FacemillError(
                f"the model in {model_dir} draws nothing ({error!s:.200}): its weights do not fit its description; "
                "train it again, or name another one with --model"
            ) from error
        if face is None or face.ndim != 3 or face.shape[2] != 3:
            raise FacemillError(
                f"the model in {model_dir} draws no face of {becomes[replaced]!r}: train it again, or name another one "
                "with --model"
            )


def _check_space(jobs: Sequence[ConversionJob]) -> None:
    """As much space as the originals take, on the disk where the results go: what is encoded anew is about as large at
    the usual quality, and parts lie there twice for a while."""
    needed = sum(input_bytes(job) for job in jobs)
    folder = existing(Path(jobs[0].output).parent)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FacemillError(
            f"{folder} has {_size(free)} free, and the {len(jobs)} originals that are to be converted take "
            f"{_size(needed)}: free some, choose another folder, or set convert.check_space: false if the results will "
            "be smaller"
        )


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
