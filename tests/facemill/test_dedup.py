"""Duplicates: hashes of copies agree, the search is exact, and the verdict depends on no order."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.dedup import (
    Candidate,
    PictureHash,
    choose,
    clusters,
    duplicate_pairs,
    hash_picture,
    judge,
    licence_rank,
    pairs_within,
)
from facemill.errors import InputError
from facemill.pictures import encode_jpeg, encode_png

bits64 = st.integers(0, 2**64 - 1)


def near(base, flipped):
    for bit in flipped:
        base ^= 1 << bit
    return base


def bits_apart(first, second):
    return (first.phash ^ second.phash).bit_count()


def candidate(name, phash, *, owner="anna", rank=0, flat=False):
    return Candidate(name, owner, PictureHash(phash, phash, flat, 0.0), (rank, name))


@pytest.mark.parametrize("person", ["hopper", "collins"])
def test_copies_in_other_sizes_formats_and_qualities_have_the_same_hash(person, request):
    picture = request.getfixturevalue(person)
    smaller = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    larger = cv2.resize(picture, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    own = hash_picture(encode_png(picture))
    for copy in (encode_jpeg(picture, 30), encode_png(smaller), encode_jpeg(larger, 60)):
        assert bits_apart(own, hash_picture(copy)) <= 2


def test_two_people_and_a_mirrored_picture_are_far_apart(hopper, collins):
    own = hash_picture(encode_png(hopper))
    assert bits_apart(own, hash_picture(encode_png(collins))) > 12
    assert bits_apart(own, hash_picture(encode_png(hopper[:, ::-1]))) > 12


def test_a_picture_lying_on_its_side_by_exif_has_the_hash_of_the_upright_one(collins):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    lying = encode_jpeg(np.ascontiguousarray(np.rot90(collins)))
    tagged = lying[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + lying[2:]
    assert bits_apart(hash_picture(tagged), hash_picture(encode_jpeg(collins))) <= 2


def test_the_sharper_copy_has_more_sharpness(collins):
    blurred = cv2.GaussianBlur(collins, (0, 0), 2)
    assert hash_picture(encode_png(collins)).sharpness > hash_picture(encode_png(blurred)).sharpness


def test_flat_pictures_are_no_duplicates_of_each_other():
    grey = [hash_picture(encode_png(np.full((60, 60, 3), level, np.uint8))) for level in (90, 91)]
    assert all(item.flat for item in grey)
    assert len(duplicate_pairs(grey)) == 0


@pytest.mark.parametrize("data", [b"", b"a text file named .jpg", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_no_picture_is_an_input_error(data):
    with pytest.raises(InputError):
        hash_picture(data)


@settings(max_examples=60)
@given(bits64, st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=25), st.integers(0, 10))
def test_the_search_finds_exactly_the_pairs_within_the_distance(base, flips, distance):
    hashes = np.array([base, *(near(base, flipped) for flipped in flips)], np.uint64)
    found = {tuple(row) for row in pairs_within(hashes, distance).tolist()}
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(int)
    expected = {(i, j, apart[i, j]) for i in range(len(hashes)) for j in range(i + 1, len(hashes))}
    assert found == {row for row in expected if row[2] <= distance}


def test_between_the_limits_the_difference_hash_decides():
    own = PictureHash(0xFFFF0000FFFF0000, 0, False, 0)
    alike = PictureHash(near(own.phash, range(6)), near(0, range(8)), False, 0)
    unlike = PictureHash(near(own.phash, range(6)), near(0, range(40)), False, 0)
    assert duplicate_pairs([own, alike]).tolist() == [[0, 1, 6]]
    assert len(duplicate_pairs([own, unlike])) == 0
    assert len(duplicate_pairs([own, unlike], distance=6)) == 1


def test_clusters_join_along_chains():
    pairs = np.array([[1, 2, 0], [2, 4, 0], [3, 5, 0]])
    assert clusters(6, pairs).tolist() == [0, 1, 1, 3, 1, 3]


def test_nothing_falls_that_is_no_direct_copy_of_what_stands_for_it():
    """A-B-C chained, A best: B falls to A; C, which is no copy of A, stays."""
    assert choose([0, 1, 2], np.array([[0, 1, 3], [1, 2, 3]])).tolist() == [0, 0, 2]
    assert choose([1, 0, 2], np.array([[0, 1, 3], [1, 2, 3]])).tolist() == [1, 1, 1]


@given(st.lists(st.sets(st.integers(0, 63), max_size=4), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_the_order(flips, random):
    base = 0xF0F0F0F0F0F0F0F0
    items = [candidate(f"s{n}", near(base, flipped), owner="ab"[n % 2], rank=n % 3) for n, flipped in enumerate(flips)]
    shuffled = random.sample(items, len(items))

    def verdict(rows):
        stands, cluster = judge(rows)
        groups = {}
        for row, number in zip(rows, cluster.tolist(), strict=True):
            groups.setdefault(number, set()).add(row.sample_id)
        kept = {row.sample_id: rows[stand].sample_id for row, stand in zip(rows, stands, strict=True)}
        return kept, {frozenset(group) for group in groups.values()}

    assert verdict(items) == verdict(shuffled)


def test_a_picture_of_two_people_stays_with_both_in_one_cluster():
    look = 0xF0F0F0F0F0F0F0F0
    stands, cluster = judge([candidate("s1", look), candidate("s1", look, owner="bert"), candidate("s2", look, rank=1)])
    assert stands.tolist() == [0, 1, 0]
    assert len(set(cluster.tolist())) == 1


def test_equal_bytes_are_duplicates_even_where_the_hash_means_nothing():
    flat = [candidate("s1", 0, flat=True), candidate("s1", 0, flat=True, rank=1), candidate("s2", 0, flat=True)]
    assert judge(flat)[0].tolist() == [0, 0, 2]


def test_a_thousand_equal_frames_cost_no_million_pairs():
    frames = [candidate(f"s{n:04d}", 0xF0F0F0F0F0F0F0F0, rank=n) for n in range(1000)]
    stands, cluster = judge(frames)
    assert set(stands.tolist()) == {0}
    assert len(set(cluster.tolist())) == 1


def test_freer_licences_come_first():
    texts = ["Public domain", "CC-BY 4.0", "CC BY-NC-ND 2.0", ""]
    assert [licence_rank(text) for text in texts] == [0, 1, 2, 3]
    assert licence_rank(None) == 3


def test_copies_among_real_photos_are_found_and_nothing_else(shared):
    folder = shared / "data" / "dedup" / "imagededup" / "mixed_images"
    files = [file for file in sorted(folder.glob("*.jpg")) if "corrupt" not in file.name]
    pairs = duplicate_pairs([hash_picture(file.read_bytes()) for file in files])
    assert [(files[i].stem, files[j].stem) for i, j, _ in pairs] == [("ukbench00120", "ukbench00120_resize")]
