"""dvc.yaml, the stages and the layers say the same thing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.catalogue import code_file
from tasks.params import Params
from tasks.stages import STAGES, Stage

PROJECT = Path(__file__).resolve().parent.parent
PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
MOST_FLAT_MODULES = 8


def test_dvc_runs_the_stages_of_the_table_in_their_order() -> None:
    assert list(PIPELINE) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_dvc_and_the_table_say_the_same_of_a_stage(stage: Stage) -> None:
    entry = PIPELINE[stage.name]
    assert entry["cmd"] == f"${{facemill}} stage {stage.name}"
    assert entry["desc"] == stage.does
    assert tuple(dict.fromkeys(param.split(".")[0] for param in entry["params"])) == stage.params
    assert tuple(dep for dep in entry.get("deps", []) if dep != code_file(stage.name)) == stage.reads
    assert tuple(path for out in entry["outs"] for path in ([out] if isinstance(out, str) else out)) == stage.makes
    assert entry.get("metrics", []) == ([] if stage.metrics is None else [stage.metrics])


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage.reads])
def test_the_code_that_decides_a_stage_is_what_the_inventory_says(stage: str) -> None:
    assert PIPELINE[stage]["deps"][0] == code_file(stage)
    assert all(dep.startswith("data/") for dep in PIPELINE[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_only_files_that_exist_and_parameters_that_exist(stage: str) -> None:
    for dep in PIPELINE[stage].get("deps", []):
        assert dep.startswith("data/") or (PROJECT / dep).exists(), dep
    for param in PIPELINE[stage].get("params", []):
        assert param.split(".")[0] in Params.model_fields, param


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_no_parameter_group_that_it_does_not_name(stage: str) -> None:
    source = "".join(path.read_text() for path in (PROJECT / "tasks").glob(f"{stage}*.py"))
    named = {param.split(".")[0] for param in PIPELINE[stage].get("params", [])}
    read = set(re.findall(r"\bparams\.(\w+)", source)) & set(Params.model_fields)
    # The cluster changes no row; who the identities are reaches later stages through `raw`.
    # The crops' geometry reaches `train` through the crops themselves: other geometry, other bytes.
    assert read - named - {"cluster", "identities"} - ({"extract"} if stage == "train" else set()) == set()


def test_the_folder_of_the_stages_stays_small() -> None:
    """Beside the stages, however many, there are at most 8 modules (16 with today's 8 stages): more goes to folders."""
    flat = [path.name for path in (PROJECT / "tasks").glob("*.py") if path.stem not in {"__init__", *STAGES}]
    assert len(flat) <= MOST_FLAT_MODULES, sorted(flat)


def test_layers_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout


def test_nets_and_training_import_without_the_heavy_modules() -> None:
    blocked = ("dlib", "av", "dvc", "dvclive", "dask", "distributed", "prefect", "skimage", "matplotlib", "pydantic")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "import facemill.nets, facemill.train, facemill.detector_training, facemill.light_training\n"
        "import importlib, pkgutil\n"
        "for package in (facemill.nets, facemill.train, facemill.detector_training, facemill.light_training):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, timeout=120)
