"""What `test_distributed.py` starts under torchrun: a short training, whose weights process 0 writes to a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy_training import CPU, plain_set

from facemill.nets import SwapModel
from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.nets.cyclegan import CycleGan, CycleGanConfig
from facemill.nets.gan import Gan, GanConfig
from facemill.nets.transform import Transform, TransformConfig
from facemill.train.data import Feed
from facemill.train.distributed import ranks_of_torchrun
from facemill.train.engine import fit
from facemill.train.features import random_features
from facemill.train.objectives import Objective
from facemill.train.objectives.autoencoder import AutoencoderObjective
from facemill.train.objectives.cyclegan import CycleGanObjective
from facemill.train.objectives.gan import GanObjective
from facemill.train.objectives.transform import TransformObjective
from facemill.train.settings import Augmentation, CosinePlan

PEOPLE = ("anna", "bert")


def autoencoder() -> Objective:
    config = AutoencoderConfig(
        input_px=16, encoder_channels=(8, 16), bottleneck=16, unfold_channels=8, code_channels=8, decoder_channels=(8,)
    )
    return AutoencoderObjective(Autoencoder(PEOPLE, config))


def gan() -> Objective:
    config = GanConfig(
        encoder_channels=(8, 8, 8, 8, 8), latent=8, code_channels=8, decoder_channels=(8, 8, 8), attention_px=16,
        critic_channels=(8, 8, 8),
    )  # fmt: skip
    return GanObjective(Gan(PEOPLE, config))


def cyclegan() -> Objective:
    """With a pool that is full after two of its turns, so that old pictures are shown."""
    return CycleGanObjective(CycleGan(PEOPLE, CycleGanConfig(input_px=32, width=8, blocks=1, critic_width=8)), pool=6)


def transform() -> Objective:
    return TransformObjective(
        Transform(PEOPLE, TransformConfig(input_px=16, channels=4)), random_features(0.07), style_pictures=4
    )


KINDS: dict[str, Callable[[], Objective]] = {each.__name__: each for each in (autoencoder, gan, cyclegan, transform)}


def main(kind: str, folder: Path, steps: int) -> None:
    """Trains for so many steps in all, going on from what is in `folder`."""
    torch.set_num_threads(1)
    with ranks_of_torchrun(CPU.device) as (ranks, _):
        torch.manual_seed(1 + ranks.number)  # other weights in each: the first one's must win
        objective = KINDS[kind]()
        px = next(part.input_px for part in objective.module.modules() if isinstance(part, SwapModel))
        random = torch.Generator().manual_seed(2)
        pictures = torch.randint(0, 256, (2, 7, 3, px + 8, px + 8), generator=random, dtype=torch.uint8)
        sets = {who: plain_set(who, faces) for who, faces in zip(PEOPLE, pictures, strict=True)}
        objective.prepare(sets)
        feed = Feed(sets, px, 4, Augmentation(), seed=3, share=(ranks.number, ranks.processes))
        plan = CosinePlan(
            steps=steps, learning_rate=1e-4, final_rate=1.0, warmup_steps=1, ema_decay=0.9, evaluate_every=4,
            micro_batch=1 if objective.exact_in_parts else None,
        )  # fmt: skip

        def evaluate(step: int) -> float:
            (folder / f"evaluated-{step}-by-{ranks.number}").touch()
            return 1.0

        fit(objective, feed, plan, folder / "checkpoints", CPU, evaluate=evaluate, ranks=ranks)
        if ranks.first:
            save_file(objective.module.state_dict(), folder / "weights.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
