"""`facemill status`: how far a conversion is, from any shell, while it runs or after it."""

from __future__ import annotations

from pathlib import Path

from tasks.converting.state import ConversionStatus, VideoStage, read_status
from tasks.work.terminal import duration, one_line, say, say_table

LISTED = 20
_SHOWN = (VideoStage.FAILED, VideoStage.RUNNING)


def show_status(folder: Path) -> ConversionStatus:
    """Prints the state of the conversion whose state lies in a folder, and returns it.

    Raises:
        FacemillError: none has run there.
    """
    status = read_status(folder)
    count = status.count()
    states = ", ".join(f"{count[stage]} {stage}" for stage in VideoStage if count[stage])
    say(f"{len(status.videos)} videos: {states or 'none'}. {_how_long(status)}")
    for stage in _SHOWN:
        videos = [video for video in status.videos if video.stage == stage]
        if videos:
            rows = [(one_line(v.video), f"{v.frames_done} of {v.frames}", one_line(v.reason)) for v in videos[:LISTED]]
            say_table((f"{stage} videos", "frames", "reason"), rows)
            if len(videos) > LISTED:
                say(f"and {len(videos) - LISTED} more that are {stage}")
    return status


def _how_long(status: ConversionStatus) -> str:
    if not status.at_work:
        waits = any(video.stage in (VideoStage.RUNNING, VideoStage.WAITING) for video in status.videos)
        return "No run is at work; the same command goes on where it stopped." if waits else "No run is at work."
    if status.seconds_left is None:
        return "A run is at work; how long it takes shows when its first segment has ended."
    return f"A run is at work: {status.frames_per_second:.1f} frames/s, about {duration(status.seconds_left)} left."
