"""Duplicates: hashes of copies agree, the search is exact, and the verdict depends on no order."""

import hashlib
import io
import tracemalloc
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facemill import dedup, hamming
from facemill.dedup import CONFIRM_BITS, Looks, judge
from facemill.errors import InputError
from facemill.picture_hash import PictureHash, detail, hash_picture, hash_small, shrink
from facemill.pictures import decode, encode_jpeg, encode_png

LOOK = 0xF0F0F0F0F0F0F0F0


@dataclass(frozen=True)
class Candidate:
    """A picture to be judged, one at a time: what the reference takes."""

    sample_id: str
    owner: str
    hash: PictureHash
    rank: tuple[float, ...]
    tie: int = 0

    @property
    def look(self):
        return self.sample_id if self.hash.flat else (self.hash.phash, self.hash.dhash)


def sha256(name):
    return hashlib.sha256(name.encode()).hexdigest()


def near(base, flipped):
    for bit in flipped:
        base ^= 1 << bit
    return base


def bits_apart(first, second):
    return (first.phash ^ second.phash).bit_count()


def candidate(name, phash, *, dhash=None, owner="anna", rank=0, flat=False, tie=0):
    return Candidate(sha256(name), owner, PictureHash(phash, phash if dhash is None else dhash, flat), (rank,), tie)


def looks_of(candidates):
    owners = {name: number for number, name in enumerate(sorted({item.owner for item in candidates}))}
    return Looks.from_columns(
        phash=[item.hash.phash for item in candidates],
        dhash=[item.hash.dhash for item in candidates],
        flat=[item.hash.flat for item in candidates],
        owner=[owners[item.owner] for item in candidates],
        sample_id=[item.sample_id for item in candidates],
        rank=[[item.rank[at] for item in candidates] for at in range(len(candidates[0].rank) if candidates else 1)],
        tie=[item.tie for item in candidates],
    )


def hashed(hashes):
    """Pictures with these hashes, the first one the best."""
    return [Candidate(sha256(str(at)), "anna", item, (at,)) for at, item in enumerate(hashes)]


def judged(candidates, **limits):
    """Which row stands for each, and the clusters as sets of rows."""
    stands, cluster = judge(looks_of(candidates), **limits)
    return stands.tolist(), groups(cluster)


def groups(numbers):
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in numbers}


def reference(candidates, distance, confirm_distance):
    """What `judge` has to find, in the plainest way: every picture against every other, one after another."""

    def are_copies(first, second):
        bits = (first.hash.phash ^ second.hash.phash).bit_count()
        alike = (first.hash.dhash ^ second.hash.dhash).bit_count() <= CONFIRM_BITS
        hashes_mean_something = not (first.hash.flat or second.hash.flat)
        near = bits <= distance or (bits <= confirm_distance and alike)
        return first.look == second.look or (hashes_mean_something and near)

    count = len(candidates)
    cluster = list(range(count))
    for one in range(count):
        for other in range(one):
            if are_copies(candidates[one], candidates[other]):
                cluster = [cluster[other] if number == cluster[one] else number for number in cluster]
    stands = [-1] * count
    for row in sorted(
        range(count), key=lambda at: (*candidates[at].rank, candidates[at].sample_id, candidates[at].tie, at)
    ):
        if stands[row] < 0:
            for copy in range(count):
                same_owner = candidates[copy].owner == candidates[row].owner
                if stands[copy] < 0 and same_owner and are_copies(candidates[copy], candidates[row]):
                    stands[copy] = row
    return stands, groups(np.array(cluster))


@st.composite
def collections(draw):
    """Pictures of two people: copies and near copies of a few scenes, some flat, some collected several times."""
    scenes = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    some_bits = st.sets(st.integers(0, 63), max_size=6)
    contents = draw(
        st.lists(st.tuples(st.sampled_from(scenes), some_bits, some_bits, st.booleans()), min_size=1, max_size=12)
    )
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, len(contents) - 1), st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 1)),
            max_size=25,
        )
    )
    return [
        candidate(
            str(at),
            near(contents[at][0], contents[at][1]),
            dhash=near(contents[at][0], contents[at][2]),
            flat=contents[at][3] and at % 3 == 0,
            owner=owner,
            rank=rank,
            tie=tie,
        )
        for at, owner, rank, tie in rows
    ]


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


def test_many_pictures_at_once_have_the_hashes_that_each_has_alone(hopper, collins):
    data = [encode_png(picture) for picture in (hopper, collins, hopper[::-1], np.zeros_like(hopper))]
    assert hash_small(np.stack([shrink(each) for each in data])) == [hash_picture(each) for each in data]


