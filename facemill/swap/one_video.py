"""One video from end to end in this process: tracked, cut into segments, converted, joined.

Archives go another way (`tasks.converting`): there each of these steps is a piece of work for any worker, and what one
has made is found again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facemill.files import TEMPORARY_PREFIX, atomic_path, file_sha256
from facemill.media import pixel_ratio
from facemill.model_folder import read_meta, references_of
from facemill.swap.converter import Receipt, convert_segment, count_errors, join_segments, receipt_of_untouched
from facemill.swap.detail.tracks import choose_for_tracks
from facemill.swap.known import known_faces, wanted_of
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import ModelOrigin, Swapper, check_becomes, load_swapper
from facemill.track.models import FaceModels
from facemill.track.naming import name_tracks
from facemill.track.settings import TrackingSettings
from facemill.track.table import TrackedFiles, read_looks, read_segments
from facemill.track.video import track_video


def convert_video(
    video: Path | str,
    output: Path | str,
    model_dir: Path | str,
    becomes: Mapping[str, str],
    settings: SwapSettings | None = None,
    tracking: TrackingSettings | None = None,
) -> Receipt:
    """Converts one video with the model of a folder.

    Args:
        video: what is converted.
        output: where it goes, `.mp4`, `.mov`, `.m4v` or `.mkv`. Both paths may hold any characters. If nobody in the
            video is replaced, it is the video byte for byte, whatever its kind.
        model_dir: as `facemill.model_folder.save_model` wrote it.
        becomes: whose face is replaced → whose face is put there: `{"bert": "anna"}` makes Anna of Bert.
        settings: how faces are drawn; `tracking`: how they are found.

    Raises:
        InputError: this video cannot be converted (its reason says why); nothing was written.
        FacemillError: nothing can be converted: no model, no such method, a full disk.
    """
    settings, tracking = settings or SwapSettings(), tracking or TrackingSettings()
    origin = check_becomes(Path(model_dir), becomes)
    swapper = load_swapper(Path(model_dir), becomes, settings.device)
    models = FaceModels(
        tracking.detector,
        swapper.device,
        tracking.detector_options,
        landmarks=tracking.landmarks,
        landmark_options=tracking.landmark_options,
    )
    references = references_of(read_meta(Path(model_dir)))
    return convert(Path(video), Path(output), swapper, references, models, settings, tracking, origin)


def convert(
    video: Path,
    output: Path,
    swapper: Swapper,
    references: Mapping[str, npt.NDArray[np.float32]],
    models: FaceModels,
    settings: SwapSettings,
    tracking: TrackingSettings | None = None,
    origin: ModelOrigin | None = None,
) -> Receipt:
    """`convert_video` with what it needs already loaded, for many videos in one process."""
    origin = origin or ModelOrigin(becomes=swapper.becomes)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=output.parent) as folder:
        files = track_video(video, Path(folder) / "tracks", models, tracking or TrackingSettings())
        return convert_tracked(video, output, files, swapper, references, settings, origin)


def convert_tracked(
    video: Path,
    output: Path,
    files: TrackedFiles,
    swapper: Swapper,
    references: Mapping[str, npt.NDArray[np.float32]],
    settings: SwapSettings,
    origin: ModelOrigin | None = None,
) -> Receipt:
    """Likewise of a video whose tracks lie there. Raises InputError and FacemillError as `convert_video`."""
    origin = origin or ModelOrigin(becomes=swapper.becomes)
    wanted = wanted_of(name_tracks(read_looks(files), references, settings.identity_distance), swapper.becomes)
    planned, sha256 = read_segments(files), file_sha256(video)
    if not wanted:
        with atomic_path(output) as temporary:
            shutil.copyfile(video, temporary)
        return receipt_of_untouched(sha256, origin, sum(each.frames for each in planned), count_errors(planned))
    choices = choose_for_tracks(files, wanted, swapper.becomes, swapper.exemplars, pixel_ratio(video))
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=output.parent) as folder:
        segments = [
            convert_segment(
                video,
                Path(folder) / f"{each.segment.index:05d}{output.suffix}",
                each.segment,
                known_faces(files, each, wanted, choices),
                swapper,
                settings,
            )
            for each in planned
        ]
        return join_segments(video, output, segments, origin, settings, input_sha256=sha256)
