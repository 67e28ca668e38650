"""The stage `curate`: one smallest face for each reason, splits that do not leak, errors a person can act on."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facemill import tables
from facemill.errors import FacemillError
from facemill.reasons import Reason
from facemill.schema import DATASET, FACES, UNIQUE
from facemill.split import Split
from tasks import curate
from tasks.params import parse_params

IDENTITY = {
    "rights": {"basis": "own", "evidence": "a test's own"},
    "references": ["r"],
    "sources": [{"kind": "folder", "path": "p"}],
}


@pytest.fixture
def params():
    """Two identities; every limit at its default."""
    return parse_params(
        {
            "identities": {"anna": IDENTITY, "bert": IDENTITY},
            "archive": {"kind": "sample"},
            "convert": {"becomes": {"anna": "bert"}},
        }
    )


def face(name, *, identity="anna", at=0.0, sample=None, **more):
    """A good face whose embedding lies `at` from its identity's reference."""
    sample = sample or name
    embedding = np.zeros(128)
    embedding[0], embedding[1] = at, {"anna": 0.0, "bert": 5.0}[identity]
    good = {
        "url": f"{sample}.jpg",
        "score": 1.0,
        "box": [0.0, 0.0, more.get("face_px", 120.0), 120.0],
        "face_px": 120.0,
        "sharpness": 80.0,
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "status": "ok",
    }
    chance = np.random.default_rng(list(name.encode()))
    good |= {"look": chance.integers(0, 255, 256, np.uint8).tobytes(), "landmarks": chance.random(136).tolist()}
    good |= {"affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
    row = {"face_id": f"{identity}-{name}", "sample_id": sample, "identity": identity, "role": "sample"}
    return row | good | {"cluster": sample, "face_index": 0, "embedding": embedding.tolist()} | more


def references():
    return [face(f"ref-{identity}", identity=identity, role="reference") for identity in ("anna", "bert")]


def curated(root, params, rows):
    """Runs the stage and gives the result by face_id."""
    put_part(root, 0, rows)
    totals = curate.run(params, root)
    assert totals.rows_in == totals.rows_out == len(rows)
    return {row["face_id"]: row for row in tables.iterate_rows(root / "data/dataset", DATASET)}


def put_part(root, number, rows):
    """Writes a part of what the stage reads."""
    beside = ("cluster", "stated", "shot", "page", "licence", "author", "rights")
    faces = [{key: value for key, value in row.items() if key not in beside} for row in rows]
    tables.write_part(root / f"data/faces/{number:05d}.parquet", tables.from_rows(faces, FACES))
    pictures = {(row["sample_id"], row["identity"]): row["cluster"] for row in rows}
    columns = ("source", "url", "page", "pts", "shot", "licence", "author", "rights")
    places = {(row["sample_id"], row["identity"]): {name: row.get(name) for name in columns} for row in rows}
    stated = {(row["sample_id"], row["identity"]): row.get("stated") for row in rows}
    unique = [
        {"sample_id": sample, "identity": who, "cluster": of, "stated_face": stated[sample, who], "keep": True}
        | places[sample, who]
        for (sample, who), of in pictures.items()
    ]
    tables.write_part(root / f"data/unique/{number:05d}.parquet", tables.from_rows(unique, UNIQUE))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"at": 0.6}, Reason.OTHER_IDENTITY),
        ({"face_px": 79.0}, Reason.FACE_TOO_SMALL),
        ({"sharpness": 14.0}, Reason.BLURRED),
        ({"yaw": -56.0}, Reason.EXTREME_POSE),
        ({"pitch": 46.0}, Reason.EXTREME_POSE),
        ({"roll": -46.0}, Reason.EXTREME_POSE),
        ({"visibility": 0.59}, Reason.HIDDEN),
        ({"doubt": 0.11}, Reason.HIDDEN),
        ({"doubt": float("inf")}, Reason.HIDDEN),
        ({"presence": 5.9}, Reason.HIDDEN),
        ({"status": "rejected", "error": "no_face", "embedding": None}, Reason.NO_FACE),
        ({"status": "failed", "error": "truncated", "embedding": None}, Reason.TRUNCATED),
    ],
)
def test_each_fault_is_its_own_reason(tmp_path, params, change, reason):
    found = curated(tmp_path, params, [*references(), face("good"), face("bad", **change)])
    assert found["anna-good"]["status"] == "ok"
    assert (found["anna-bad"]["status"], found["anna-bad"]["error"]) == (reason.state, reason)
    assert found["anna-bad"]["split"] is None


def test_the_detail_tells_the_number_and_the_limit(tmp_path, params):
    found = curated(tmp_path, params, [*references(), face("far", at=0.7), face("turned", yaw=60.0)])
    assert found["anna-far"]["detail"] == "0.70, limit 0.55"
    assert found["anna-turned"]["detail"] == "yaw 60°, limit 55°"


