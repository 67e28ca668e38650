"""Pairs of real frames measured: whose face it is, what moved, what trembles, what was left alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from facemill.detect import build_detector
from facemill.identity import Embedder
from facemill.landmarks.dlib import DlibPredictor
from facemill.similarity import PSNR_CAP_DB
from facemill.swap_meter import (
    NO_OUTPUT_FACE,
    NO_REPLACED_FACE,
    MeasuredFrame,
    PairMeasures,
    SwapMeter,
    changed_frames,
    mask_region,
    measure_video,
    summarize,
)
from facemill.video import Frame

GREY = np.full((240, 320, 3), 90, np.uint8)


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    """H.264 at the quality of conversions, 25 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def frame(picture: np.ndarray) -> Frame:
    return Frame.from_rgb(picture, 0, Fraction(1, 25), pix_fmt="yuv444p")


@pytest.fixture(scope="module")
def portrait(hopper: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hopper[20:420, 60:460])


@pytest.fixture(scope="module")
def references(portrait: np.ndarray, collins: np.ndarray) -> dict[str, np.ndarray]:
    detector = build_detector("hog", min_face_px=80)
    points = [DlibPredictor().predict(one, detector.detect([one])[0].boxes_xyxy[:1]) for one in (portrait, collins)]
    embeddings = [Embedder().embed(one, at) for one, at in zip((portrait, collins), points, strict=True)]
    return dict(zip(("hopper", "collins"), embeddings, strict=True))


@pytest.fixture(scope="module")
def meter(references: dict[str, np.ndarray]) -> SwapMeter:
    return SwapMeter(
        build_detector("hog", min_face_px=80), DlibPredictor(), {"hopper": "collins"}, references, coverage=1.1
    )


@pytest.fixture(scope="module")
def both(references: dict[str, np.ndarray]) -> SwapMeter:
    pairs = {"hopper": "collins", "collins": "hopper"}
    return SwapMeter(build_detector("hog", min_face_px=80), DlibPredictor(), pairs, references, coverage=1.1)


def test_an_untouched_frame_measures_as_untouched(meter: SwapMeter, portrait: np.ndarray) -> None:
    [measured] = meter.measure(0, frame(portrait), frame(portrait))
    assert measured.replaced == "hopper"
    measures = measured.measures
    assert measures is not None
    assert measures.replaced_after == measures.replaced_before < 0.2
    assert measures.new_after == measures.new_before > 0.6
    assert (measures.landmark_error, measures.psnr_outside_db) == (0.0, PSNR_CAP_DB)


def test_a_change_beside_the_face_lowers_the_psnr_alone(meter: SwapMeter, portrait: np.ndarray) -> None:
    changed = portrait.copy()
    changed[:20, :20] = 255 - changed[:20, :20]
    [measured] = meter.measure(0, frame(portrait), frame(changed))
    measures = measured.measures
    assert measures is not None
    assert measures.psnr_outside_db < 50
    assert measures.replaced_after == pytest.approx(measures.replaced_before, abs=0.05)


def test_each_of_several_people_is_measured_and_all_masks_count_as_inside(
    portrait: np.ndarray, collins: np.ndarray, both: SwapMeter
) -> None:
    """Side by side, Hopper's chin is painted over: that moves neither Collins nor the PSNR outside."""
    scene = np.zeros((400, 800, 3), np.uint8)
    scene[:, :400], scene[:300, 420:720] = portrait, collins[:300, 80:380]
    found = {one.replaced: one for one in both.measure(0, frame(scene), frame(scene))}
    assert list(found) == ["hopper", "collins"]
    assert found["hopper"].box_xyxy is not None
    assert found["collins"].box_xyxy is not None
    assert found["hopper"].box_xyxy[2] < 400 < found["collins"].box_xyxy[0]
    x0, _, x1, y1 = (int(v) for v in found["hopper"].box_xyxy)
    painted = scene.copy()
    painted[y1 - 24 : y1 - 14, (x0 + x1) // 2 - 10 : (x0 + x1) // 2 + 10] = 128
    measures = {one.replaced: one.measures for one in both.measure(0, frame(scene), frame(painted))}
    assert measures["hopper"] is not None
    assert measures["collins"] is not None
    assert measures["hopper"].psnr_outside_db == measures["collins"].psnr_outside_db == PSNR_CAP_DB
    assert measures["collins"].landmark_error < 2
    assert measures["collins"].replaced_before < 0.5 < measures["collins"].new_before


def test_a_face_that_was_wiped_out_is_counted(meter: SwapMeter, portrait: np.ndarray) -> None:
    [wiped] = meter.measure(3, frame(portrait), frame(np.full_like(portrait, 90)))
    assert (wiped.problem, wiped.measures, wiped.index) == (NO_OUTPUT_FACE, None, 3)
    assert wiped.box_xyxy is not None


def test_somebody_else_in_the_original_is_not_measured(meter: SwapMeter, collins: np.ndarray) -> None:
    for picture in (collins, GREY):
        [measured] = meter.measure(0, frame(picture), frame(picture))
        assert (measured.problem, measured.replaced) == (NO_REPLACED_FACE, None)


def test_references_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"references of b: expected N×128"):
        references = {"a": np.zeros((1, 128)), "b": np.zeros((0, 128))}
        SwapMeter(build_detector("hog", min_face_px=80), DlibPredictor(), {"a": "b"}, references, coverage=1.1)


