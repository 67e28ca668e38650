"""The light network learns where light comes from, on spheres whose light is known."""

from __future__ import annotations

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.light_training.train import Interrupted, LightPlan, contrastive, main, train_light
from facemill.light_training.yale import LightSet, pixels, read_yale, score, split_people
from facemill.nets.light import INPUT_PX, LightNet, light_features, load_light_net, luminance, resized

pytestmark = pytest.mark.usefixtures("one_thread")

LIGHTS = [(-60, 0), (-30, 30), (0, 0), (30, 30), (60, 0)]


def sphere(azimuth_deg: float, elevation_deg: float, paint: torch.Tensor, side_px: int = INPUT_PX) -> torch.Tensor:
    """(1, P, P): a matte (Lambertian) ball, painted with `paint`, under one distant light."""
    ticks = torch.linspace(-1.2, 1.2, side_px)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    z = (1 - x**2 - y**2).clamp_min(0).sqrt()
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    light = (np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    shading = (x * light[0] + y * light[1] + z * light[2]).clamp_min(0) * (z > 0)
    return (paint * (0.1 + 0.9 * shading))[None]


def spheres(balls: int, seed: int) -> LightSet:
    """Painted balls, each under all lights: the paint is a ball's identity."""
    generator = torch.Generator().manual_seed(seed)
    pictures, people, lights = [], [], []
    for ball in range(balls):
        spots = torch.rand(1, 1, 6, 6, generator=generator)
        paint = 0.4 + 0.6 * functional.interpolate(spots, (INPUT_PX, INPUT_PX), mode="bicubic")[0, 0]
        for light in LIGHTS:
            pictures.append(sphere(*light, paint.clamp(0, 1)))
            people.append(f"ball{seed}-{ball}")
            lights.append(light)
    return LightSet(torch.stack(pictures), tuple(people), ("P00",) * len(people), torch.tensor(lights))


def test_the_network_has_the_stated_number_of_parameters_and_features_of_length_1() -> None:
    net = LightNet()
    assert sum(p.numel() for p in net.parameters()) == 93_280
    assert torch.allclose(net(torch.rand(3, 1, 64, 64)).norm(dim=1), torch.ones(3))


def test_luminance_is_of_the_middle_and_weighs_green_most() -> None:
    face = torch.zeros(1, 3, 100, 100)
    face[:, :, :10], face[:, :, 90:], face[:, :, :, :10], face[:, :, :, 90:] = 1, 1, 1, 1  # a white rim is not seen
    face[:, 1, 10:90, 10:90] = 1.0
    assert torch.allclose(luminance(face), torch.full((1, 1, 64, 64), 0.587), atol=1e-5)


def test_resizing_averages_where_it_shrinks_and_keeps_flat_and_equal_pictures() -> None:
    """Like torch's antialiased bilinear; 4 to 2 px by weights 3, 3, 1 of 7."""
    ramp = torch.tensor([[[[0.0, 8.0, 16.0, 24.0]]]]).expand(1, 1, 4, 4)
    assert torch.allclose(resized(ramp, 2)[0, 0, 0], torch.tensor([40 / 7, 24 - 40 / 7]))
    picture = torch.rand(1, 3, 20, 30)
    for side_px in (7, 30, 64):
        reference = functional.interpolate(picture, (side_px, side_px), mode="bilinear", antialias=True)
        assert torch.allclose(resized(picture, side_px), reference, atol=1e-5)


def test_gradients_of_light_reach_the_picture() -> None:
    face = torch.rand(2, 3, 96, 96, requires_grad=True)
    light_features(LightNet(), face)[:, 0].sum().backward()
    assert face.grad is not None
    assert face.grad[:, :, 48, 48].abs().sum() > 0


def test_contrastive_pulls_equal_light_together_and_others_apart() -> None:
    """Distances: same 0.6, others 0.8 and 1.4 with margin 1, so 0.36 and the mean of 0.04 and 0."""
    features = torch.tensor([[0.0], [0.6], [1.4]])
    lights = torch.tensor([[0, 0], [0, 0], [30, 0]])
    assert contrastive(features, lights, 1.0).item() == pytest.approx(0.36 + 0.02, abs=1e-4)


def test_scores_of_features_that_are_the_light_are_perfect_and_of_constant_ones_are_chance() -> None:
    data = spheres(3, seed=0)
    perfect = score(data.lights.float() / 30, data)
    assert (perfect.verification, perfect.retrieval, perfect.angle_deg, perfect.lights) == (1, 1, 0, 5)
    blind = score(torch.zeros(len(data), 2), data)
    assert blind.verification == 0.5
    assert blind.retrieval == pytest.approx(1 / 5)


def test_the_network_learns_light_on_balls_it_has_never_seen() -> None:
    known, unknown = spheres(6, seed=1), spheres(4, seed=2)
    plan = LightPlan(steps=40, people=4, lights=5, learning_rate=3e-3, log_every=1)
    losses: list[float] = []
    net = train_light(known, plan, log=lambda step, loss: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    learned = score(net(known.pictures), known)
    found = score(net(unknown.pictures), unknown, learned.threshold)
    assert found.verification > 0.9
    assert found.retrieval > 0.9


def test_equal_plans_give_equal_weights() -> None:
    data, plan = spheres(2, seed=3), LightPlan(steps=2, people=2, lights=3)
    first, second = train_light(data, plan).state_dict(), train_light(data, plan).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_that_is_told_to_end_gives_no_network() -> None:
    seen: list[int] = []

    def log(step: int, loss: float) -> None:
        seen.append(step)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train_light(spheres(2, seed=3), LightPlan(steps=50, people=2, lights=3, log_every=2), log=log)
    assert seen == [2]


def test_one_person_gives_no_pairs() -> None:
    with pytest.raises(FacemillError, match="two people at least"):
        train_light(spheres(1, seed=0), LightPlan(steps=1))


def test_people_are_split_and_never_shared() -> None:
    known, unknown = split_people(spheres(5, seed=0), 2)
    assert set(known.people).isdisjoint(unknown.people)
    assert len(set(unknown.people)) == 2
    with pytest.raises(FacemillError, match="4 of 5 people cannot be held out"):
        split_people(spheres(5, seed=0), 4)


def yale_folder(folder: Path) -> Path:
    """Four balls as a folder like CroppedYale."""
    data = spheres(4, seed=4)
    for picture, person, (azimuth, elevation) in zip(data.pictures, data.people, data.lights.tolist(), strict=True):
        name = f"yaleB0{person[-1]}"
        (folder / name).mkdir(exist_ok=True)
        pixels_u8 = (picture[0].numpy() * 255).astype(np.uint8)
        cv2.imwrite(
            str(folder / name / f"{name}_P00A{azimuth:+04d}E{elevation:+03d}.pgm"), cv2.resize(pixels_u8, (168, 192))
        )
    return folder


def test_the_command_trains_scores_and_writes_weights_with_their_terms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "weights" / "light.safetensors"
    assert main([str(yale_folder(tmp_path)), "--output", str(output), "--steps", "2", "--held-out", "2"]) == 0
    said = capsys.readouterr().out
    assert "10 pictures of 2 people to learn from, 10 of 2 held out" in said
    assert "light network, held-out people: verification" in said
    with safe_open(output, "pt") as file:
        assert "research" in file.metadata()["terms"]
    assert output.stat().st_size < 200_000
    assert not any(p.requires_grad for p in load_light_net(output).parameters())


def test_a_folder_without_pictures_and_a_broken_one_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--output", str(tmp_path / "x")]) == 1
    assert "no picture named like yaleB01" in capsys.readouterr().err
    (tmp_path / "yaleB01_P00A+000E+00.pgm").write_bytes(b"")
    with pytest.raises(FacemillError, match=r"yaleB01_P00A\+000E\+00.pgm is not a picture of 168×192"):
        read_yale(tmp_path)


def test_missing_weights_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"python -m facemill.light_training FOLDER --output"):
        load_light_net(tmp_path / "light.safetensors")


def test_extended_yale_b_is_read_whole(shared: Path) -> None:
    data = read_yale(shared / "data" / "yaleb")
    assert (len(data), len(set(data.people)), len({tuple(light) for light in data.lights.tolist()})) == (988, 38, 27)
    assert score(pixels(data.pictures[:130]), data.of(sorted(set(data.people))[:5])).retrieval > 0.2
