"""Training DSFD: it learns, ends with the same bits after a kill, and goes back when a loss is not finite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facemill.detect import build_detector
from facemill.detect.dsfd import DsfdDetector, load_detector
from facemill.detector_training.__main__ import main
from facemill.detector_training.annotations import read_annotations, split
from facemill.detector_training.augment import PLAIN
from facemill.detector_training.data import DetectionBatch, DetectionFeed
from facemill.detector_training.engine import DetectionObjective, level_weights
from facemill.detector_training.evaluate import evaluate
from facemill.detector_training.run import MeasureLog, train_detector
from facemill.detector_training.settings import DetectorTraining, Sampling, StaircasePlan
from facemill.device import DeviceSettings
from facemill.errors import FacemillError
from facemill.nets.dsfd import Dsfd, DsfdConfig
from facemill.pictures import encode_png
from facemill.sources.sample import Pose, render
from facemill.train.engine import StopReason, fit

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = DeviceSettings(torch.device("cpu"), None, torch.channels_last)
TINY = DetectorTraining(
    steps=4,
    batch=2,
    input_px=64,
    width=0.02,
    learning_rate=1e-3,
    warmup_steps=1,
    evaluate_every=100,
    evaluate_pictures=1,
    save_every=2,
    log_every=1,
    workers=0,
    device="cpu",
)
FACES = 8


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small pictures of the sample portraits in a WIDER FACE folder; the box is that of the true landmarks."""
    folder = tmp_path_factory.mktemp("portraits")
    lines = []
    for at in range(2, 2 + FACES):  # 8 and 9 are held out
        picture, points = render(("hopper", "collins")[at % 2], Pose(mouth_open=0.1 * at))
        small = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
        points = points * 128 / len(picture)
        left, top = points.min(axis=0)
        width, height = np.ptp(points, axis=0)
        shift = np.float32([[1, 0, 4 * at - 16], [0, 1, 3 * at - 12]])
        path = folder / "images" / "e" / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(cv2.warpAffine(small, shift, (128, 128), borderMode=cv2.BORDER_REFLECT)))
        box = [left + 4 * at - 16, top + 3 * at - 12, width, height]
        lines.append(f"e/{at}.png\n1\n" + " ".join(f"{v:.1f}" for v in box) + " 0 0 0 0 0 0\n")
    (folder / "wider_face_bbx_gt.txt").write_text("".join(lines))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_detector(folder / "detector").state_dict()


def test_loss_falls_and_average_precision_rises_on_eight_pictures(portraits: Path, tmp_path: Path) -> None:
    entries = read_annotations(portraits)
    torch.manual_seed(0)
    model = Dsfd(DsfdConfig(width=0.06)).to(memory_format=torch.channels_last)
    feed = DetectionFeed(entries, 128, 4, replace(PLAIN, flip=0.5))
    level_weights(model, feed.draw().pictures)
    losses: list[float] = []

    def precision() -> float:
        return evaluate(DsfdDetector(model, threshold=0.01), entries).numbers["ap"]

    before = precision()
    plan = StaircasePlan(steps=80, learning_rate=0.01, warmup_steps=10, log_every=10, clip_norm=10)
    fit(
        DetectionObjective(model, from_scratch=True),
        feed,
        plan,
        tmp_path,
        CPU,
        log=lambda _, x: losses.append(sum(x.values())),
    )
    assert losses[-1] < 0.5 * losses[0]
    assert before < 0.2
    assert precision() > 0.8


