"""Two processes under torchrun end where one process with the whole batch ends; one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from two_processes import main

from facemill.train.checkpoint import saved_step


def torchrun(folder: Path, steps: int) -> None:
    """`two_processes.py` in two processes on this machine's loopback."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), str(folder), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one_with_the_double_batch(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    threads = torch.get_num_threads()
    main(one, 6)
    torch.set_num_threads(threads)
    torchrun(two, 6)
    alone, together = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert all((alone[name] - together[name]).abs().max() < 2e-3 for name in alone)
    assert sum((alone[name] - together[name]).abs().sum() for name in alone) < 2e-5 * sum(
        tensor.numel() for tensor in alone.values()
    )
    assert saved_step(two / "checkpoints") == 6
    assert sorted(path.name for path in two.glob("evaluated-*")) == ["evaluated-4-by-0", "evaluated-6-by-0"]
