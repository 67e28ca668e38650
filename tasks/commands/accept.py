"""`facemill accept`: results stay though code or packages have changed, because somebody says that it is harmless.

Never silent: who, what and why stand in accepted.yaml, which belongs into git. An entry fits one state of the code and
the packages; the next change makes the stage stale again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from facemill.errors import FacemillError
from tasks.catalogue import code_file
from tasks.commands.why import recorded, why
from tasks.params import load_params
from tasks.stages import STAGES, only_one
from tasks.versions import dvc, dvc_lock
from tasks.work.deciders import (
    ACCEPTED_FILE,
    Deciders,
    current_deciders,
    read_accepted,
    write_accepted,
    write_deciders,
)


def accept(root: Path, stage: str, reason: str) -> str:
    """Takes the results of a stage for those of the code and the packages that are here now.

    Args:
        root: the project's folder.
        stage: its name.
        reason: why the change is harmless; kept in accepted.yaml.

    Returns:
        What was accepted, for the person.

    Raises:
        FacemillError: the stage has never run, nothing of its code or packages has changed, or something else has
            (parameters, inputs, outputs), which nobody can accept; or DVC refused.
    """
    if not STAGES[stage].reads:
        raise FacemillError(f"{stage} looks each time: there is nothing to accept")
    if not reason.strip():
        raise FacemillError("--reason is empty: say why the change is harmless, for whoever reads it in a year")
    entry = dvc_lock.stages(dvc_lock.read(root)).get(stage)
    if entry is None:
        raise FacemillError(f"{stage} has never run here: there are no results to keep")
    params = load_params(root)
    dep: dict[str, str] = next((each for each in entry.get("deps", []) if each["path"] == code_file(stage)), {})
    old = recorded(dvc.cache_folder(root), dep)
    if old is None:
        raise FacemillError(f"what decided the results of {stage} is no longer in DVC's cache: run `dvc repro {stage}`")
    before, now = Deciders.from_dict(old), current_deciders(root, stage, params)
    if before.key == now.key:
        raise FacemillError(f"{stage}: neither its code nor its packages have changed: there is nothing to accept")
    if others := why(root, without_code=True)[stage]:
        raise FacemillError(f"{stage}: more than code has changed, which cannot be accepted: {'; '.join(others)}")
    with only_one(root, stage):
        accepted = {
            "stage": stage,
            "digest": now.digest,
            "stands_for": before.key,
            "reason": reason.strip(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
        }
        write_accepted(root, [*read_accepted(root), accepted])
        write_deciders(root, stage, current_deciders(root, stage, params))
        dvc.call(root, "commit", "--force", stage)
    return f"{stage}: its results stand for the present code and packages; {ACCEPTED_FILE} says why: commit it"