def test_a_killed_training_ends_with_the_same_weights_and_curve(
    portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_detector(portraits, tmp_path / "whole", TINY, tell=lambda _: None)
    drawn = DetectionFeed.draw
    calls = []

    def die(self: DetectionFeed) -> DetectionBatch:
        calls.append(1)
        if (
            len(calls) == 5
        ):  # one draw levels the weights: killed in the fourth step, after the checkpoint of the second
            raise KeyboardInterrupt
        return drawn(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionFeed, "draw", die)
        with pytest.raises(KeyboardInterrupt):
            train_detector(portraits, tmp_path / "cut", TINY, tell=lambda _: None)
    again = train_detector(portraits, tmp_path / "cut", TINY, tell=lambda _: None)
    assert (whole.outcome.resumed_from, again.outcome.resumed_from) == (0, 2)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [
        [(row["step"], row["loss"]) for row in MeasureLog(tmp_path / name / "curve.jsonl", 99).rows if "loss" in row]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == [1, 2, 3, 4]


def test_the_trained_folder_is_a_detector_with_its_numbers(portraits: Path, tmp_path: Path) -> None:
    trained = train_detector(portraits, tmp_path / "out", TINY, tell=lambda _: None)
    assert trained.outcome.reason is StopReason.STEPS
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert stored["steps"] == 4
    assert {"ap", "recall", "easy", "medium", "hard"} <= set(stored["after"])
    detector = build_detector("dsfd", min_face_px=16, weights=tmp_path / "out" / "detector", threshold=0.01)
    assert len(detector.detect([np.zeros((64, 64, 3), np.uint8)])) == 1


def test_other_settings_in_the_same_folder_are_refused_but_another_device_or_deadline_is_not(
    portraits: Path, tmp_path: Path
) -> None:
    train_detector(portraits, tmp_path, TINY, tell=lambda _: None)
    again = train_detector(portraits, tmp_path, replace(TINY, deadline_s=60, save_every=1), tell=lambda _: None)
    assert again.outcome.resumed_from == 4
    with pytest.raises(FacemillError, match=r"other settings \(batch was 2 and is 3\)"):
        train_detector(portraits, tmp_path, replace(TINY, batch=3), tell=lambda _: None)


def test_a_loss_that_is_not_finite_goes_back_at_half_the_rate(portraits: Path, tmp_path: Path) -> None:
    entries = read_annotations(portraits)

    class Poisoned(DetectionFeed):
        bad = 1

        def draw(self) -> DetectionBatch:
            batch = super().draw()
            if self.place == 6 and self.bad:
                self.bad -= 1
                return DetectionBatch(batch.pictures, tuple(t * torch.nan for t in batch.targets), batch.names)
            return batch

    class Watched(DetectionObjective):
        def losses(self, turn: str, batch: DetectionBatch) -> dict[str, torch.Tensor]:
            return {"nan": torch.stack([t.sum() for t in batch.targets]).sum() * 0, **super().losses(turn, batch)}

    plan = StaircasePlan(steps=4, learning_rate=1e-3, warmup_steps=1, schedule=((0, 1.0),), save_every=2, rollbacks=1)
    model = Dsfd(DsfdConfig(width=0.02))
    feed = Poisoned(entries, 64, 2, Sampling())
    outcome = fit(Watched(model), feed, plan, tmp_path / "once", CPU)
    assert (outcome.step, outcome.rollbacks) == (4, 1)
    stubborn = Poisoned(entries, 64, 2, Sampling())
    stubborn.bad = 2
    with pytest.raises(FacemillError, match=r"step 3: nan = nan.*\d\.png"):
        fit(Watched(model), stubborn, plan, tmp_path / "twice", CPU)


def test_levelled_weights_answer_with_the_stated_deviation_and_gentle_gradients(portraits: Path) -> None:
    batch = DetectionFeed(read_annotations(portraits), 128, 4, Sampling()).draw()
    torch.manual_seed(0)
    model = Dsfd(DsfdConfig(width=0.06))
    wild = gradient_norm(model, batch)
    level_weights(model, batch.pictures)
    answers: list[float] = []
    conv = model.enhance.lateral[2]
    handle = conv.register_forward_hook(lambda _, __, out: answers.append(float(out.detach().std())))
    tame = gradient_norm(model, batch)
    handle.remove()
    assert answers == [pytest.approx(1.0, rel=1e-3)]
    assert tame < 1e3 < wild


def gradient_norm(model: Dsfd, batch: DetectionBatch) -> float:
    model.train().zero_grad()
    torch.stack(list(DetectionObjective(model).losses("detector", batch).values())).sum().backward()
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def test_the_rate_warms_up_and_falls_in_the_papers_steps() -> None:
    plan = StaircasePlan(steps=60_000, learning_rate=1e-3, warmup_steps=100)
    rates = [plan.rate(step) for step in (0, 99, 39_999, 40_000, 49_999, 50_000, 59_999)]
    assert rates == pytest.approx([1e-5, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_pictures_that_are_held_out_are_never_trained_on(portraits: Path, tmp_path: Path) -> None:
    seen: set[str] = set()
    drawn = DetectionFeed.draw

    def watch(self: DetectionFeed) -> DetectionBatch:
        batch = drawn(self)
        seen.update(batch.names)
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionFeed, "draw", watch)
        train_detector(portraits, tmp_path, replace(TINY, steps=8), tell=lambda _: None)
    trained, held_out = split(read_annotations(portraits))
    assert seen == {each.path.name for each in trained}
    assert held_out


def test_the_bare_command_trains_and_tells_errors_in_a_line(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--output", str(tmp_path / "o"), "--steps", "1", "--batch", "2", "--input-px", "64", "--width", "0.02"]
    quick = [*common, "--evaluate-pictures", "1", "--workers", "0", "--device", "cpu"]
    assert main([str(portraits), *quick, "--schedule", "0:1,0.5:0.1", "--sampling", "anchor=0.2,flip=0"]) == 0
    assert (tmp_path / "o" / "detector" / "model.json").is_file()
    assert main([str(portraits), *quick, "--sampling", "flop=1"]) == 1
    assert "--sampling must be NAME=VALUE,… with anchor, " in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), *quick]) == 1
    assert DetectorTraining().sampling.anchor == pytest.approx(2 / 5)
