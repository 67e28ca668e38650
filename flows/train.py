"""Training: the stage `train` in a process of its own with a deadline, its newest preview on the Prefect page.

    facemill run train

A training that was killed goes on from its last checkpoint; one that is up to date ends at once. Deployed as
`train/gpu` on the pool of that name, which runs one at a time.
"""

from __future__ import annotations

import time
from pathlib import Path

from facemill.files import folder_sha256
from flows import pictures
from flows.at_work import project_flow, wait_for_server
from flows.stages import Metrics, pushed, run_stage, show_pictures
from flows.start import start_once
from tasks.catalogue import Data
from tasks.params import load_params
from tasks.work.scratch import WORK_FOLDER

_LOOK_EVERY_S = 10.0


@project_flow("train", waits=True)
def train(then_convert: bool = False) -> Metrics:
    """Brings the model of the project in whose folder it runs up to date.

    Args:
        then_convert: start the deployment convert/cpu afterwards (needs a server).
    """
    project = Path.cwd()
    load_params(project)  # a wrong value is said before anything starts
    run_stage(project, "inventory")  # whether code, packages or weights have changed since
    metrics = run_stage(project, "train", on_tick=PreviewWatch(project / WORK_FOLDER / "train").look)
    if preview := pictures.newest_preview(project / Data.TRAIN):
        show_pictures("train-preview", "Training, finished", [preview])
    with pushed(project, ["train"]):
        if then_convert:
            wait_for_server()
            start_once("convert/cpu", f"convert-{folder_sha256(project / Data.MODEL)}")
    return metrics


class PreviewWatch:
    """Puts each new preview of a running training on the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_look = 0.0
        self._shown: str | None = None

    def look(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        preview = pictures.newest_preview(self._folder)
        if preview is not None and preview[0] != self._shown:
            self._shown = preview[0]
            show_pictures("train-preview", "Training", [preview])