def test_what_a_predictor_does_not_tell_of_a_face_is_no_fault(tmp_path, params):
    unknown = face("unknown", visibility=0.7, doubt=0.09, presence=None)
    hidden = face("hidden", visibility=0.5, presence=9.0)
    found = curated(tmp_path, params, [*references(), unknown, hidden])
    assert found["anna-unknown"]["status"] == "ok"
    assert found["anna-hidden"]["detail"] == "visibility 0.50, limit 0.6"


def test_of_two_faces_of_one_person_in_a_picture_the_nearer_stays(tmp_path, params):
    twins = [face("one", at=0.3, sample="p"), face("two", at=0.2, sample="p"), face("stranger", at=2.0, sample="p")]
    found = curated(tmp_path, params, [*references(), *twins])
    assert found["anna-one"]["error"] == Reason.SECOND_FACE
    assert found["anna-two"]["status"] == "ok"
    assert found["anna-stranger"]["error"] == Reason.OTHER_IDENTITY


def test_the_clearly_largest_face_of_a_reference_picture_is_the_reference(tmp_path, params):
    beside = face("beside", at=3.0, sample="ref-anna", role="reference", face_px=80.0)
    found = curated(tmp_path, params, [beside, *references(), face("like-the-one-beside", at=3.0)])
    assert found["anna-ref-anna"]["reference"]
    assert not found["anna-beside"]["reference"]
    assert found["anna-like-the-one-beside"]["error"] == Reason.OTHER_IDENTITY
    assert found["anna-ref-anna"]["distance"] == 0


def test_a_group_photo_as_the_only_reference_asks_which_face_is_meant(tmp_path, params):
    beside = face("beside", at=3.0, sample="ref-anna", role="reference", box=[200.0, 0.0, 320.0, 120.0])
    with pytest.raises(
        FacemillError, match=r"anna: ref-anna.jpg shows 2 faces.*face: \[60, 60\].*facemill stage report"
    ):
        curated(tmp_path, params, [*references(), beside])


@pytest.mark.parametrize("stated", ["2", "260,50"])
def test_the_face_that_a_person_names_is_the_reference(tmp_path, params, stated):
    rows = [row | {"stated": stated if row["identity"] == "anna" else None} for row in references()]
    beside = face("beside", at=3.0, sample="ref-anna", role="reference", box=[200.0, 0.0, 320.0, 120.0])
    found = curated(tmp_path, params, [*rows, beside | {"stated": stated}, face("like-the-one-beside", at=3.0)])
    assert found["anna-beside"]["reference"]
    assert found["anna-like-the-one-beside"]["status"] == "ok"
    assert not found["anna-ref-anna"]["reference"]


def test_of_three_references_the_wrong_one_is_left_out_by_name(tmp_path, params, capsys):
    more = [face("ref2", at=0.2, role="reference"), face("wrong", at=0.9, role="reference")]
    found = curated(tmp_path, params, [*references(), *more, face("like-the-wrong-one", at=0.9), face("good", at=0.3)])
    assert (found["anna-wrong"]["error"], found["anna-wrong"]["reference"]) == (Reason.DOUBTFUL_REFERENCE, False)
    assert found["anna-like-the-wrong-one"]["error"] == Reason.OTHER_IDENTITY
    assert found["anna-good"]["status"] == "ok"
    assert "the reference wrong.jpg is left out (0.81 from the other references" in capsys.readouterr().out


def test_references_that_nothing_resembles_are_told(tmp_path, params, capsys):
    curated(tmp_path, params, [*references(), face("x", at=0.9), face("y", at=0.8)])
    assert "anna: none of the 2 collected faces looks like its references" in capsys.readouterr().out


def test_a_face_is_compared_with_its_own_identity_alone(tmp_path, params):
    like_bert = face("like-bert")
    like_bert["embedding"][1] = 5.0
    assert curated(tmp_path, params, [*references(), like_bert])["anna-like-bert"]["error"] == Reason.OTHER_IDENTITY


