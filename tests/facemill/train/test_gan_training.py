"""The GAN's objective: its losses, its schedule, one critic or one for each, and that it learns and can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toy_training import CPU, plain_set

from facemill.errors import FacemillError
from facemill.nets.gan import Gan, GanConfig
from facemill.nets.vgg import VggFeatures
from facemill.train.adversarial import perceptual_loss
from facemill.train.augment import Batch
from facemill.train.data import FaceSet, Feed
from facemill.train.distributed import ALONE
from facemill.train.engine import fit
from facemill.train.evaluate import validation_losses
from facemill.train.objectives import build_objective
from facemill.train.objectives.gan import FeatureMaps, GanObjective, feature_maps
from facemill.train.schedule import Event, Schedule
from facemill.train.settings import Augmentation, CosinePlan
from facemill.train.step import Stepper

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = GanConfig(
    encoder_channels=(8, 8, 16, 16, 16),
    latent=16,
    code_channels=16,
    decoder_channels=(16, 16, 8),
    attention_px=16,
    critic_channels=(8, 8, 16),
)
SWAPPING = Schedule(length=8, events=(Event(at=0), Event(at=4, swap=True)))
STILL = Augmentation(colour_match=0, brightness=0)


def gan(*identities: str, **changed: Any) -> Gan:
    torch.manual_seed(0)
    return Gan(identities or ("anna", "bert"), replace(TINY, **changed))


def batch(*identities: str, level: float | None = None, px: int = 64) -> dict[str, Batch]:
    """Two faces for each identity, random or of one grey; the eyes are everywhere."""

    def pictures() -> Tensor:
        return torch.rand(2, 3, px, px) if level is None else torch.full((2, 3, px, px), level)

    ones = torch.ones(2, 1, px, px)
    return {
        who: Batch(pictures(), pictures(), ones, ones, torch.zeros(2, 68, 2)) for who in identities or ("anna", "bert")
    }


def face_set(identity: str, red: int, green: int) -> FaceSet:
    """Six faces: a coloured square in the middle of a black picture, somewhat brighter in each."""
    faces = torch.zeros(6, 3, 80, 80)
    for at in range(6):
        faces[at, :2, 20:60, 20:60] = torch.tensor([red + 8.0 * at, green + 8.0 * at])[:, None, None]
    return plain_set(identity, faces.byte())


@pytest.fixture
def sets() -> dict[str, FaceSet]:
    return {"anna": face_set("anna", 180, 0), "bert": face_set("bert", 0, 180)}


def test_losses_are_named_by_identity_and_every_turn_has_its_own() -> None:
    objective = build_objective("gan", gan("anna", "bert", "cleo"), cycle=True)
    names = {turn: list(objective.losses(turn, batch("anna", "bert", "cleo"))) for turn in objective.turns}
    assert names["discriminator"] == [f"discriminator/{who}" for who in ("anna", "bert", "cleo")] + [
        "decay/discriminator"
    ]
    parts = ("adversarial", "reconstruction", "edge", "eyes", "mask", "variation", "cycle")
    assert names["generator"] == [f"{part}/{who}" for who in ("anna", "bert", "cleo") for part in parts] + [
        "decay/generator"
    ]


def test_side_outputs_are_compared_at_their_own_scale() -> None:
    model = gan(input_px=128)
    objective, faces = build_objective("gan", model), batch(level=0.75, px=128)
    for side in (*model.decoder("anna").sides, model.decoder("anna").picture):
        nn.init.zeros_(side.weight)
    losses = objective.losses("generator", faces)
    assert losses["reconstruction/anna"].item() == pytest.approx(2 * 0.5)  # 0 against 0.5 in −1…1, at both scales
    assert losses["eyes/anna"].item() == pytest.approx(30 * 0.5)
    assert losses["edge/anna"].item() == 0


def test_only_the_turn_s_own_weights_get_gradients() -> None:
    objective = build_objective("gan", gan())
    for turn, other in (("discriminator", "generator"), ("generator", "discriminator")):
        objective.module.zero_grad()
        torch.stack(list(objective.losses(turn, batch()).values())).sum().backward()
        moved = [p.grad is not None for p in objective.parameters(turn)]
        assert all(moved)
        assert all(p.grad is None for p in objective.parameters(other))


@pytest.mark.parametrize("turn", ["discriminator", "generator"])
def test_micro_batches_have_the_gradient_of_the_whole_batch(tmp_path: Path, turn: str) -> None:
    """λ of mixup is the same in all of them."""
    faces, gradients = batch(px=64), []
    for micro_batch in (None, 1):
        objective = build_objective("gan", gan())
        stepper = Stepper(
            objective, objective.published.optimizer, CPU, ALONE,
            micro_batch=micro_batch, clip_norm=None, seed=5, say=print,
        )  # fmt: skip
        stepper._gradients(turn, faces, step=3)
        gradients.append(torch.cat([p.grad.flatten() for p in objective.parameters(turn)]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


def test_a_mask_that_lets_everything_through_does_not_pass_for_a_good_picture(sets: dict[str, FaceSet]) -> None:
    model = gan()
    for identity in model.identities:
        nn.init.constant_(model.decoder(identity).alpha.bias, -100.0)  # α = 0: the face comes back as it is
    losses = validation_losses(model, sets)
    assert losses["mae/anna"] > 0.2
    assert losses["psnr/anna"] < 20


@pytest.mark.parametrize(("choice", "critics"), [("each", 3), ("shared", 1)])
def test_identities_have_a_discriminator_each_or_share_one(choice: str, critics: int) -> None:
    objective = build_objective("gan", gan("anna", "bert", "cleo"), discriminator=choice)
    assert len(objective.module["discriminators"]) == critics
    assert len(objective.losses("discriminator", batch("anna", "bert", "cleo"))) == 4


def test_the_perceptual_loss_counts_from_its_event_on_and_where_features_are_given() -> None:
    class Averages(nn.Module):
        def forward(self, pictures: Tensor) -> dict[str, Tensor]:
            return {str(size): nn.functional.avg_pool2d(pictures, size) for size in (2, 4, 8, 32)}

    features = FeatureMaps(Averages(), 224, "means")
    with_features, without = GanObjective(gan(), features=features), GanObjective(gan())
    found = []
    for objective in (with_features, without):
        for step in (7_849, 7_850):
            objective.begin_step(step, 40_000)
            found.append("perceptual/anna" in objective.losses("generator", batch()))
    assert found == [False, True, False, False]
    assert with_features.remarks == ()
    assert "perceptual loss, so it is left out: train.options.features" in without.remarks[0]


def test_features_come_from_a_file_of_vgg16_at_four_scales(tmp_path: Path) -> None:
    """Random weights under torchvision's names; at 224 px the maps have the 112, 56, 28 and 7 px of the original."""
    weights = {f"features.{name}": tensor for name, tensor in VggFeatures(16, ["pool5"]).features.state_dict().items()}
    save_file(weights, tmp_path / "vgg16.safetensors")
    features = feature_maps(str(tmp_path / "vgg16.safetensors"))
    face = torch.rand(1, 3, 32, 32, requires_grad=True)
    maps = features(face)
    assert [found.shape[-1] for found in maps] == [16, 8, 4, 1]
    maps[0].sum().backward()
    assert face.grad is not None
    with pytest.raises(FacemillError, match="cannot be read"):
        build_objective("gan", gan(), features=str(tmp_path / "none.safetensors"))


