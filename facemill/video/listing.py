"""The videos below a folder. What a file is decides, not how it is called."""

from __future__ import annotations

from pathlib import Path

from facemill.errors import InputError
from facemill.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tell, list_holding, tell_nobody
from facemill.reasons import Reason
from facemill.video.info import probe

STILL_SUFFIXES = PICTURE_SUFFIXES - {".gif", ".webp", ".png", ".apng"}  # of pictures that never move


def list_videos(folder: Path, tell: Tell = tell_nobody) -> list[Path]:
    """Every file below a folder that is named as a video or is one, in the order of `list_files`.

    A file with a suffix of videos is listed even where it holds none, so that it gets a row with the reason. Any other
    is opened; those that are no videos are counted in one message.

    Raises:
        FacemillError: as `list_files`.
    """
    return list_holding(folder, _is_listed, "no videos", tell)


def _is_listed(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix not in STILL_SUFFIXES and _holds_video(path))


def _holds_video(path: Path) -> bool:
    try:
        probe(path)
    except InputError as problem:  # a video that is cut off or too large is one all the same
        return problem.reason in (Reason.VIDEO_TRUNCATED, Reason.TOO_LARGE)
    return True
