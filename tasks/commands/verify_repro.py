"""`facemill verify-repro`: does each stage, here and now, still give the bytes that lie in `data`?

In a copy of the project, which shares all files with it, a piece of a stage's work is forgotten: one result of each
kind that it keeps, chosen by chance, or one video. The stage itself then runs there, as it would in a refresh, and
makes that piece anew; all that it publishes is compared with what lies in the project. A training is begun again and
stopped after its first points: each curve and each preview up to there must be the same.

A stage that keeps no pieces (the inventory, the report), or whose scratch has been deleted, is made anew as a whole.
"""

from __future__ import annotations

import filecmp
import multiprocessing
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from facemill.errors import FacemillError
from facemill.files import link_or_copy, read_json
from facemill.sources import network_kinds
from tasks.catalogue import Data
from tasks.commands.why import why
from tasks.params import Params, load_params
from tasks.stages import STAGES, Stage, only_one, run_stage
from tasks.work.results import PLAN_FILE
from tasks.work.scratch import WORK_FOLDER, scratch_folder

CURVE_POINTS = 2
"""Points of each training curve that are made again: the mean losses of some fifty steps."""
_POLL_S = 0.2
_FOUND_ABOVE = (".git", ".dvc", ".gitignore", ".gitattributes")
"""The copy lies inside the project, where git and DVC find these; neither takes them as symbolic links."""
_MEMORIES = ("hashes", "times")
"""Folders below `.work` that belong to no stage: they save reading files again."""


@dataclass(frozen=True)
class Verdict:
    """What came of one stage.

    Attributes:
        stage: its name.
        redone: what was made anew, in words.
        compared: how many files were made anew and compared.
        different: those that were made with other bytes, or that only one side has; paths below the project.
        seconds: that it took.
        left_out: why nothing was made, in words; empty where something was.
    """

    stage: str
    redone: str = ""
    compared: int = 0
    different: tuple[str, ...] = ()
    seconds: float = 0.0
    left_out: str = ""

    @property
    def holds(self) -> bool:
        """Whether what was made again is what lies there."""
        return not self.different

    def __str__(self) -> str:
        if self.left_out:
            return f"{self.stage}: left out, {self.left_out}"
        made = f"{self.stage}: {self.redone} made anew, {self.compared} file(s) compared, {self.seconds:.1f} s"
        return f"{made}: equal" if self.holds else f"{made}: not equal: {', '.join(self.different)}"


def verify_repro(root: Path, stages: Sequence[str], seed: int) -> Iterator[Verdict]:
    """Makes a piece of each stage again and compares it.

    Args:
        root: the project's folder. Nothing in its `data` is touched.
        stages: names.
        seed: decides which pieces; the same seed takes the same of the same results.

    Raises:
        FacemillError: a stage is stale or has never run, so that there is nothing to compare with; or its own errors.
    """
    reasons = why(root)
    if stale := [f"{stage}: {'; '.join(reasons[stage])}" for stage in stages if reasons.get(stage)]:
        raise FacemillError("run `dvc repro` first, so that there is something to compare with:\n" + "\n".join(stale))
    params = load_params(root)
    for name in stages:
        start = time.monotonic()
        if asking := _asks_network(name, params):
            yield Verdict(name, left_out=f"since {asking} asks the network, which may give something else by now")
            continue
        with only_one(root, name), scratch_folder(root, "verify-repro") as copy:
            if name == "train":
                redone, compared, different = _train_again(root, copy)
            else:
                redone = "; ".join(_share(root, copy, STAGES[name], random.Random(f"{seed}/{name}"))) or "all of it"
                # a process of its own: how many threads there are decides bits, and some stages switch them off
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    process.submit(_run, name, copy).result()
                compared, different = _compare(root, copy, STAGES[name])
            yield Verdict(name, redone, compared, tuple(different), time.monotonic() - start)


def _asks_network(stage: str, params: Params) -> str:
    kinds = sorted(params.source_kinds & network_kinds()) if stage == "collect" else []
    return ", ".join(kinds)


def _share(root: Path, copy: Path, stage: Stage, rng: random.Random) -> list[str]:
    """Makes `copy` a project of the same content, whose stage finds all but a few of its results.

    What the stage reads is there by symbolic links; what it makes is there as files of their own with the same bytes
    (hard links), since a stage puts new files in place of old ones and never writes on in them.

    Returns:
        What was forgotten, in words.
    """
    own = {Path(made).parts[1] for made in (*stage.makes, stage.metrics) if made}
    for entry in root.iterdir():
        if entry.name not in (Data.ALL, WORK_FOLDER, *_FOUND_ABOVE):
            (copy / entry.name).symlink_to(entry)
    for entry in (root / Data.ALL).iterdir():
        if entry.name in own and entry.is_dir():
            _link_tree(entry, copy / Data.ALL / entry.name)
        elif entry.name not in own:
            (copy / Data.ALL).mkdir(exist_ok=True)
            (copy / Data.ALL / entry.name).symlink_to(entry)
    forgotten = []
    for folder in sorted((root / WORK_FOLDER).iterdir()):
        mine = folder.name == stage.name or folder.name.startswith(f"{stage.name}-")
        if folder.is_dir() and (mine or folder.name in _MEMORIES):
            shared = copy / WORK_FOLDER / folder.name
            _link_tree(folder, shared)
            forgotten += _forget(shared, rng) if mine else []
    return forgotten


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=lambda a, b: link_or_copy(Path(a), Path(b)))


