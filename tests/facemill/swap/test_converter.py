"""A whole video through a net that gives back what it gets: what differs then is the converter's doing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import make_clip, packets, times
from known_nets import OnlyCollins, Paint, PassThrough, Stumbles, model_folder
from runs import Run

from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256
from facemill.reasons import Reason
from facemill.sources.sample.videos import Scene, write_sample_video
from facemill.swap.one_video import convert_video
from facemill.swap.painter import FacePainter, FacesOfFrame, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper, check_becomes, load_swapper
from facemill.track.models import FaceModels
from facemill.video import probe, read_frames
from facemill.video.frame import planes


def test_the_identity_model_gives_back_the_same_video(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    receipt = run(people, tmp_path / "out.mp4", swapper, settings)
    assert (receipt.frames_in, receipt.frames_out, receipt.frames_swapped, receipt.frames_passed) == (20, 20, 15, 5)
    assert times(tmp_path / "out.mp4") == times(people)
    assert packets(tmp_path / "out.mp4", "audio") == packets(people, "audio")
    errors = [
        np.abs(before.rgb.astype(int) - after.rgb).mean()
        for before, after in zip(read_frames(people), read_frames(tmp_path / "out.mp4"), strict=True)
    ]
    assert max(errors) < 0.5


def test_only_the_wanted_face_changes_and_all_other_samples_are_identical(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    run(people, tmp_path / "out.mp4", replace(swapper, model=Paint()), settings)
    for index, (before, after) in enumerate(zip(read_frames(people), read_frames(tmp_path / "out.mp4"), strict=True)):
        changed = planes(before.picture)[0] != planes(after.picture)[0]
        assert not changed[:, 280:].any()  # Collins
        ys, xs = np.nonzero(changed)
        if index in range(10, 15):
            assert len(xs) == 0
        else:
            assert (ys.min() > 50, ys.max() < 270, 0.05 < changed.mean() < 0.3) == (True, True, True)
            green = after.rgb[int(np.median(ys)), int(np.median(xs))].astype(int)
            assert np.abs(green - [25, 204, 25]).max() < 12


def test_frames_that_fail_pass_through_and_are_counted(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    receipt = run(people, tmp_path / "out.mp4", replace(swapper, model=Stumbles()), settings)
    assert receipt.failures == {"RuntimeError": 1, "not_finite": 1}
    assert (receipt.frames_swapped, receipt.frames_passed, receipt.frames_failed) == (13, 5, 2)
    assert receipt.frames_in == receipt.frames_out == 20


def test_too_many_failed_frames_fail_the_video_and_leave_nothing(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    strict = replace(settings, frame_failure_limit=0.05)
    with pytest.raises(InputError, match="2 of 20 frames failed") as caught:
        run(people, tmp_path / "out.mp4", replace(swapper, model=Stumbles()), strict)
    assert caught.value.reason == Reason.CONVERSION_FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_cut_video_fails_unless_that_is_accepted(
    scene: list[np.ndarray], tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    whole = make_clip(tmp_path / "whole.mp4", frames=scene[:10], options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    with pytest.raises(InputError) as caught:
        run(cut, tmp_path / "out.mp4", swapper, settings)
    assert caught.value.reason == Reason.VIDEO_TRUNCATED
    receipt = run(cut, tmp_path / "out.mp4", swapper, replace(settings, accept_cut=True))
    assert 0 < receipt.frames_out < 10
    assert "cut short" in receipt.warnings[0]


def test_the_receipt_names_what_was_used(
    scene: list[np.ndarray], tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    video = make_clip(tmp_path / "in.mp4", frames=scene[:3])
    receipt = run(video, tmp_path / "out.mp4", swapper, settings)
    assert receipt.input_sha256 == file_sha256(video)
    assert receipt.output_sha256 == file_sha256(tmp_path / "out.mp4")
    assert (receipt.model_sha256, receipt.dataset) == ("m" * 64, "d" * 64)
    assert (receipt.becomes, receipt.swapped) == ({"hopper": "collins"}, {"hopper": 3})


@pytest.mark.parametrize(("colour", "blend"), [("reinhard", "feather"), ("linear", "poisson")])
def test_a_model_folder_converts_with_every_finish(
    scene: list[np.ndarray], references: np.ndarray, tmp_path: Path, colour: str, blend: str
) -> None:
    video = make_clip(tmp_path / "in.mp4", frames=scene[:2])
    model_folder(tmp_path / "model", {"hopper": references})
    settings = SwapSettings(colour=colour, blend=blend)
    receipt = convert_video(video, tmp_path / "out.mp4", tmp_path / "model", {"hopper": "collins"}, settings)
    assert receipt.frames_swapped == 2


def test_an_identity_without_references_or_unknown_to_the_model_is_named(
    references: np.ndarray, tmp_path: Path
) -> None:
    model_folder(tmp_path / "model", {"hopper": references})
    with pytest.raises(FacemillError, match="does not know 'nobody'"):
        load_swapper(tmp_path / "model", {"nobody": "collins"})
    with pytest.raises(FacemillError, match="no references of 'collins'"):
        check_becomes(tmp_path / "model", {"collins": "hopper"})


def test_two_people_become_each_other_in_one_pass(
    tmp_path: Path, both_swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    """By the generator's truth: each face is in the colour of who it becomes, every frame is counted once, and what
    lies away from both faces is as it was."""
    truth = write_sample_video(tmp_path / "both.mp4", Scene(people=("collins", "hopper")), seconds=0.8, seed=3)
    receipt = run(tmp_path / "both.mp4", tmp_path / "out.mp4", both_swapper, settings)
    assert (receipt.frames_in, receipt.frames_swapped, receipt.frames_passed, receipt.frames_failed) == (20, 20, 0, 0)
    assert receipt.swapped == {"hopper": 20, "collins": 20}
    colours = {"hopper": (25, 204, 25), "collins": (25, 25, 204)}
    pairs = zip(read_frames(tmp_path / "both.mp4"), read_frames(tmp_path / "out.mp4"), strict=True)
    for index, (before, after) in enumerate(pairs):
        changed = planes(before.picture)[0] != planes(after.picture)[0]
        for name, colour in colours.items():
            points = truth.landmarks[name][index]
            assert points is not None
            x, y = points[30].astype(int)  # the tip of the nose
            assert np.abs(after.rgb[y, x].astype(int) - colour).max() < 20
            reach = 0.5 * np.ptp(points, axis=0)
            (x0, y0), (x1, y1) = points.min(axis=0) - reach, points.max(axis=0) + reach
            changed[max(0, int(y0)) : int(y1), max(0, int(x0)) : int(x1)] = False
        assert not changed.any()


def test_a_face_that_fails_does_not_cost_the_other_one_and_is_counted(
    people: Path, tmp_path: Path, both_swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    half = replace(both_swapper, model=OnlyCollins())
    receipt = run(people, tmp_path / "out.mp4", half, replace(settings, frame_failure_limit=1.0))
    assert (receipt.frames_swapped, receipt.frames_passed, receipt.frames_failed) == (15, 5, 0)
    assert receipt.swapped == {"hopper": 15, "collins": 0}
    assert receipt.failures == {"RuntimeError": 15}
    with pytest.raises(InputError, match="15 of 20 frames failed"):
        run(people, tmp_path / "again.mp4", half, settings)


def test_faces_that_overlap_leave_no_hole_in_each_other(
    people: Path, tools: FaceModels, both_swapper: Swapper, settings: SwapSettings
) -> None:
    """Both masks meet: where the second is soft, the first one shows through and not the old face."""
    frame = next(read_frames(people))
    landmarks = tools.landmarks(frame.rgb, tools.search(frame.rgb, 60))
    [hoppers] = [points for points in landmarks if points[:, 0].mean() < 240]
    nearer = hoppers + np.array([0.6 * np.ptp(hoppers[:, 0]), 0], np.float32)
    faces = (WantedFace("hopper", hoppers), WantedFace("collins", nearer))
    [painted] = FacePainter(both_swapper, settings).paint([FacesOfFrame(frame, faces)])
    assert painted.swapped == ("hopper", "collins")
    x0, x1 = (int(points[30, 0]) for points in (hoppers, nearer))
    row = frame.rgb[int(hoppers[30, 1]), x0:x1].astype(int)
    assert row[:, 0].max() < 60  # both colours have red 25; skin has 150 and more


def test_every_face_of_the_person_is_replaced_the_one_in_the_mirror_too(
    hopper: np.ndarray, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    """One that is left as it was would say whose face the others were."""
    face = cv2.resize(hopper[20:420, 60:460], (240, 240), interpolation=cv2.INTER_AREA)
    frame = np.full((320, 520, 3), (70, 90, 110), np.uint8)
    frame[40:280, 10:250], frame[40:280, 270:510] = face, face[:, ::-1]
    video = make_clip(tmp_path / "mirror.mp4", frames=[frame] * 4)
    receipt = run(video, tmp_path / "out.mp4", replace(swapper, model=Paint()), settings)
    assert receipt.swapped == {"hopper": 4}
    for before, after in zip(read_frames(video), read_frames(tmp_path / "out.mp4"), strict=True):
        changed = planes(before.picture)[0] != planes(after.picture)[0]
        assert changed[:, :250].mean() == pytest.approx(changed[:, 270:].mean(), rel=0.2)
        assert changed[:, :250].mean() > 0.1


class Sees(PassThrough):
    """Remembers how bright the faces were that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.brightest: list[float] = []

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        self.brightest += face.flatten(1).amax(dim=1).tolist()
        return face


