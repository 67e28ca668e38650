"""Two processes under torchrun end where one process with the whole batch ends; one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import KINDS, main

from facemill.train.checkpoint import saved_step

STEPS = 6


def torchrun(kind: str, folder: Path, steps: int) -> None:
    """`two_processes.py` in two processes on this machine's loopback."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), kind, str(folder), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a training in two processes that nobody has interrupted."""

    @cache
    def trained(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torchrun(kind, folder, STEPS)
        return folder

    return trained


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one_with_the_double_batch(
    together: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    main(kind, tmp_path, STEPS)
    two = together(kind)
    alone, both = (load_file(folder / "weights.safetensors") for folder in (tmp_path, two))
    floats = [name for name, tensor in alone.items() if tensor.is_floating_point()]
    for name in set(alone) - set(floats):
        # Shown pictures, of 32767: drawn by weights some 1e-6 apart, since each processor rounds in its own way.
        apart = (alone[name] - both[name]).abs().double()
        assert apart.max() <= (16 if name.endswith(".pictures") else 0), name
        assert apart.mean() < 1, name
    if kind == "cyclegan":  # an instance norm takes a bias away: its gradient is nothing but rounding
        floats = [name for name in floats if not name.endswith(".bias")]
    apart = torch.cat([(alone[name] - both[name]).abs().flatten() for name in floats])
    assert apart.max() < 1e-4  # Adam turns the last bits of tiny gradients into whole steps of 1e-4
    assert apart.mean() < 1e-7
    assert saved_step(two / "checkpoints") == 6
    assert sorted(path.name for path in two.glob("evaluated-*")) == ["evaluated-4-by-0", "evaluated-6-by-0"]


@pytest.mark.parametrize("kind", [pytest.param("autoencoder", marks=pytest.mark.slow), "cyclegan"])
def test_two_processes_go_on_to_the_same_bits(together: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    for steps in (2, STEPS):
        torchrun(kind, tmp_path, steps)
    last = Path("checkpoints") / f"step-{STEPS:08}" / "tensors.safetensors"
    whole, parts = (load_file(folder / last) for folder in (together(kind), tmp_path))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