def test_features_come_from_dlibs_network_too() -> None:
    """The same picture costs nothing, another one something, and the gradient reaches what was drawn."""
    objective = build_objective("gan", gan(), features="dlib", schedule="plain")
    assert objective.describe()["features"] == "dlib's face recognition network"
    assert objective.remarks == ()
    features, real = feature_maps("dlib"), torch.rand(2, 3, 64, 64) * 2 - 1
    assert [found.shape[1:] for found in features(torch.rand(1, 3, 150, 150))] == [
        (32, 35, 35),
        (64, 17, 17),
        (128, 8, 8),
        (256, 4, 4),
    ]
    assert float(perceptual_loss(features, real, real, side_px=150)) == 0
    drawn = (real * 0.5).requires_grad_()
    loss = perceptual_loss(features, drawn, real, side_px=150)
    loss.backward()
    assert loss > 0.001
    assert drawn.grad is not None
    assert drawn.grad.abs().max() > 0
    objective.begin_step(0, 10)
    assert "perceptual/anna" in objective.losses("generator", batch())


def test_the_hinge_of_the_schedule_is_the_mask_s_loss() -> None:
    objective = GanObjective(gan())
    nn.init.constant_(objective.model.decoder("anna").alpha.bias, -100.0)  # α = 0
    found = []
    for step in (0, 11_850, 15_850, 26_516):
        objective.begin_step(step, 40_000)
        found.append(objective.losses("generator", batch())["mask/anna"].item())
    assert found == pytest.approx([0, 0.1 * 0.5, 0.1 * 0.2, 0])


