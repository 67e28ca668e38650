"""Sides of faces by the names of their clusters, whatever signs the paths in them hold."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from facemill.split import LEAST, MOST, STRETCH, Split

PATHS = st.text(st.sampled_from(f"aV1/#{STRETCH}"), min_size=1, max_size=12)
FRAMES = st.tuples(PATHS, st.integers(0, 3), st.integers(0, 5)).map(
    lambda frame: f"{frame[0]}.mp4#shot={frame[1]}{STRETCH}{frame[2]}"
)


@given(st.sets(st.tuples(st.sampled_from("ab"), FRAMES), min_size=1, max_size=60), st.floats(0.01, 0.5))
def test_clusters_stay_whole_and_both_sides_hold_faces_whatever_the_paths(
    frames: set[tuple[str, str]], share: float
) -> None:
    accepted = [(who, f"{who}/{name}") for who, name in sorted(frames)]
    split = Split.of(accepted, share, "ab")
    sides: dict[str, dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
    for who, name in accepted:
        sides[who][split.cluster_of(name)].add(split.is_val(name))
    for own in sides.values():
        assert all(len(side) == 1 for side in own.values())
        assert {True in side for side in own.values()} == ({True, False} if len(own) > 1 else {False})


@given(
    st.sets(FRAMES | PATHS.map(lambda path: f"{path}.jpg"), min_size=2, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=10),
    st.floats(0.01, 0.5),
)
def test_clusters_with_a_face_in_common_go_to_one_side(
    names: set[str], pairs: list[tuple[int, int]], share: float
) -> None:
    accepted = [("a", name) for name in sorted(names)]
    twins = [(accepted[one % len(names)][1], accepted[other % len(names)][1]) for one, other in pairs]
    split = Split.of(accepted, share, "a", twins)
    for one, other in twins:
        if Split(share).cluster_of(one) != Split(share).cluster_of(other):
            assert split.cluster_of(one) == split.cluster_of(other)
            assert split.is_val(one) == split.is_val(other)
    assert not all(split.is_val(name) for name in names)


def test_as_many_faces_are_held_out_of_videos_with_a_tilde_as_of_others() -> None:
    for name in ("VID~2.mp4", "~/~.mp4", "VID.mp4"):
        frames = [("a", f"{name}#shot={n // 5}{STRETCH}{n}") for n in range(200)]
        split = Split.of(frames, 0.1, "a")
        held = Counter(split.is_val(frame) for _, frame in frames)[True]
        assert LEAST * 20 <= held <= MOST * 20
        assert {split.cluster_of(frame) for _, frame in frames} == {f"{name}#shot={n}" for n in range(40)}


@given(st.integers(12, 300), st.floats(0.05, 0.3))
def test_of_one_long_shot_as_many_faces_are_held_out_as_asked(seconds: int, share: float) -> None:
    frames = [("a", f"talk.mp4#shot=0{STRETCH}{at // 4}") for at in range(4 * seconds)]
    split = Split.of(frames, share, "a")
    sides = [split.is_val(frame) for _, frame in frames]
    assert LEAST * share <= sum(sides) / len(sides) <= max(MOST * share, 1 / seconds)


def test_a_longer_shot_is_cut_into_longer_stretches() -> None:
    def clusters(seconds: int) -> set[str]:
        frames = [("a", f"talk.mp4#shot=0{STRETCH}{at}") for at in range(seconds)]
        split = Split.of(frames, 0.1, "a")
        return {split.cluster_of(frame) for _, frame in frames}

    assert clusters(12) == {f"talk.mp4#shot=0{STRETCH}{at}" for at in range(12)}
    assert clusters(100) == {f"talk.mp4#shot=0{STRETCH}{at}" for at in range(0, 100, 5)}


def test_a_still_whose_name_looks_like_a_stretch_keeps_a_cluster_of_its_own() -> None:
    assert {Split(0.1).cluster_of(f"VID~{at}.jpg") for at in range(3)} == {f"VID~{at}.jpg" for at in range(3)}


def test_a_number_that_no_video_has_seconds_for_is_part_of_the_name() -> None:
    names = [f"holiday~{'9' * digits}" for digits in (19, 40)]
    split = Split.of([("a", name) for name in names], 0.1, "a")
    assert [split.cluster_of(name) for name in names] == names