def test_only_frames_that_were_changed_on_purpose_are_found(tmp_path: Path, portrait: np.ndarray) -> None:
    small = np.ascontiguousarray(portrait[::2, ::2])
    patched = small.copy()
    patched[80:120, 80:120] = 255 - patched[80:120, 80:120]
    original = write_video(tmp_path / "a.mp4", [small] * 12)
    converted = write_video(tmp_path / "b.mp4", [patched if 4 <= n < 9 else small for n in range(12)])
    assert changed_frames(original, converted) == [4, 5, 6, 7, 8]
    assert changed_frames(original, converted, limit=6) == [4, 5]
    assert changed_frames(original, original) == []
    assert changed_frames(original, converted, swapped=5) == [4, 5, 6, 7, 8]


def test_measured_frames_are_spread_over_the_changed_ones(meter: SwapMeter, tmp_path: Path) -> None:
    patched = GREY.copy()
    patched[100:160, 100:160] = 200
    original = write_video(tmp_path / "a.mp4", [GREY] * 10)
    converted = write_video(tmp_path / "b.mp4", [GREY] * 2 + [patched] * 8)
    frames = measure_video(meter, original, converted, 2)
    assert [one.index for one in frames] == [4, 8]
    assert summarize(frames).no_replaced_face == 2


def test_a_measured_frame_between_others_has_its_flicker(meter: SwapMeter, portrait: np.ndarray) -> None:
    pairs = [(frame(portrait), frame(np.roll(portrait, 4 * (at == 1), axis=0))) for at in range(3)]
    [measured] = meter.measure(1, *pairs[1], [pairs[0], pairs[2]])
    assert measured.measures is not None
    assert measured.measures.flicker is not None
    assert measured.measures.flicker > 2
    [alone] = meter.measure(1, *pairs[1])
    assert alone.measures is not None
    assert alone.measures.flicker is None


def test_the_mask_holds_the_face_and_little_else(portrait: np.ndarray) -> None:
    boxes = build_detector("hog", min_face_px=80).detect([portrait])[0].boxes_xyxy[:1]
    points = DlibPredictor().predict(portrait, boxes)[0]
    mask = mask_region(points, portrait.shape, coverage=1.1)
    x, y = points[17:].astype(int).T
    assert mask[y, x].all()
    assert mask.sum() < 2.5 * np.ptp(points[:, 0]) * np.ptp(points[:, 1])


def test_a_summary_counts_every_frame_once() -> None:
    pair = PairMeasures(0.1, 0.8, 0.7, 0.4, 2.0, 45.0)
    worse = PairMeasures(0.1, 0.8, 0.2, 0.8, 4.0, 41.0)
    plan = [(pair, None), (worse, None), (None, NO_OUTPUT_FACE), (None, NO_REPLACED_FACE)]
    frames = [
        MeasuredFrame("hopper", n, 0.0, GREY, GREY, None, measures, why) for n, (measures, why) in enumerate(plan)
    ]
    summary = summarize(frames)
    assert (summary.frames, summary.no_output_face, summary.no_replaced_face, summary.closer_to_new) == (2, 1, 1, 1)
    assert summary.as_dict()["landmark_error"] == 3.0
    assert summarize([]).as_dict()["frames"] == 0


def test_a_hidden_face_is_counted_and_in_no_landmark_error() -> None:
    pair = PairMeasures(0.1, 0.8, 0.7, 0.4, None, 45.0)
    summary = summarize([MeasuredFrame("hopper", 0, 0.0, GREY, GREY, None, pair)])
    assert (summary.frames, summary.hidden) == (1, 1)
    assert "landmark_error" not in summary.medians


def test_a_face_that_leaves_the_picture_has_no_landmark_error(meter: SwapMeter, portrait: np.ndarray) -> None:
    whole = meter.measure(0, frame(portrait), frame(portrait))[0].measures
    assert whole is not None
    assert whole.landmark_error == 0
    points = meter._faces(portrait)[0]
    gone = points + [portrait.shape[1] - np.median(points[:, 0]), 0]  # more than half of it past the edge
    assert meter._is_seen(portrait, points)
    assert not meter._is_seen(portrait, gone.astype(np.float32))