def test_a_duplicate_cluster_is_never_split(tmp_path, params):
    rows = [face(f"{n}", cluster=f"c{n // 4}", identity="anna" if n % 2 else "bert") for n in range(200)]
    found = curated(tmp_path, params, [*references(), *rows])
    sides = {}
    for row in found.values():
        sides.setdefault(row["cluster"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert 8 <= sum(row["split"] == "val" for row in found.values()) <= 40


def test_a_face_keeps_its_side_when_the_dataset_grows(tmp_path, params):
    rows = [*references(), *(face(f"{n}") for n in range(40))]
    before = curated(tmp_path / "a", params, rows)
    after = curated(tmp_path / "b", params, [*rows, *(face(f"new{n}") for n in range(40))])
    assert {key: after[key]["split"] for key in before} == {key: row["split"] for key, row in before.items()}


def test_each_identity_has_faces_on_both_sides_as_soon_as_it_can():
    one, two = [("a", "x")], [("b", "y"), ("b", "z")]
    assert not Split.of([*one, *two], 0.999, "ab").is_val("x")
    for share in (0.001, 0.999):
        assert sum(map(Split.of(two, share, "ab").is_val, "yz")) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30).map(str)), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
)
def test_whatever_the_clusters_nobody_is_left_without_training_faces(accepted, share):
    split = Split.of(accepted, share, "abc")
    assert split == Split.of(reversed(accepted), share, "abc")
    for identity in {who for who, _ in accepted}:
        assert not all(split.is_val(cluster) for who, cluster in accepted if who == identity)


def frames(count, video="talk.mp4", shots=1, **more):
    """Good frames of a video, one a second, that all look different."""
    place = {"source": "video", "pts": 0}
    return [
        face(f"{video}-{n}", **more) | place | {"url": f"{video}#pts={n}@1/1", "pts": n, "shot": n * shots // count}
        for n in range(count)
    ]


def sides(found):
    """The clusters of accepted faces on either side, each with its number of faces."""
    counts = {"train": Counter(), "val": Counter()}
    for row in found.values():
        if row["split"]:
            counts[row["split"]][row["cluster"]] += 1
    return counts


def test_the_shots_of_a_video_go_to_a_side_as_a_whole(tmp_path, params):
    counts = sides(curated(tmp_path, params, [*references(), *frames(200, shots=40)]))
    assert not set(counts["train"]) & set(counts["val"])
    assert all(count == 5 for cluster, count in (counts["train"] + counts["val"]).items() if "shot=" in cluster)
    assert 8 <= counts["val"].total() <= 50


def test_where_all_faces_are_of_one_shot_stretches_of_it_are_held_out(tmp_path, params):
    counts = sides(curated(tmp_path, params, [*references(), *frames(200)]))
    assert not set(counts["train"]) & set(counts["val"])
    assert 8 <= counts["val"].total() <= 50
    assert all(count == 5 for cluster, count in counts["val"].items() if "shot=" in cluster)


def test_a_copy_of_a_better_face_falls_and_a_video_keeps_each_look_once(tmp_path, params):
    best = face("best", sharpness=90.0)
    copy = face("copy") | {"look": best["look"], "licence": "CC0"}
    freer = face("freer", sharpness=60.0) | {"look": face("other")["look"], "licence": "CC0-1.0"}
    sharper = face("sharper") | {"look": face("other")["look"], "licence": "all rights reserved"}
    talk = frames(3)
    talk[1] |= {key: talk[0][key] for key in ("look", "landmarks")} | {"sharpness": 99.0}
    found = curated(tmp_path, params, [*references(), best, copy, freer, sharper, *talk])
    fallen = {key: (row["error"], row["detail"]) for key, row in found.items() if row["status"] != "ok"}
    assert fallen == {
        "anna-best": (Reason.NEAR_DUPLICATE, "of anna-copy"),
        "anna-sharper": (Reason.NEAR_DUPLICATE, "of anna-freer"),
        "anna-talk.mp4-0": (Reason.SAME_LOOK, "of anna-talk.mp4-1"),
    }


def test_faces_are_compared_again_only_where_those_of_their_identity_have_changed(tmp_path, params):
    """Of two parts that hold a person each: one part and the verdicts on it decide for whom anything is compared."""
    own = {who: [face(f"{who}-{at}", identity=who) for at in range(3)] for who in ("anna", "bert")}
    for number, (who, faces) in enumerate(own.items()):
        rows = [row for row in references() if row["identity"] == who] + faces
        put_part(tmp_path, number, rows)
    assert curate.run(params, tmp_path).worked == 6  # two parts judged, two people compared, two parts written
    assert curate.run(params, tmp_path).worked == 0
    own["anna"][1] |= {"look": own["anna"][0]["look"]}
    put_part(tmp_path, 0, [references()[0], *own["anna"]])
    assert curate.run(params, tmp_path).worked == 3  # a part, a person, a part
    found = {row["face_id"]: row["error"] for row in tables.iterate_rows(tmp_path / "data/dataset", DATASET)}
    assert found.pop("anna-anna-1") == Reason.NEAR_DUPLICATE
    assert set(found.values()) == {None}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4), st.integers(0, 2**16))