def test_rates_are_the_published_ones() -> None:
    objective = GanObjective(gan())
    published = GanObjective.published
    assert objective.published == replace(published, learning_rate=1e-3, ema_decay=0.995)  # a narrow net
    assert (published.learning_rate, published.rate_factors["discriminator"]) == (1e-4, 2.0)
    assert published.optimizer.betas == (0.5, 0.999)
    assert [objective.rate("generator", step, 40_000) for step in (0, 26_516, 35_850)] == [1.0, 0.3, 0.1]


def test_decoders_change_places_once_and_the_engine_is_told() -> None:
    model = gan()
    objective, face = GanObjective(model, schedule=SWAPPING), torch.rand(1, 3, 64, 64)
    before = model(face, "anna")
    assert [objective.begin_step(step, 8) for step in range(8)] == [False] * 4 + [True] + [False] * 3
    assert torch.equal(model(face, "bert"), before)


def test_the_swap_survives_save_and_resume_to_the_bit(sets: dict[str, FaceSet], tmp_path: Path) -> None:
    plan = CosinePlan(steps=8, learning_rate=1e-3, warmup_steps=1, save_every=3)
    rotated: list[int] = []

    class Counting(GanObjective):
        def begin_step(self, step: int, total: int) -> bool:
            due = super().begin_step(step, total)
            rotated.extend([step] * due)
            return due

    def train(folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        objective = Counting(gan(), schedule=SWAPPING)
        feed = Stopping(sets, stop_after) if stop_after else Feed(sets, 64, 1, STILL, seed=0)
        fit(objective, feed, plan, folder, CPU, say=lambda line: None)
        return objective.module.state_dict()

    for at, stop_after in enumerate((9, 13)):  # draws: two a step; saved after step 3, before, and 6, after the swap
        with pytest.raises(KeyError):
            train(tmp_path / f"cut{at}", stop_after)
    rotated.clear()
    whole = train(tmp_path / "whole")
    for at in range(2):
        resumed = train(tmp_path / f"cut{at}")
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert rotated == [4, 4]  # of the whole run and of the one that was cut before the swap


class Stopping(Feed):
    """Dies at a draw, as a process does that is killed: nothing is saved."""

    def __init__(self, sets: dict[str, FaceSet], draws: int) -> None:
        super().__init__(sets, 64, 1, STILL, seed=0)
        self._left = draws

    def draw(self) -> Any:
        self._left -= 1
        if self._left < 0:
            raise KeyError("killed")
        return super().draw()


def test_a_gan_learns_to_draw_and_to_swap(sets: dict[str, FaceSet], tmp_path: Path) -> None:
    """anna is red and bert is green: soon a red square drawn as bert is green. The mask, which a net may close where
    its input is good enough, is left out, and so is a network that knows faces: squares are none."""
    model, views = gan(), {who: faces.view(64) for who, faces in sets.items()}

    def errors() -> list[float]:
        with torch.inference_mode():
            return [(model.draw(view, who)[0] - view).abs().mean().item() for who, view in views.items()]

    before = errors()
    plan = CosinePlan(steps=40, learning_rate=2e-3, warmup_steps=5)
    objective = build_objective("gan", model, schedule="plain", features=None)
    fit(objective, Feed(sets, 64, 4, STILL, seed=0), plan, tmp_path, CPU)
    assert all(now < 0.3 * then for now, then in zip(errors(), before, strict=True))
    red, green, _ = model.draw(views["anna"], "bert")[0][:, :, 32, 32].mean(0).tolist()
    assert green > 0.5 > 0.2 > red


@pytest.mark.parametrize("kind", ["mixup", "relativistic"])
def test_gradients_are_finite_on_black_pictures(kind: str) -> None:
    objective = build_objective("gan", gan(), adversarial=kind, cycle=True)
    for turn in objective.turns:
        objective.module.zero_grad()
        torch.stack(list(objective.losses(turn, batch(level=0.0)).values())).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters(turn))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"discriminator": "none"}, "no 'none'; there are each, shared"),
        ({"adversarial": "wgan"}, "no 'wgan'; there are mixup, relativistic"),
        ({"schedule": "fast"}, "no 'fast'; there are published, long, plain"),
        ({"critic": 1}, "has no option critic"),
    ],
)
def test_choices_that_there_are_not_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(FacemillError, match=says):
        build_objective("gan", gan(), **options)
