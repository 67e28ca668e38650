"""What `test_distributed.py` starts under torchrun: a short training, whose weights process 0 writes to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy_training import CPU, plain_set

from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.train.augment import Augmentation
from facemill.train.data import Feed
from facemill.train.distributed import ranks_of_torchrun
from facemill.train.engine import Plan, fit
from facemill.train.objectives.autoencoder import AutoencoderObjective

TINY = AutoencoderConfig(
    input_px=16, encoder_channels=(8, 16), bottleneck=16, unfold_channels=8, code_channels=8, decoder_channels=(8,)
)


def main(folder: Path, steps: int) -> None:
    """Trains for so many steps in all, going on from what is in `folder`."""
    torch.set_num_threads(1)
    with ranks_of_torchrun(CPU.device) as (ranks, _):
        torch.manual_seed(1 + ranks.number)  # other weights in each: the first one's must win
        model = Autoencoder(["anna", "bert"], TINY)
        random = torch.Generator().manual_seed(2)
        pictures = torch.randint(0, 256, (2, 7, 3, 24, 24), generator=random, dtype=torch.uint8)
        sets = {who: plain_set(who, faces) for who, faces in zip(model.identities, pictures, strict=True)}
        feed = Feed(sets, 16, 4, Augmentation(), seed=3, share=(ranks.number, ranks.processes))
        plan = Plan(steps=steps, learning_rate=1e-2, warmup_steps=1, micro_batch=1, ema_decay=0.9, evaluate_every=4)
        losses = {}

        def evaluate(step: int) -> float:
            (folder / f"evaluated-{step}-by-{ranks.number}").touch()
            return 1.0

        fit(
            AutoencoderObjective(model), feed, plan, folder / "checkpoints", CPU,
            evaluate=evaluate, log=lambda step, values: losses.update(values), ranks=ranks,
        )  # fmt: skip
        if ranks.first:
            save_file(model.state_dict(), folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
