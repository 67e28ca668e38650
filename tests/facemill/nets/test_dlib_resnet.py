"""dlib's face recognition network in torch: the same numbers, and gradients."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from facemill.detect import build_detector
from facemill.dlib_models import dlib_model_path
from facemill.errors import FacemillError
from facemill.identity import face_chips
from facemill.landmarks.dlib import DlibPredictor
from facemill.nets.dlib_resnet import FILE, DlibResNet, load_dlib_resnet


@pytest.fixture(scope="module")
def network() -> DlibResNet:
    return load_dlib_resnet()


@pytest.fixture(scope="module")
def chips(hopper: np.ndarray, collins: np.ndarray) -> list[np.ndarray]:
    found = []
    for picture in (hopper, collins, hopper[:, ::-1].copy()):
        boxes = build_detector("hog", min_face_px=60).detect([picture])[0].boxes_xyxy[:1]
        found += face_chips(picture, DlibPredictor().predict(picture, boxes))
    return found


def as_tensor(chips: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(chips)).permute(0, 3, 1, 2).float() / 255


def test_real_faces_get_dlibs_numbers(network: DlibResNet, chips: list[np.ndarray]) -> None:
    theirs = dlib.face_recognition_model_v1(str(dlib_model_path(FILE))).compute_face_descriptor(chips)
    with torch.inference_mode():
        ours = network(as_tensor(chips)).numpy()
    np.testing.assert_allclose(ours, np.array(theirs), atol=1e-5)


def test_it_is_the_network_of_dlibs_paper(network: DlibResNet) -> None:
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 29
    assert {name: tuple(found.shape[1:]) for name, found in network.maps(torch.zeros(1, 3, 150, 150))} == {
        "stem": (32, 35, 35),
        "group1": (32, 35, 35),
        "group2": (64, 17, 17),
        "group3": (128, 8, 8),
        "group4": (256, 4, 4),
        "group5": (256, 2, 2),
    }


def test_a_step_against_the_gradient_brings_a_face_nearer(network: DlibResNet, chips: list[np.ndarray]) -> None:
    pictures = as_tensor(chips[:2])
    start, wanted = pictures[:1].clone().requires_grad_(), network(pictures[1:])
    far = (network(start) - wanted).square().sum()
    far.backward()
    assert start.grad is not None
    moved = start.detach() - 0.002 * start.grad.sign()
    assert (network(moved) - wanted).square().sum() < 0.9 * far
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_refused_by_name(share: float, tmp_path: Path) -> None:
    data = dlib_model_path(FILE).read_bytes()
    broken = tmp_path / "broken.dat"
    broken.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FacemillError, match=r"broken\.dat is not dlib's face recognition network"):
        load_dlib_resnet(broken)


def test_another_network_and_no_file_are_refused(tmp_path: Path) -> None:
    other = dlib_model_path("mmod_human_face_detector.dat")
    with pytest.raises(FacemillError, match="is not dlib's face recognition network"):
        load_dlib_resnet(other)
    with pytest.raises(FacemillError, match="cannot be read"):
        load_dlib_resnet(tmp_path / "none.dat")
