"""Stage `train`: table `dataset` -> `data/model` (weights, description, card), `data/train` (curves, previews).

Checkpoints, curves and previews grow in the scratch folder, keyed by parameters, code and dataset: kill the stage at
any moment and the next run goes on to the same weights, curves and pictures. They are published when the training is
done. While it runs, `.work/train/…/previews` shows how far it is. With several GPUs, torchrun starts a process for each
(`tasks.training.process`); this one waits for them and publishes.

Every identity of the dataset must be named in params.yaml, and an identity there cannot be without `rights`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from facemill import tables
from facemill.device import choose_device
from facemill.errors import FacemillError
from facemill.files import publish_folder, read_json, write_json
from facemill.processes import end_group, this_process
from facemill.reasons import State
from facemill.schema import DATASET
from facemill.train.dataset import dataset_sha256
from facemill.train.engine import StopReason
from tasks.catalogue import Data
from tasks.licences import MODEL_TERMS, terms_to_train
from tasks.params import Params
from tasks.training.process import ERROR_FILE, OUTCOME_FILE, train_model
from tasks.training.weight_files import weight_files
from tasks.work.deciders import read_deciders
from tasks.work.results import content_key
from tasks.work.scratch import drop_other_folders, keyed_folder
from tasks.work.terminal import say
from tasks.work.totals import Totals, finish

PROJECT = Path(__file__).resolve().parents[1]
"""Where `python -m tasks.…` finds this code."""
GRACE_S = 120.0
"""How long processes that were told to end may take to save."""
_NOT_IN_WEIGHTS = frozenset({"exemplars"})
"""What of a training is decided when it is done: another number of them trains nothing again."""


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Trains, or goes on with a training that was killed, and publishes the model.

    Raises:
        FacemillError: no dataset, fewer than two identities or too few faces, a loss that is not finite, a full disk.
        KeyboardInterrupt: told to end; the state was saved, the same command goes on from it.
    """
    start = time.monotonic()
    fingerprint = dataset_sha256(root / Data.DATASET)
    scratch = training_scratch(root, params, fingerprint)
    meta = describe_model(params, root, fingerprint)
    processes = _processes(params)
    if processes == 1:
        ended = train_model(params, root, scratch, meta)
    else:
        ended = _train_in_processes(processes, root, scratch, meta)
    if ended["reason"] == StopReason.SIGNAL:
        say(
            f"The training was told to end: step {ended['step']} of {params.train.steps} is saved, and the same "
            "command goes on from there."
        )
        raise KeyboardInterrupt
    _publish(scratch, root / Data.TRAIN)
    faces, seconds = ended["faces"], time.monotonic() - start
    return finish(
        root,
        Totals("train", faces, {State.OK: {"": faces}}, seconds, extra=_metrics(ended), pace=_pace(ended)),
    )


