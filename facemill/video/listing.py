"""The videos below a folder. What a file is decides, not how it is called."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from facemill.errors import InputError
from facemill.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tell, list_files, tell_nobody
from facemill.reasons import Reason
from facemill.video.info import probe

STILL_SUFFIXES = PICTURE_SUFFIXES - {".gif", ".webp", ".png", ".apng"}  # of pictures that never move
KINDS_NAMED = 8


def list_videos(folder: Path, tell: Tell = tell_nobody) -> list[Path]:
    """Every file below a folder that is named as a video or is one, in the order of `list_files`.

    A file with a suffix of videos is listed even where it holds none, so that it gets a row with the reason. Any other
    is opened; those that are no videos are counted in one message.

    Raises:
        FacemillError: as `list_files`.
    """
    found, others = [], Counter[str]()
    for path in list_files(folder, None, tell):
        suffix = path.suffix.lower()
        if suffix in VIDEO_SUFFIXES or (suffix not in STILL_SUFFIXES and _holds_video(path)):
            found.append(path)
        else:
            others[suffix or "without a suffix"] += 1
    if others:
        kinds = [f"{count} {suffix}" for suffix, count in others.most_common(KINDS_NAMED)]
        more = others.total() - sum(count for _, count in others.most_common(KINDS_NAMED))
        rest = f", {more} others" if more else ""
        tell(f"{folder}: {others.total()} files are no videos and were left ({', '.join(kinds)}{rest})")
    return found


def _holds_video(path: Path) -> bool:
    try:
        probe(path)
    except InputError as problem:  # a video that is cut off or too large is one all the same
        return problem.reason in (Reason.VIDEO_TRUNCATED, Reason.TOO_LARGE)
    return True