def test_a_net_never_sees_a_black_face_and_a_dim_one_stays_dim(
    scene: list[np.ndarray], tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    """A fade to black and back, through which the tracks go on: nets make monsters of what nobody can see."""
    light = [1.0, 1.0, 0.4, 0.15, 0.03, 0.03, 0.15, 0.4, 1.0, 1.0]
    frames = [(scene[0] * level).astype(np.uint8) for level in light]
    video, net = make_clip(tmp_path / "fade.mp4", frames=frames), Sees()
    receipt = run(video, tmp_path / "out.mp4", replace(swapper, model=net), settings)
    assert (receipt.frames_failed, receipt.frames_out) == (0, 10)
    assert min(net.brightest) > 0.3
    for level, before, after in zip(light, read_frames(video), read_frames(tmp_path / "out.mp4"), strict=True):
        assert np.abs(before.rgb.astype(int) - after.rgb).mean() < 0.5
        if level < 0.1:
            np.testing.assert_array_equal(planes(before.picture)[0], planes(after.picture)[0])


@pytest.mark.parametrize("ratio", [Fraction(2), Fraction(1, 2), Fraction(4, 3)])
def test_a_face_is_found_in_square_pixels_and_painted_in_those_that_are_stored(
    scene: list[np.ndarray],
    tmp_path: Path,
    swapper: Swapper,
    settings: SwapSettings,
    run: Run,
    ratio: Fraction,
) -> None:
    """Half as wide or half as high as it is shown: as such the detector would not know it."""
    size = (int(480 / ratio) // 2 * 2, 320) if ratio > 1 else (480, int(320 * ratio))
    stored = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in scene[:4]]
    video = make_clip(tmp_path / "in.mp4", frames=stored, tags={"sample_aspect_ratio": ratio})  # type: ignore[dict-item]
    receipt = run(video, tmp_path / "out.mp4", replace(swapper, model=Paint()), settings)
    assert receipt.frames_swapped == 4
    before, after = next(read_frames(video)), next(read_frames(tmp_path / "out.mp4"))
    assert probe(tmp_path / "out.mp4").sample_aspect_ratio == ratio
    ys, xs = np.nonzero(planes(before.picture)[0] != planes(after.picture)[0])
    assert xs.max() < size[0] * 0.58  # Collins is as she was
    assert 0.7 < np.ptp(xs) * float(ratio) / np.ptp(ys) < 1.3  # as round on the screen as a face is


def test_frames_that_were_passed_between_swapped_ones_are_named(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    receipt = run(people, tmp_path / "out.mp4", swapper, settings)
    assert receipt.warnings == ("5 frames between swapped ones are as they were, from 0.40 s",)
