"""The fast face-swap network's objective: what it compares, how it weighs, and that it learns and can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from toy_training import CPU, plain_set

from facemill.errors import FacemillError
from facemill.model_folder import save_model
from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.nets.light import LightNet
from facemill.nets.transform import Transform, TransformConfig
from facemill.train.augment import MIRRORED, Batch
from facemill.train.data import FaceSet, Feed
from facemill.train.engine import fit
from facemill.train.features import build_features, encoder_features, random_features
from facemill.train.objectives import build_objective
from facemill.train.objectives.transform import SHARES, TransformObjective
from facemill.train.settings import Augmentation, CosinePlan

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = TransformConfig(input_px=32, channels=8)
STILL = Augmentation(rotation_deg=0, zoom=0, shift=0, flip=0, warp=0, colour_match=0, brightness=0)


def face_set(identity: str, red: int, green: int, count: int = 6) -> FaceSet:
    """Faces: a coloured square with a dark bar for a mouth, which stands lower in each picture, like its landmarks."""
    faces = torch.full((count, 3, 40, 40), 30.0)
    for at in range(count):
        faces[at, :2, 8:32, 8:32] = torch.tensor([red, green]).float()[:, None, None]
        faces[at, :, 20 + at : 23 + at, 14:26] = 0
    plain = plain_set(identity, faces.byte())
    landmarks = plain.landmarks.clone()
    landmarks[:, 48:, 1] += torch.arange(float(count))[:, None]
    return FaceSet(identity, plain.face_ids, plain.faces, plain.weights, plain.eyes, landmarks, plain.field)


@pytest.fixture
def sets() -> dict[str, FaceSet]:
    return {"anna": face_set("anna", 200, 40), "bert": face_set("bert", 40, 200)}


def objective(*identities: str, light: bool = False, **changed: Any) -> TransformObjective:
    torch.manual_seed(0)
    model = Transform(identities or ("anna", "bert"), TINY)
    features = random_features(width=0.05)
    return TransformObjective(model, features, LightNet().requires_grad_(False) if light else None, **changed)


def drawn_batch(sets: dict[str, FaceSet], count: int = 3) -> dict[str, Batch]:
    return dict(Feed(sets, TINY.input_px, count, STILL, seed=0).draw())


def test_each_person_has_content_style_light_and_variation(sets: dict[str, FaceSet]) -> None:
    trained = objective(light=True)
    trained.prepare(sets)
    losses = trained.losses("transform", drawn_batch(sets))
    assert set(losses) == {f"{name}/{who}" for name in SHARES for who in ("anna", "bert")}
    assert all(loss > 0 for loss in losses.values())


def test_without_a_light_network_there_is_no_light_loss(sets: dict[str, FaceSet]) -> None:
    trained = objective()
    trained.prepare(sets)
    assert not any("light" in name for name in trained.losses("transform", drawn_batch(sets)))
    assert trained.describe()["light"] is False
    assert "light loss is left out: train.options.light" in trained.remarks[0]
    assert objective(light=True).remarks == ()


def test_a_person_is_drawn_from_faces_of_others_only(sets: dict[str, FaceSet]) -> None:
    """Other faces of anna change what bert's net is asked for, and nothing of anna's own."""
    trained = objective()
    trained.prepare(sets)
    batch = drawn_batch(sets)
    before = trained.losses("transform", batch)
    dark = batch["anna"]
    changed = Batch(dark.warped, dark.target * 0.5, dark.weight, dark.eyes, dark.landmarks)
    after = trained.losses("transform", batch | {"anna": changed})
    assert after["content/anna"] == before["content/anna"]
    assert after["content/bert"] != before["content/bert"]


def test_with_three_people_every_stranger_has_a_turn(sets: dict[str, FaceSet]) -> None:
    sets["cleo"] = face_set("cleo", 90, 90)
    trained = objective("anna", "bert", "cleo")
    trained.prepare(sets)
    batch = drawn_batch(sets)
    seen = []
    for step in range(4):
        trained.begin_step(step, 4)
        seen.append(trained.losses("transform", batch)["content/anna"].item())
    assert seen[0] == seen[2] != seen[1] == seen[3]


def test_a_loss_is_the_mean_of_what_its_halves_have(sets: dict[str, FaceSet]) -> None:
    trained = objective(light=True)
    trained.prepare(sets)
    batch = drawn_batch(sets, 4)
    whole = trained.losses("transform", batch)
    halves = [
        trained.losses("transform", {who: faces.rows(slice(at, at + 2)) for who, faces in batch.items()})
        for at in (0, 2)
    ]
    for name, loss in whole.items():
        assert loss.item() == pytest.approx((halves[0][name].item() + halves[1][name].item()) / 2, rel=1e-4)


def test_style_pictures_are_there_plain_and_mirrored_with_their_landmarks(sets: dict[str, FaceSet]) -> None:
    trained = objective(style_pictures=3)
    trained.prepare(sets)
    styles = trained._styles["anna"]
    assert len(styles.pictures) == len(styles.landmarks) == 6
    assert torch.equal(styles.pictures[3:], styles.pictures[:3].flip(3))
    swapped = styles.landmarks[0][list(MIRRORED)]
    assert torch.allclose(styles.landmarks[3, :, 0], TINY.input_px - 1 - swapped[:, 0], atol=1e-4)
    assert torch.allclose(styles.landmarks[3, :, 1], swapped[:, 1], atol=1e-4)


def test_weights_are_in_the_state_and_in_the_description(sets: dict[str, FaceSet]) -> None:
    trained = objective()
    trained.prepare(sets)
    table = trained.module.state_dict()["loss_weights"]
    described = trained.describe()
    assert table.shape == (2, 3)
    assert (table > 0).all()
    assert described["loss_weights"]["bert"]["style"] == pytest.approx(table[1, 1].item())
    assert "untrained" in described["features"]


def test_a_larger_share_is_a_larger_weight(sets: dict[str, FaceSet]) -> None:
    weights = []
    for share in (1.0, 3.0):
        trained = objective(shares={"content": 1.0, "style": share, "variation": 0.1})
        trained.prepare(sets)
        weights.append(trained.describe()["loss_weights"]["anna"]["style"])
    assert weights[1] == pytest.approx(3 * weights[0], rel=1e-4)


def test_it_learns_to_paint_a_stranger_in_the_persons_colours(sets: dict[str, FaceSet], tmp_path: Path) -> None:
    trained = objective(shares={"content": 1.0, "style": 4.0, "variation": 0.1})
    trained.prepare(sets)
    logged: list[float] = []
    plan = CosinePlan(steps=80, learning_rate=5e-3, log_every=20, warmup_steps=1)
    feed = Feed(sets, TINY.input_px, 4, STILL, seed=0)
    fit(trained, feed, plan, tmp_path, CPU, log=lambda step, losses: logged.append(sum(losses.values())))
    assert logged[-1] < 0.75 * logged[0]
    drawn = trained.model(sets["anna"].view(32), "bert")[:, :, 8:12, 10:22].mean((0, 2, 3))
    assert drawn[1] > drawn[0]


def test_a_training_that_goes_on_ends_like_one_that_was_not_stopped(sets: dict[str, FaceSet], tmp_path: Path) -> None:
    """The second training dies in step 3 with a checkpoint of step 2, and is begun once more."""

    class KilledError(Exception):
        pass

    def run(folder: Path, dies: bool) -> dict[str, torch.Tensor]:
        def log(step: int, losses: Mapping[str, float]) -> None:
            if dies:
                raise KilledError

        trained = objective()
        trained.prepare(sets)
        plan = CosinePlan(steps=4, learning_rate=1e-3, save_every=2, log_every=3)
        fit(trained, Feed(sets, TINY.input_px, 2, STILL, seed=0), plan, folder, CPU, log=log)
        return trained.module.state_dict()

    whole = run(tmp_path / "whole", dies=False)
    with pytest.raises(KilledError):
        run(tmp_path / "parts", dies=True)
    parts = run(tmp_path / "parts", dies=False)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_one_person_alone_cannot_be_learned(sets: dict[str, FaceSet]) -> None:
    with pytest.raises(FacemillError, match="from faces of others"):
        objective("anna").prepare({"anna": sets["anna"]})


def test_a_person_without_faces_is_named(sets: dict[str, FaceSet]) -> None:
    with pytest.raises(FacemillError, match="'bert' has no training face"):
        objective().prepare({"anna": sets["anna"]})


def test_losses_before_prepare_say_so(sets: dict[str, FaceSet]) -> None:
    with pytest.raises(FacemillError, match="was not prepared"):
        objective().losses("transform", drawn_batch(sets))


def test_without_feature_weights_training_refuses_and_names_the_remedies() -> None:
    with pytest.raises(FacemillError, match=r"features to `dlib`.*vgg19.*download.*autoencoder:FOLDER.*random"):
        build_objective("transform", Transform(["anna", "bert"], TINY), features=None)


def test_dlibs_network_serves_as_feature_network_and_wants_more_style() -> None:
    objective = build_objective("transform", Transform(["anna", "bert"], TINY))
    assert isinstance(objective, TransformObjective)
    assert objective.describe()["features"] == "dlib's face recognition network"
    assert objective.describe()["shares"]["style"] == 5.0
    picture = torch.rand(2, 3, 64, 64, requires_grad=True)
    features = build_features("dlib")
    found = features.layers(picture)
    sides = [tuple(found[name].shape[1:]) for name in (*features.style, features.content)]
    assert sides == [(32, 35, 35), (32, 35, 35), (64, 17, 17), (128, 8, 8), (256, 4, 4), (64, 17, 17)]
    found[features.content].sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().max() > 0


def test_a_missing_file_of_vgg19_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"vgg19.safetensors cannot be read"):
        build_objective("transform", Transform(["a", "b"], TINY), features=str(tmp_path / "vgg19.safetensors"))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("style_share", -1.0, "style_share is -1"),
        ("light_share", float("nan"), "light_share is nan"),
        ("style_pictures", 0, "at least one"),
        ("light", "nowhere.safetensors", "facemill.light_training FOLDER"),
    ],
)
def test_options_that_make_no_sense_are_refused(option: str, value: Any, says: str) -> None:
    with pytest.raises(FacemillError, match=says):
        build_objective("transform", Transform(["a", "b"], TINY), features="random", **{option: value})


def test_random_features_are_the_same_each_time_and_keep_their_scale() -> None:
    picture = torch.rand(1, 3, 64, 64)
    first, second = (random_features().layers(picture) for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [tuple(first[name].shape[2:]) for name in ("relu3_1", "relu4_1", "relu4_2")] == [(16, 16), (8, 8), (8, 8)]
    assert first["relu4_2"].std() > 0.05


def test_a_trained_autoencoder_serves_as_feature_network(tmp_path: Path) -> None:
    config = AutoencoderConfig(
        encoder_channels=(4, 8, 8, 8), bottleneck=8, unfold_channels=4, code_channels=4, decoder_channels=(4, 4, 4)
    )
    meta = {"name": "autoencoder", "preset": "small", "identities": ["anna", "bert"], "references": {}}
    meta |= {"input_px": 64, "crop_px": 256, "crop_coverage": 1.6, "train_coverage": 1.2, "landmarks": "dlib"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("facemill.nets.autoencoder", fromlist=["PRESETS"]).PRESETS, "small", config)
        save_model(tmp_path / "model", Autoencoder(["anna", "bert"], config), meta)
        features = build_features(f"autoencoder:{tmp_path / 'model'}")
    found = features.layers(torch.rand(2, 3, 128, 128))
    assert [tuple(found[name].shape[1:]) for name in (*features.style, features.content)] == [
        (4, 32, 32),
        (8, 16, 16),
        (8, 8, 8),
    ]


def test_features_of_another_model_are_refused(tmp_path: Path) -> None:
    meta = {"name": "transform", "preset": "small", "identities": ["anna"], "references": {}}
    meta |= {"input_px": 64, "crop_px": 256, "crop_coverage": 1.6, "train_coverage": 1.2, "landmarks": "dlib"}
    from facemill.nets.transform import PRESETS

    save_model(tmp_path / "model", Transform(["anna"], PRESETS["small"]), meta)
    with pytest.raises(FacemillError, match="features want a trained autoencoder"):
        encoder_features(tmp_path / "model")


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    with pytest.raises(FacemillError, match="it is not VGG19"):
        build_features(str(tmp_path / "vgg.safetensors"))