@pytest.mark.parametrize("width", [32, 100, 900])
def test_a_stripe_on_white_is_seen_where_it_is_and_nowhere_else(width):
    picture = np.full((width, width, 3), 255, np.uint8)
    picture[:, width // 2 :] = 0
    rows = hash_picture(encode_png(picture)).dhash.to_bytes(8)
    assert set(rows) <= {0b00010000, 0b00001000, 0b00011000}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_of_any_kind_has_the_hash_of_its_pixels(collins, mode, progressive):
    large = cv2.resize(collins, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    stream = io.BytesIO()
    Image.fromarray(large).convert(mode).save(stream, "JPEG", progressive=progressive)
    own = hash_picture(encode_png(decode(stream.getvalue())))
    assert bits_apart(own, hash_picture(stream.getvalue())) <= 2


def test_the_sharper_copy_has_more_detail_and_more_sharpness(collins):
    own, blurred = (detail(encode_png(picture)) for picture in (collins, cv2.GaussianBlur(collins, (0, 0), 2)))
    assert own.share > blurred.share
    assert own.sharpness > blurred.sharpness


def test_flat_pictures_are_no_duplicates_of_each_other():
    grey = [hash_picture(encode_png(np.full((60, 60, 3), level, np.uint8))) for level in (90, 91)]
    assert all(item.flat for item in grey)
    assert judged(hashed(grey)) == ([0, 1], {frozenset([0]), frozenset([1])})


@pytest.mark.parametrize("data", [b"", b"a text file named .jpg", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_no_picture_is_an_input_error(data):
    with pytest.raises(InputError):
        hash_picture(data)


def test_between_the_limits_the_difference_hash_decides():
    own = PictureHash(0xFFFF0000FFFF0000, 0, False)
    alike = PictureHash(near(own.phash, range(6)), near(0, range(8)), False)
    unlike = PictureHash(near(own.phash, range(6)), near(0, range(40)), False)
    assert judged(hashed([own, alike])) == ([0, 0], {frozenset([0, 1])})
    assert judged(hashed([own, unlike])) == ([0, 1], {frozenset([0]), frozenset([1])})
    assert judged(hashed([own, unlike]), distance=6) == ([0, 0], {frozenset([0, 1])})
    assert judged(hashed([own, alike]), distance=4, confirm_distance=5)[0] == [0, 1]


def chained(*places):
    """Pictures of which each is a copy of the next one, and of no other."""
    return [near(LOOK, range(4 * place)) for place in places]


def test_clusters_join_along_chains():
    far = near(LOOK, range(20, 50))
    looks = [near(LOOK, range(50, 62)), *chained(0, 1), far, chained(2)[0], near(far, range(4))]
    items = [candidate(str(at), look, dhash=near(0, range(at * 9, at * 9 + 9))) for at, look in enumerate(looks)]
    assert judged(items)[1] == {frozenset([0]), frozenset([1, 2, 4]), frozenset([3, 5])}


@pytest.mark.parametrize("rounds", [256, 0])
def test_nothing_falls_that_is_no_direct_copy_of_what_stands_for_it(rounds, monkeypatch):
    """A-B-C chained, A best: B falls to A; C, which is no copy of A, stays."""
    monkeypatch.setattr(dedup, "_ROUNDS", rounds)

    def stands(*ranks):
        looks = enumerate(zip(chained(0, 1, 2), ranks, strict=True))
        items = [
            candidate(str(at), look, dhash=near(0, range(at * 9, at * 9 + 9)), rank=rank) for at, (look, rank) in looks
        ]
        return judged(items)[0]

    assert stands(0, 1, 2) == [0, 0, 2]
    assert stands(1, 0, 2) == [1, 1, 1]


@settings(max_examples=200, deadline=None)
@given(collections(), st.integers(0, 6), st.integers(0, 9))
def test_the_verdict_is_that_of_comparing_every_picture_with_every_other(items, distance, confirm_distance):
    limits = {"distance": distance, "confirm_distance": confirm_distance}
    assert judged(items, **limits) == reference(items, **limits)


@settings(max_examples=150, deadline=None)
@given(collections(), st.integers(0, 2), st.integers(1, 3))
def test_the_ways_for_large_collections_give_the_same_verdict(items, rounds, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_ROUNDS", rounds)
        patch.setattr(dedup, "_COMPARED_AT_ONCE", at_once)
        patch.setattr(dedup, "_LINKS_AT_ONCE", at_once)
        patch.setattr(hamming, "_COMPARE_S", 1.0)  # keys of many bands instead of all against all
        patch.setattr(hamming, "BLOCK_HASHES", at_once)
        patch.setattr(hamming, "PIECE_PAIRS", at_once)
        assert judged(items) == reference(items, distance=4, confirm_distance=8)


@settings(deadline=None)
@given(collections(), st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_the_order(items, random):
    shuffled = random.sample(items, len(items))

    def verdict(rows):
        stands, cluster = judge(looks_of(rows))
        kept = {(row, rows[stand]) for row, stand in zip(rows, stands.tolist(), strict=True)}
        return kept, {(row.sample_id, rows[number].sample_id) for row, number in zip(rows, cluster, strict=True)}

    assert verdict(items) == verdict(shuffled)


@given(collections())
def test_a_cluster_is_named_by_its_lowest_sample_id(items):
    cluster = judge(looks_of(items))[1]
    for group in groups(cluster):
        assert {items[cluster[at]].sample_id for at in group} == {min(items[at].sample_id for at in group)}


def test_a_picture_of_two_people_stays_with_both_in_one_cluster():
    items = [candidate("s1", LOOK), candidate("s1", LOOK, owner="bert"), candidate("s2", LOOK, rank=1)]
    assert judged(items) == ([0, 1, 0], {frozenset([0, 1, 2])})


def test_equal_bytes_are_duplicates_even_where_the_hash_means_nothing():
    flat = [candidate("s1", 0, flat=True), candidate("s1", 0, flat=True, rank=1), candidate("s2", 0, flat=True)]
    assert judged(flat) == ([0, 0, 2], {frozenset([0, 1]), frozenset([2])})


def test_a_thousand_equal_frames_cost_no_million_pairs():
    frames = [candidate(f"s{n:04d}", LOOK, rank=n) for n in range(1000)]
    assert judged(frames) == ([0] * 1000, {frozenset(range(1000))})


def test_thousands_of_frames_that_look_alike_take_no_memory_for_their_pairs():
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, (2, 12, 6000), dtype=np.uint64) << np.arange(0, 60, 5, dtype=np.uint64)[:, None]
    phash, dhash = np.uint64(LOOK) ^ np.bitwise_or.reduce(noise, axis=1)
    looks = Looks(
        phash=phash,
        dhash=dhash,
        flat=np.zeros(6000, np.bool_),
        owner=np.zeros(6000, np.int32),
        sample_id=random.integers(0, 2**64, (6000, 4), dtype=np.uint64),
        rank=np.arange(6000.0)[:, None],
        tie=np.zeros(6000, np.int64),
    )
    judge(looks.take(np.arange(10)))  # imports
    tracemalloc.start()
    stands, cluster = judge(looks)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(cluster.tolist())) == 1
    kept = np.unique(stands)
    assert len(kept) < 300
    assert np.bitwise_count(phash ^ phash[stands]).max() <= 8
    apart = np.bitwise_count(phash[kept, None] ^ phash[kept]) + 64 * np.eye(len(kept), dtype=int)
    assert apart.min() > 4
    assert peak_bytes < 30e6  # the pairs alone would be 18 million


def test_copies_among_real_photos_are_found_and_nothing_else(shared):
    folder = shared / "data" / "dedup" / "imagededup" / "mixed_images"
    files = [file for file in sorted(folder.glob("*.jpg")) if "corrupt" not in file.name]
    _, clusters = judged(hashed([hash_picture(file.read_bytes()) for file in files]))
    copies = [[files[at].stem for at in sorted(cluster)] for cluster in clusters if len(cluster) > 1]
    assert copies == [["ukbench00120", "ukbench00120_resize"]]


def test_looks_take_columns_from_arrow_in_parts_and_give_the_ids_back():
    ids = [sha256(name) for name in "abc"]
    part = {
        "phash": pa.chunked_array([[LOOK], [2**64 - 1, 0]], pa.uint64()),
        "dhash": pa.array([1, 2, 3], pa.uint64()),
        "flat": pa.array([True, False, True]),
        "owner": [0, 1, 0],
        "sample_id": pa.chunked_array([ids]),
        "rank": [pa.array([True, False, True]), pa.array([0.5, 1.5, 2.5])],
        "tie": np.zeros(3, np.int32),
    }
    looks = Looks.concatenate([Looks.from_columns(**part), Looks.from_columns(**part).take(np.array([2, 0]))])
    assert len(looks) == 5
    assert looks.phash.tolist() == [LOOK, 2**64 - 1, 0, 0, LOOK]
    assert looks.rank.tolist() == [[1, 0.5], [0, 1.5], [1, 2.5], [1, 2.5], [1, 0.5]]
    assert looks.ids(np.arange(5)) == [*ids, ids[2], ids[0]]
    assert looks.same_bytes().tolist() == [0, 2, 3, 4]
    assert len(Looks.concatenate([])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phash": pa.array([1, None], pa.uint64())}, "phash: 1 rows are null"),
        ({"sample_id": ["0" * 64, "0" * 63 + "G"]}, "64 hex digits, got '0{63}G'"),
        ({"sample_id": pa.array(["0" * 64, None])}, "64 hex digits, got None"),
        ({"owner": [0]}, r"owner: expected int32 \(2,\), got int32 \(1,\)"),
        ({"rank": [[0.0, float("nan")]]}, "rank: NaN"),
    ],
)
def test_looks_refuse_columns_that_do_not_belong_together(change, message):
    good = {"phash": [1, 2], "dhash": [1, 2], "flat": [False, True], "owner": [0, 0], "tie": [0, 0]}
    good |= {"sample_id": ["0" * 64, "1" * 64], "rank": [[0.0, 1.0]]}
    with pytest.raises(ValueError, match=message):
        Looks.from_columns(**{**good, **change})
