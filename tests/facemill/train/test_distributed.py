"""Two processes under torchrun end where one process with the whole batch ends; one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import KINDS, main

from facemill.train.checkpoint import saved_step


def torchrun(kind: str, folder: Path, steps: int) -> None:
    """`two_processes.py` in two processes on this machine's loopback."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), kind, str(folder), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one_with_the_double_batch(folders: tuple[Path, Path], kind: str) -> None:
    one, two = folders
    main(kind, one, 6)
    torchrun(kind, two, 6)
    alone, together = (load_file(folder / "weights.safetensors") for folder in (one, two))
    floats = [name for name, tensor in alone.items() if tensor.is_floating_point()]
    for name in set(alone) - set(floats):
        # Shown pictures, of 32767: drawn by weights some 1e-6 apart, since each processor rounds in its own way.
        apart = (alone[name] - together[name]).abs().double()
        assert apart.max() <= (16 if name.endswith(".pictures") else 0), name
        assert apart.mean() < 1, name
    if kind == "cyclegan":  # an instance norm takes a bias away: its gradient is nothing but rounding
        floats = [name for name in floats if not name.endswith(".bias")]
    apart = torch.cat([(alone[name] - together[name]).abs().flatten() for name in floats])
    assert apart.max() < 1e-4  # Adam turns the last bits of tiny gradients into whole steps of 1e-4
    assert apart.mean() < 1e-7
    assert saved_step(two / "checkpoints") == 6
    assert sorted(path.name for path in two.glob("evaluated-*")) == ["evaluated-4-by-0", "evaluated-6-by-0"]


@pytest.mark.parametrize("kind", ["autoencoder", "cyclegan"])
def test_two_processes_go_on_to_the_same_bits(folders: tuple[Path, Path], kind: str) -> None:
    whole, parts = folders
    torchrun(kind, whole, 5)
    for steps in (2, 5):
        torchrun(kind, parts, steps)
    files = [load_file(folder / "checkpoints" / "step-00000005" / "tensors.safetensors") for folder in folders]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