def _forget(folder: Path, rng: random.Random) -> list[str]:
    """Removes one result of a store, or one of the files in a folder of keyed work; in words, what."""
    if (folder / PLAN_FILE).exists():
        return _forget_result(folder, rng)
    keyed = sorted(path for path in folder.glob("*/*") if path.is_file())
    if not keyed:
        return []
    stem = rng.choice(sorted({path.name.partition(".")[0] for path in keyed}))
    for path in keyed:
        if path.name.partition(".")[0] == stem:
            path.unlink()
    return [f"{stem} of {folder.name}"]


def _forget_result(folder: Path, rng: random.Random) -> list[str]:
    plan = read_json(folder / PLAN_FILE)[0]
    if not plan:
        return []
    items = _items(folder / f"{rng.choice(plan)}.json")
    for receipt in folder.glob("*.json"):
        if receipt.name != PLAN_FILE and items & _items(receipt):  # whoever else has one of these rows goes, too
            receipt.unlink()
            receipt.with_suffix(".parquet").unlink(missing_ok=True)
    return [f"{len(items)} item(s) of {folder.name}"]


def _items(receipt: Path) -> set[str]:
    return {str(item[0]) for item in read_json(receipt)["items"]} if receipt.exists() else set()


def _compare(root: Path, copy: Path, stage: Stage) -> tuple[int, list[str]]:
    """How many files of the stage the copy has made anew, and which are not what the project has."""
    compared, different = 0, []
    outputs = [path for path in (*stage.makes, stage.metrics) if path]
    for name in sorted(_files(root, outputs) | _files(copy, outputs)):
        there, made = root / name, copy / name
        if there.exists() and made.exists() and there.samefile(made):
            continue
        compared += 1
        if not _same(there, made):
            different.append(name)
    return compared, different


def _same(there: Path, made: Path) -> bool:
    return there.exists() and made.exists() and filecmp.cmp(there, made, shallow=False)


def _files(root: Path, outputs: Iterable[str]) -> set[str]:
    found = (path for output in outputs for path in (root / output, *(root / output).rglob("*")))
    return {path.relative_to(root).as_posix() for path in found if path.is_file()}


def _train_again(root: Path, copy: Path) -> tuple[str, int, list[str]]:
    """Begins the training again in a process of its own, and ends it after the first points of its curves."""
    from tasks.train import GRACE_S  # loads torch

    _share(root, copy, STAGES["train"], random.Random())
    shutil.rmtree(copy / Data.TRAIN, ignore_errors=True)
    shutil.rmtree(copy / Data.MODEL, ignore_errors=True)
    shutil.rmtree(copy / WORK_FOLDER / "train", ignore_errors=True)  # its checkpoints: it is to begin at step 0
    process = multiprocessing.get_context("spawn").Process(target=_run, args=("train", copy))
    deadline = time.monotonic() + STAGES["train"].rule.deadline_s
    process.start()
    try:
        while process.is_alive() and _last_step(copy / WORK_FOLDER) is None and time.monotonic() < deadline:
            process.join(_POLL_S)
        step = _last_step(copy / WORK_FOLDER)
    finally:
        process.terminate()  # it saves and ends, as a stage does
        process.join(GRACE_S)
        process.kill()
        process.join()
    if (copy / Data.TRAIN).exists():  # it was shorter than that, and is done
        compared, different = _compare(root, copy, STAGES["train"])
        return "all steps", compared, different
    if step is None:
        raise FacemillError("the training gave no points of its curves in time: its last lines say why")
    [scratch] = (copy / WORK_FOLDER / "train").iterdir()
    compared, different = _compare_beginning(root / Data.TRAIN, scratch, step)
    return f"the first {step} steps", compared, [f"{Data.TRAIN}/{name}" for name in different]


def _run(name: str, copy: Path) -> None:
    run_stage(name, copy)


def _last_step(work: Path) -> int | None:
    """The step to which all training curves have been drawn, once each has its points."""
    curves = [_points(path) for path in work.glob("train/*/curves/plots/metrics/train_loss/**/*.tsv")]
    if not curves or any(len(points) < CURVE_POINTS for points in curves):
        return None
    return min(max(points) for points in curves)


def _points(curve: Path) -> dict[int, str]:
    """Step → line of a curve; a line that is being written does not count."""
    text = curve.read_text(encoding="utf-8")
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    at = header.split("\t").index("step") if "step" in header else 0
    return {int(line.split("\t")[at]): line for line in lines}


def _compare_beginning(there: Path, made: Path, step: int) -> tuple[int, list[str]]:
    """Curves and previews up to a step."""
    compared, different = 0, []
    for curve in sorted((there / "curves").rglob("*.tsv")):
        name = curve.relative_to(there)
        old, new = (_up_to(step, path) for path in (curve, made / name))
        compared += bool(old)
        if old != new:
            different.append(name.as_posix())
    for preview in sorted((there / "previews").glob("step-*.jpg")):
        if int(preview.stem.removeprefix("step-")) <= step:
            compared += 1
            if not _same(preview, made / "previews" / preview.name):
                different.append(f"previews/{preview.name}")
    return compared, different


def _up_to(step: int, curve: Path) -> dict[int, str]:
    points = _points(curve) if curve.exists() else {}
    return {at: line for at, line in points.items() if at <= step}
