"""Pairs of hashes within a distance: the search is exact whatever keys it takes, and holds no more than it must."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill import hamming
from facemill.hamming import near_pairs, pairs_within

bits64 = st.integers(0, 2**64 - 1)


def flipped(base, places):
    for place in places:
        base ^= 1 << place
    return base


def noisy(base, places, count, seed=0):
    """Different hashes that agree with `base` but in these places: frames of one still scene."""
    random = np.random.default_rng(seed)
    noise = np.zeros(count, np.uint64)
    for place in places:
        noise |= random.integers(0, 2, count, dtype=np.uint64) << np.uint64(place)
    return np.unique(np.uint64(base) ^ noise)


def all_pairs(hashes, distance):
    """The naive way: every hash against every later one."""
    pairs = []
    for first in range(len(hashes)):
        bits = np.bitwise_count(hashes[first] ^ hashes[first + 1 :]).astype(int)
        pairs += [(first, first + 1 + int(at), int(bits[at])) for at in np.flatnonzero(bits <= distance)]
    return pairs


def found_pairs(hashes, distance, labels=None):
    return [
        (min(first, second), max(first, second), bits)
        for piece in near_pairs(hashes, distance, labels)
        for first, second, bits in zip(*map(np.ndarray.tolist, piece), strict=True)
    ]


@settings(max_examples=60)
@given(bits64, st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=25), st.integers(0, 10))
def test_the_search_finds_exactly_the_pairs_within_the_distance(base, flips, distance):
    hashes = np.array([base, *(flipped(base, places) for places in flips)], np.uint64)
    found = {tuple(row) for row in pairs_within(hashes, distance).tolist()}
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(int)
    expected = {(i, j, apart[i, j]) for i in range(len(hashes)) for j in range(i + 1, len(hashes))}
    assert found == {row for row in expected if row[2] <= distance}


@pytest.mark.parametrize(("count", "distance"), [(1000, 8), (6000, 8), (6000, 3), (6000, 14), (20_000, 8), (20_000, 1)])
def test_with_many_hashes_keys_are_sorted_and_every_pair_comes_once(count, distance):
    random = np.random.default_rng(count + distance)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    for first in range(0, count // 2, 5):  # every distance around the limit, and some runs that differ in a few bits
        places = random.choice(64, random.integers(1, distance + 3), replace=False).tolist()
        hashes[count // 2 + first] = np.uint64(flipped(int(hashes[first]), places))
    hashes[:200] = noisy(int(hashes[0]), range(3, 60, 7), 1000)[:200]
    hashes = random.permutation(np.unique(hashes))
    expected = all_pairs(hashes, distance)
    assert len(expected) > count // 20
    assert sorted(found_pairs(hashes, distance)) == expected
    assert pairs_within(hashes, distance).tolist() == [list(pair) for pair in expected]


@given(
    st.integers(2, 10**8),
    st.integers(1, 63).flatmap(lambda most: st.tuples(st.just(most), st.sets(st.integers(0, 63), max_size=most))),
)
def test_whichever_bits_differ_one_of_the_keys_agrees(count, distance_and_places):
    distance, places = distance_and_places
    keys = hamming._best_keys(count, distance)
    difference = flipped(0, places)
    bands = [band for group in keys.groups for band in group]
    assert not bands or sum(int(band.mask) for band in bands) == 2**64 - 1
    assert any(sum(not difference & int(band.mask) for band in group) >= keys.take for group in keys.groups)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 63), max_size=6), min_size=2, max_size=40), st.integers(1, 9), st.integers(1, 3))
def test_small_blocks_and_pieces_and_dear_comparisons_change_nothing(flips, distance, block):
    hashes = np.array(sorted({flipped(0xF0F0F0F0F0F0F0F0, places) for places in flips}), np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_COMPARE_S", 1.0)
        patch.setattr(hamming, "BLOCK_HASHES", block)
        patch.setattr(hamming, "PIECE_PAIRS", 2)
        assert sorted(found_pairs(hashes, distance)) == all_pairs(hashes, distance)


def test_what_has_one_label_gives_no_pairs_and_labels_may_be_joined_on_the_way():
    hashes = np.concatenate([noisy(0xF0F0F0F0F0F0F0F0, range(0, 60, 6), 800), noisy(0x0F0F0F0F0F0F0F0F, range(9), 300)])
    labels = np.arange(len(hashes)) % 2
    apart = {pair for pair in all_pairs(hashes, 8) if labels[pair[0]] != labels[pair[1]]}
    assert set(found_pairs(hashes, 8, labels)) == apart
    pieces = 0
    for _ in near_pairs(hashes, 8, labels):
        labels[:] = 0
        pieces += 1
    assert pieces == 1


def test_thousands_of_frames_that_look_alike_take_no_memory_for_their_pairs():
    hashes = noisy(0x1234_5678_9ABC_DEF0, range(0, 60, 5), 5000)
    tracemalloc.start()
    pairs = sum(len(first) for first, _, _ in near_pairs(hashes, 8))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pairs > 3_500_000  # 84 MB as three numbers each
    assert peak_bytes < 20e6


@pytest.mark.parametrize("distance", [-1, 64])
def test_a_distance_that_no_two_hashes_can_have_is_refused(distance):
    with pytest.raises(ValueError, match=rf"0…63 bits, got {distance}"):
        pairs_within(np.zeros(3, np.uint64), distance)
