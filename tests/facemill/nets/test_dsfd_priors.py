"""Priors: where they lie, which face each answers for, and that offsets lead back to the box."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facemill import boxes
from facemill.nets.dsfd_priors import (
    BACKGROUND,
    CACHED_SIZES,
    PriorConfig,
    decode,
    encode,
    iou_matrix,
    match,
    priors,
)

CONFIG = PriorConfig()
box = st.tuples(*[st.floats(-20, 140)] * 2, *[st.floats(1, 90)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@pytest.mark.parametrize("shot", [1, 2])
def test_a_picture_of_640_px_has_34125_priors(shot):
    assert priors(640, 640, CONFIG, shot).shape == (34_125, 4)


def test_the_first_prior_of_each_map_lies_on_the_middle_of_its_cell():
    places = priors(256, 128, CONFIG, 2)
    starts = np.cumsum([0, 64 * 32, 32 * 16, 16 * 8, 8 * 4, 4 * 2])
    for start, stride, size in zip(starts, CONFIG.strides, CONFIG.sizes_px, strict=True):
        width, height = size / 1.5**0.5, size * 1.5**0.5
        centre = stride / 2
        wanted = [centre - width / 2, centre - height / 2, centre + width / 2, centre + height / 2]
        torch.testing.assert_close(places[start], torch.tensor(wanted))


def test_priors_run_along_a_row_first():
    places = priors(128, 256, CONFIG, 2)
    centres = (places[:, :2] + places[:, 2:]) / 2
    assert centres[[0, 1, 64]].tolist() == [[2, 2], [6, 2], [2, 6]]


def test_priors_of_the_first_shot_have_half_the_sides():
    first, second = (priors(128, 128, CONFIG, shot) for shot in (1, 2))
    torch.testing.assert_close(2 * (first[:, 2:] - first[:, :2]), second[:, 2:] - second[:, :2])


def test_an_aspect_of_1_gives_squares_of_the_same_area():
    square = priors(128, 128, PriorConfig(aspect=1.0), 2)
    assert square[0].tolist() == [-6, -6, 10, 10]


def test_sides_that_no_stride_divides_have_a_cell_for_what_is_left():
    assert len(priors(1, 129, CONFIG, 2)) == 33 + 17 + 9 + 5 + 3 + 2


def test_the_cache_of_priors_is_bounded():
    for side in range(1, 3 * CACHED_SIZES):
        priors(side, side, CONFIG, 2)
    assert priors.cache_info().currsize == CACHED_SIZES


def test_a_third_shot_is_refused():
    with pytest.raises(ValueError, match="1 or 2"):
        priors(128, 128, CONFIG, 3)


def test_a_prior_takes_the_box_that_it_overlaps_most_from_the_threshold_on():
    places = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10], [50, 0, 60, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [101, 0, 111, 10]])
    # box 0 overlaps prior 0 by 0.9 and has no other: but box 1 fits better
    assert match(places, boxes, 0.4).tolist() == [1, 2, BACKGROUND]


def test_a_box_under_the_threshold_still_gets_its_best_prior():
    places = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10], [30, 0, 40, 10]])
    assert match(places, torch.tensor([[6.0, 0, 9, 3]]), 0.4).tolist() == [0, BACKGROUND, BACKGROUND]


def test_a_small_box_keeps_its_best_prior_beside_a_large_box_that_covers_it():
    """The large box overlaps every prior more than the small one does, but may not starve it."""
    places = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10]])
    boxes = torch.tensor([[0.0, 0, 20, 10], [1, 1, 4, 4]])
    assert match(places, boxes, 0.4).tolist() == [1, 0]


@pytest.mark.parametrize(
    "boxes", [torch.zeros(0, 4), torch.tensor([[5.0, 5, 5, 9]]), torch.tensor([[900.0, 0, 950, 40]])]
)
def test_no_box_an_empty_one_and_one_out_of_reach_take_no_prior(boxes):
    assert (match(priors(64, 64, CONFIG, 2), boxes) == BACKGROUND).all()


def test_matching_in_blocks_equals_matching_at_once(monkeypatch):
    places = priors(128, 128, CONFIG, 2)
    left_top = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 100
    boxes = torch.cat([left_top, left_top + 5 + left_top.flip(0) / 3], dim=1)
    whole = match(places, boxes)
    monkeypatch.setattr("facemill.nets.dsfd_priors._BOXES_AT_ONCE", 7)
    assert torch.equal(match(places, boxes), whole)


@given(st.lists(box, min_size=1, max_size=6))
def test_every_matched_prior_overlaps_its_box_enough_or_is_its_best(boxes):
    places, truth = priors(128, 128, CONFIG, 2), torch.tensor(boxes)
    taken, overlap = match(places, truth), iou_matrix(places, truth)
    for row in torch.nonzero(taken != BACKGROUND).flatten().tolist():
        assert overlap[row, taken[row]] >= 0.4 or overlap[row, taken[row]] == overlap[:, taken[row]].max()
    assert (taken[(overlap >= 0.4).any(dim=1)] != BACKGROUND).all()


@given(st.lists(box, min_size=1, max_size=8))
def test_decoding_an_encoded_box_gives_it_back(boxes):
    truth = torch.tensor(boxes)
    places = priors(128, 128, CONFIG, 2)[: len(truth)]
    torch.testing.assert_close(decode(places, encode(places, truth)), truth, atol=1e-3, rtol=1e-4)


def test_offsets_are_shifts_over_tenths_and_growth_over_fifths():
    prior, face = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, 0, 11, 20]])
    torch.testing.assert_close(encode(prior, face), torch.tensor([[1.0, 0, 0, 0]]))  # a tenth of the width to the right
    doubled = torch.tensor([[-5.0, -10, 15, 30]])
    torch.testing.assert_close(encode(prior, doubled), torch.tensor([[0, 0, np.log(2) / 0.2, np.log(2) / 0.2]]).float())


def test_a_wild_offset_decodes_to_a_finite_box():
    assert torch.isfinite(decode(torch.tensor([[0.0, 0, 10, 10]]), torch.full((1, 4), 1e6))).all()


@given(st.lists(box, min_size=1, max_size=6), st.lists(box, min_size=1, max_size=6))
def test_overlaps_are_those_of_the_other_detectors(first, second):
    ours = iou_matrix(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64))
    np.testing.assert_allclose(ours, boxes.iou(np.array(first), np.array(second)), atol=1e-9)
