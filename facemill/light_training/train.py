"""Trains the light network on Extended Yale B's cropped faces.

    python -m facemill.light_training FOLDER --output FILE

FOLDER holds, at any depth, the pictures `yaleBxx_P00A+aaaE+ee.pgm` (Georghiades et al. 2001, Lee et al. 2005; for
research use): person, pose, and azimuth and elevation of the light in degrees. A step takes some people and some of
their lights; all pairs of one pose count, contrastive (Hadsell et al. 2006): d² for the same light, (1 − d)² up to
distance 1 for another one. A mirrored face is lit from the mirrored side, which doubles the people.

People are split before anything is learned: the last eight are never seen, and what is reported is about them. The
loop and its guards are those of `facemill.train.engine`. It takes two minutes: a training that is ended begins anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from facemill.device import settings_for
from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.light_training.yale import LightSet, pixels, read_yale, score, split_people
from facemill.nets.light import INPUT_PX, LightNet
from facemill.train.engine import StopReason, fit
from facemill.train.objectives import ObjectiveBase
from facemill.train.settings import CosinePlan
from facemill.weights import require_finite, save_tensors

TERMS = (
    "trained on Extended Yale B (cropped), which is for research use: cite Georghiades, Belhumeur & Kriegman 2001 and "
    "Lee, Ho & Kriegman 2005"
)


@dataclass(frozen=True, kw_only=True)
class LightPlan(CosinePlan):
    """How the network learns; a step takes `people` × `lights` pictures of one pose."""

    steps: int = 1500
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    final_rate: float = 0.0
    log_every: int = 100
    people: int = 8
    lights: int = 16
    margin: float = 1.0  # features have length 1, so distances reach from 0 to 2
    zoom: float = 0.1  # uniform in 1 ±
    shift: float = 0.06  # uniform in ±, as a share of the side
    gain: float = 0.25  # log of the brightness, uniform in ±


class Interrupted(Exception):
    """The training was told to end before it was finished."""


def train_light(
    data: LightSet, plan: LightPlan, *, log: Callable[[int, float], None] = lambda step, loss: None
) -> LightNet:
    """A network that tells light, trained on the CPU; equal plans and data give equal weights.

    Args:
        data: the pictures to learn from.
        plan: how long and how fast.
        log: called every `plan.log_every` steps with the mean loss since the last call.

    Raises:
        FacemillError: fewer than two people or lights: there are no pairs to learn from; or a loss that is not finite
            again and again.
        Interrupted: SIGINT or SIGTERM came.
    """
    feed = _Feed(data, plan)
    torch.manual_seed(plan.seed)
    net = LightNet()
    used = settings_for(torch.device("cpu"), sum(p.numel() for p in net.parameters()))
    with tempfile.TemporaryDirectory(
        prefix="facemill-light-"
    ) as folder:  # where a loss that is not finite goes back to
        outcome = fit(
            _Objective(net, plan.margin),
            feed,
            plan,
            Path(folder),
            used,
            log=lambda step, losses: log(step, losses["contrastive"]),
        )
    if outcome.reason is StopReason.SIGNAL:
        raise Interrupted
    return net.eval().requires_grad_(False)


class _Objective(ObjectiveBase):
    """One turn with one loss, which compares faces: it cannot be had in parts."""

    turns = ("light",)
    exact_in_parts = False

    def __init__(self, net: LightNet, margin: float) -> None:
        super().__init__(net)
        self._margin = margin

    def losses(self, turn: str, batch: _LitFaces) -> dict[str, Tensor]:
        return {"contrastive": contrastive(self.module(batch.pictures), batch.lights, self._margin)}


@dataclass(frozen=True)
class _LitFaces:
    pictures: Tensor  # (N, 1, 64, 64)
    lights: Tensor  # (N, 2)

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, rows: slice) -> _LitFaces:
        return _LitFaces(self.pictures[rows], self.lights[rows])


class _Feed:
    """Batches as one generator draws them, whose state is the place."""

    def __init__(self, data: LightSet, plan: LightPlan) -> None:
        self._groups = _by_person(data)
        if len(set(data.people)) < 2 or not self._groups:
            raise FacemillError(
                "the light network needs pictures of two people at least, of one in two lights at least"
            )
        self._data, self._plan = data, plan
        self._generator = torch.Generator().manual_seed(plan.seed)
        self.waited_s = 0.0

    @property
    def place(self) -> Any:
        return bytes(self._generator.get_state().tolist()).hex()

    @place.setter
    def place(self, place: Any) -> None:
        self._generator.set_state(torch.tensor(list(bytes.fromhex(place)), dtype=torch.uint8))

    def draw(self) -> _LitFaces:
        return _LitFaces(*_draw(self._data, self._groups, self._plan, self._generator))

    def describe(self, place: Any) -> str:
        return f"some of {', '.join(sorted(set(self._data.people)))}"


def contrastive(features: Tensor, lights: Tensor, margin: float) -> Tensor:
    """Mean d² over pairs of equal light plus mean max(0, margin − d)² over the others (Hadsell et al. 2006, Eq. 4).

    features (N, F), lights (N, 2). Either mean is 0 where there are no such pairs.
    """
    first, second = torch.triu_indices(len(features), len(features), offset=1)
    distances = (features[first] - features[second]).square().sum(1).add(1e-8).sqrt()
    same = (lights[first] == lights[second]).all(1)
    together, apart = distances[same].square(), (margin - distances[~same]).clamp_min(0).square()
    return together.sum() / max(len(together), 1) + apart.sum() / max(len(apart), 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command of the module's docstring; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m facemill.light_training", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="CroppedYale, any depth")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=LightPlan.steps, help="default %(default)s")
    parser.add_argument("--held-out", type=int, default=8, help="people that are never seen; default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        _run(given.folder, given.output, LightPlan(steps=given.steps, seed=given.seed), given.held_out)
    except FacemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("The training was told to end before it was finished, so that no weights were written.", file=sys.stderr)
        return 130
    return 0


def _run(folder: Path, output: Path, plan: LightPlan, held_out: int) -> None:
    known, unknown = split_people(read_yale(folder), held_out)
    print(
        f"{len(known)} pictures of {len(set(known.people))} people to learn from, {len(unknown)} of {held_out} held out"
    )
    net = train_light(known, plan, log=lambda step, loss: print(f"step {step}: loss {loss:.4f}", flush=True))
    for name, extract in (("light network", net), (f"{INPUT_PX // 4}×{INPUT_PX // 4} pixels", pixels)):
        with torch.no_grad():
            learned = score(extract(known.pictures), known)
            scores = score(extract(unknown.pictures), unknown, learned.threshold)
        print(
            f"{name}, held-out people: verification {scores.verification:.1%}, 1 of {scores.lights} lights "
            f"{scores.retrieval:.1%}, mean angle {scores.angle_deg:.1f}° (people learned from: "
            f"{learned.verification:.1%}, {learned.retrieval:.1%}, {learned.angle_deg:.1f}°)"
        )
    weights = {key: value.half() for key, value in net.state_dict().items()}
    for key, value in weights.items():
        require_finite(value, key, output)
    with atomic_path(output) as temporary:
        save_tensors(temporary, weights, {"terms": TERMS, "steps": str(plan.steps), "seed": str(plan.seed)})
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB; {TERMS}")


def _by_person(data: LightSet) -> list[Tensor]:
    """Rows of each person in each pose, with two lights at least."""
    keys = list(zip(data.people, data.poses, strict=True))
    rows = [torch.tensor([at for at, key in enumerate(keys) if key == wanted]) for wanted in sorted(set(keys))]
    return [group for group in rows if len(group) > 1]


def _draw(
    data: LightSet, groups: Sequence[Tensor], plan: LightPlan, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented pictures (N, 1, 64, 64) of one pose, and their lights (N, 2)."""
    first = groups[int(torch.randint(len(groups), (), generator=generator))]
    mates = [group for group in groups if data.poses[int(group[0])] == data.poses[int(first[0])]]
    chosen = [mates[at] for at in torch.randperm(len(mates), generator=generator)[: plan.people].tolist()]
    rows = [group[torch.randperm(len(group), generator=generator)[: plan.lights]] for group in chosen]
    mirrored = torch.rand(len(rows), generator=generator) < 0.5
    flip = torch.cat([torch.full((len(group),), bool(one)) for group, one in zip(rows, mirrored, strict=True)])
    every = torch.cat(rows)
    lights = data.lights[every].clone()
    lights[flip, 0] *= -1
    return _augmented(data.pictures[every], flip, plan, generator), lights


def _augmented(pictures: Tensor, flip: Tensor, plan: LightPlan, generator: torch.Generator) -> Tensor:
    count = len(pictures)
    unit = 2 * torch.rand(4, count, generator=generator) - 1
    scale, zero = 1 + plan.zoom * unit[0], torch.zeros(count)
    sign = 1 - 2 * flip.float()
    rows = torch.stack(
        [
            torch.stack([scale * sign, zero, 2 * plan.shift * unit[1]], 1),
            torch.stack([zero, scale, 2 * plan.shift * unit[2]], 1),
        ],
        1,
    )
    grid = functional.affine_grid(rows, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return (moved * torch.exp(plan.gain * unit[3])[:, None, None, None]).clamp(0, 1)