def load_references(dataset: Path) -> dict[str, list[list[float]]]:
    """The embeddings that define each identity, by the ids of their faces."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in tables.iterate_rows(dataset, DATASET, ["face_id", "identity", "reference", "embedding"]):
        if row["reference"] and row["embedding"] is not None:
            found.setdefault(row["identity"], {})[row["face_id"]] = row["embedding"]
    return {identity: [faces[face_id] for face_id in sorted(faces)] for identity, faces in found.items()}


def describe_model(params: Params, root: Path, dataset: str) -> dict[str, Any]:
    """What `model.json` says: all that conversion needs, and what the model was made of.

    Args:
        dataset: the dataset's fingerprint.

    Raises:
        FacemillError: no dataset, fewer than two identities, one without rights or references, faces with the
            landmarks of two predictors, or terms that params.yaml does not allow.
    """
    faces = root / Data.DATASET
    references = load_references(faces)
    terms = terms_to_train(params, root)
    identities = _identities(params, faces, references)
    return {
        "name": params.train.model,
        "preset": params.train.preset,
        "identities": identities,
        "crop_px": params.extract.crop_px,
        "crop_coverage": params.extract.coverage,
        "train_coverage": params.train.coverage,
        "landmarks": _predictor(faces),
        "dataset": dataset,
        "packages": dict(read_deciders(root, "train", params).packages),
        "seed": params.seed,
        "references": {identity: references[identity] for identity in identities},
        MODEL_TERMS: [each.plain() for each in terms],
    }


def training_scratch(root: Path, params: Params, dataset: str) -> Path:
    """The scratch folder of a training, known by all that decides its weights and by nothing else.

    Args:
        dataset: the dataset's fingerprint.
    """
    key = content_key(
        read_deciders(root, "train", params).key,
        {name: value for name, value in params.train.plain().items() if name not in _NOT_IN_WEIGHTS},
        weight_files(params.train, root),
        params.seed,
        params.extract.coverage,
        dataset,
    )
    return keyed_folder(root, "train", key)


def _identities(params: Params, dataset: Path, references: Mapping[str, Any]) -> list[str]:
    """Who is in the dataset, in alphabetical order: all stated in params.yaml, at least two, with references."""
    table = tables.read_table(dataset, DATASET, ["identity", "status"])
    pairs = zip(table["identity"].to_pylist(), table["status"].to_pylist(), strict=True)
    found = sorted({identity for identity, status in pairs if status == State.OK})
    if unknown := [identity for identity in found if identity not in params.identities]:
        raise FacemillError(
            f"the dataset holds {', '.join(unknown)}, whose rights params.yaml does not state: run `curate` again"
        )
    if len(found) < 2:
        raise FacemillError(
            f"a swap needs two identities with accepted faces, the dataset has {len(found)} "
            f"({', '.join(found) or 'none'}): add one to params.yaml, or see in data/dataset why faces were rejected"
        )
    if lost := [identity for identity in found if identity not in references]:
        raise FacemillError(
            f"{', '.join(lost)}: no reference embedding in the dataset; name references and run `curate` again"
        )
    return found


def _processes(params: Params) -> int:
    """As many as params.yaml says; `auto`: one for each GPU, as far as they can share the batch evenly.

    Raises:
        FacemillError: more processes than GPUs.
    """
    wanted, on_gpu = params.train.processes, choose_device(params.train.device, "train.device").type == "cuda"
    gpus = torch.cuda.device_count() if on_gpu else 0
    if wanted == "auto":
        return max(count for count in range(1, max(gpus, 1) + 1) if params.train.batch % count == 0)
    if on_gpu and wanted > gpus:
        raise FacemillError(f"train.processes is {wanted}, this machine has {gpus} GPU(s): take auto, or fewer")
    return wanted


def _train_in_processes(processes: int, root: Path, scratch: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Starts torchrun on this machine and waits. An interrupt is passed on, so that all save and end.

    Raises:
        FacemillError: a process failed; with the message of the first.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for name in (ERROR_FILE, OUTCOME_FILE):
        (scratch / name).unlink(missing_ok=True)
    write_json(scratch / "meta.json", dict(meta))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    command = [sys.executable, *launcher, "-m", "tasks.training.process", str(root), str(scratch), str(this_process())]
    # a group of its own: whoever ends this stage signals its whole group, and torchrun takes a second signal for an
    # order to let the saving be
    running = subprocess.Popen(command, cwd=PROJECT, process_group=0)
    try:
        code = running.wait()
    except KeyboardInterrupt:
        end_group(running, GRACE_S, leader_passes_on=True)
        say("The training was told to end: the same command goes on from its last checkpoint.")
        raise
    if (scratch / ERROR_FILE).exists():
        raise FacemillError((scratch / ERROR_FILE).read_text(encoding="utf-8"))
    if code:
        raise FacemillError(f"one of {processes} training processes ended with code {code}: its last lines say why")
    ended: dict[str, Any] = read_json(scratch / OUTCOME_FILE)
    return ended


def _predictor(dataset: Path) -> str:
    """Whose landmarks the faces have. Raises FacemillError where they are of several: crops would not fit together."""
    table = tables.read_table(dataset, DATASET, ["predictor", "status"])
    pairs = zip(table["predictor"].to_pylist(), table["status"].to_pylist(), strict=True)
    found = sorted({str(predictor) for predictor, status in pairs if status == State.OK})
    if len(found) != 1:
        raise FacemillError(
            f"the dataset has faces with the landmarks of {' and of '.join(found)}, whose crops do not fit together: "
            "run the stages extract and curate again"
        )
    return found[0]


def _metrics(ended: Mapping[str, Any]) -> dict[str, Any]:
    return {"steps": ended["step"], "stopped_by": ended["reason"], **ended["metrics"]}


def _pace(ended: Mapping[str, Any]) -> dict[str, float]:
    rate = ended["step"] / ended["seconds"] if ended["seconds"] else 0.0
    return {"steps_per_second": round(rate, 3), "waited_for_data": round(ended["waited_share"], 4)}


def _publish(scratch: Path, output: Path) -> None:
    """Curves and previews of the finished run, in place of older ones; scratch of other trainings is dropped."""
    made = [path for part in ("curves", "previews") for path in (scratch / part).rglob("*") if path.is_file()]
    # copies: a later run writes on in the curves of the scratch folder
    publish_folder(output, {path.relative_to(scratch).as_posix(): path for path in made}, copy=True)
    drop_other_folders(scratch)