def test_however_faces_are_spread_over_parts_the_same_fall(tmp_path_factory, params, at_once, seed):
    """Faces that look alike in threes and fours, stills and frames; compared a few at a time from a file."""
    chance = np.random.default_rng(seed)
    kinds = [chance.integers(0, 255, 256, np.uint8).tobytes() for _ in range(3)]
    rows = []
    for number in range(12):
        frame = {"url": f"{chance.integers(0, 2)}.mp4#pts={number}@1", "pts": number} if chance.random() < 0.4 else {}
        look = {"look": kinds[chance.integers(0, 3)], "landmarks": [*np.arange(136.0)], "at": 0.1}
        rows.append(face(f"{number:02d}", **frame, **look, sharpness=float(chance.integers(50, 53))))
    found = []
    for cuts in ([12], sorted(chance.integers(0, 13, 3).tolist())):
        root = tmp_path_factory.mktemp("spread")
        put_part(root, 0, references())
        for number, (first, last) in enumerate(pairwise([0, *cuts, 12]), 1):
            put_part(root, number, rows[first:last])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("facemill.face_looks._COMPARED_AT_ONCE", at_once if len(found) else 4096)
            curate.run(params, root)
        found.append({row["face_id"]: row for row in tables.iterate_rows(root / "data/dataset", DATASET)})
    assert found[0] == found[1]
    assert sum(row["error"] in ("near_duplicate", "same_look") for row in found[0].values()) > 2


def test_of_rows_with_the_same_bytes_the_kept_one_counts_even_if_another_was_kept_before(tmp_path, params):
    rows = [*references(), face("one"), face("two")]
    curated(tmp_path, params, rows)
    path = tmp_path / "data/unique/00000.parquet"
    (one,) = [row for row in tables.part_rows(path, UNIQUE) if row["sample_id"] == "one"]
    for kept in ("mine", "theirs", "mine"):
        twins = [one | {"cluster": cluster, "keep": cluster == kept} for cluster in ("mine", "theirs")]
        others = [row for row in tables.part_rows(path, UNIQUE) if row["sample_id"] != "one"]
        tables.write_part(path, tables.from_rows([*others, *twins], UNIQUE))
        curate.run(params, tmp_path)
        found = {row["face_id"]: row for row in tables.iterate_rows(tmp_path / "data/dataset", DATASET)}
        assert found["anna-one"]["cluster"] == kept


def test_each_face_says_whose_picture_it_is_from_and_how_that_is_to_be_named(tmp_path, params):
    stated = {"licence": "https://creativecommons.org/licenses/by-sa/3.0/de/", "author": "Ann"}
    rows = [*references(), face("shown", **stated), face("free", licence="CC0", author="Bo", rights="own")]
    for page in ("https://example.org/File:A.jpg", "https://example.org/moved"):
        rows[2]["page"] = page
        found = curated(tmp_path, params, rows)
        names = ("page", "licence_id", "licence_version", "licence_address", "attribution")
        address = stated["licence"]
        assert [found["anna-shown"][name] for name in names] == [
            page, "CC-BY-SA-3.0-DE", "3.0", address, f"{page} by Ann, CC-BY-SA-3.0-DE ({address})",
        ]  # fmt: skip
        assert [found["anna-free"][name] for name in names[:3]] == ["", "CC0-1.0", "1.0"]
        assert (found["anna-free"]["attribution"], found["anna-free"]["rights"]) == ("", "own")
        assert found["anna-ref-anna"]["attribution"] == "ref-anna.jpg by an author who is not stated, no licence stated"


def test_an_identity_without_a_reference_is_named_with_the_remedy(tmp_path, params):
    lost = {"status": "rejected", "error": "no_face", "embedding": None, "role": "reference"}
    rows = [references()[0], face("ref-bert", identity="bert", **lost), face("x", identity="bert")]
    with pytest.raises(FacemillError, match=r"bert: no usable reference \(1 reference rows: 1 no_face\).*references"):
        curated(tmp_path, params, rows)


def test_an_identity_that_nothing_was_collected_for_is_named(tmp_path, params):
    with pytest.raises(FacemillError, match="bert: no usable reference \\(no reference picture came in\\)"):
        curated(tmp_path, params, [references()[0]])


def test_an_identity_without_a_single_good_face_is_an_error_with_the_counts(tmp_path, params):
    blurred = [references()[0], face("ref-bert", identity="bert", role="reference", sharpness=1.0)]
    faceless = face("f", identity="bert", status="rejected", error="no_face", embedding=None)
    with pytest.raises(FacemillError, match=r"bert: not one usable face in 2 rows \(1 blurred, 1 no_face\)"):
        curated(tmp_path, params, [*blurred, faceless])
    assert len(tables.read_table(tmp_path / "data/dataset", DATASET)) == 3
