"""decisions.csv: a person's word stands above the rules, and costs what it changes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_curate import face, params, put_part, references

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_json
from facemill.reasons import Reason
from facemill.schema import DATASET, UNIQUE
from tasks import curate
from tasks.curating.decisions import (
    COLUMNS,
    DECISIONS_FILE,
    Decision,
    Verdict,
    as_content,
    changes,
    parse_decisions,
    read_decisions,
    write_decisions,
)

__all__ = ["params"]  # the fixture
PEOPLE = ("anna", "bert")


def sha(name):
    return hashlib.sha256(name.encode()).hexdigest()


def shown(name, **more):
    """A face of a picture whose name is a SHA-256, as in real tables; its box is 120 px wide, in the corner."""
    return face(name, sample=more.pop("sample", sha(name)), **more)


def say(root, *lines):
    (root / DECISIONS_FILE).write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", encoding="utf-8")


def curated(root, params, *parts):
    """Runs the stage over some parts; gives the result by face_id."""
    for number, rows in enumerate(parts):
        put_part(root, number, rows)
    curate.run(params, root)
    return {row["face_id"]: row for row in tables.iterate_rows(root / "data/dataset", DATASET)}


@pytest.mark.parametrize(
    "fault",
    [
        {"at": 0.9},
        {"face_px": 79.0},
        {"sharpness": 1.0},
        {"yaw": -80.0},
        {"visibility": 0.1},
    ],
)
def test_a_kept_face_is_accepted_whatever_the_rules_say(tmp_path, params, fault):
    say(tmp_path, f"{sha('bad')},40,40,keep,anna,ann,,her only profile")
    found = curated(tmp_path, params, [*references(), shown("bad", **fault)])["anna-bad"]
    assert (found["status"], found["error"]) == ("ok", None)
    assert found["split"] in ("train", "val")
    assert found["detail"].startswith("a person has kept it; the rules say ")


def test_a_face_that_could_not_be_found_stays_out_whatever_is_said(tmp_path, params, capsys):
    say(tmp_path, f"{sha('none')},,,keep,anna,,,")
    unread = shown("none", status="failed", error="truncated", embedding=None)
    found = curated(tmp_path, params, [*references(), shown("good"), unread])
    assert found["anna-none"]["error"] == Reason.TRUNCATED
    assert "1 are about pictures or faces that are not there" in capsys.readouterr().out


def test_a_dropped_face_is_rejected_with_what_the_rules_said(tmp_path, params):
    say(tmp_path, f"{sha('good')},,,drop,,,,", f"{sha('blurred')},40,40,drop,,,,")
    rows = [*references(), shown("good"), shown("other"), shown("blurred", sharpness=3.0)]
    found = curated(tmp_path, params, rows)
    assert found["anna-good"]["error"] == found["anna-blurred"]["error"] == Reason.DROPPED
    assert found["anna-good"]["detail"] == "the rules take it"
    assert found["anna-blurred"]["detail"] == "the rules say blurred, 3.0, limit 15"
    assert found["anna-other"]["status"] == "ok"


def test_a_reassigned_face_counts_for_the_other_person(tmp_path, params):
    say(tmp_path, f"{sha('his')},40,40,keep,bert,,,")
    found = curated(tmp_path, params, [*references(), shown("good"), shown("his")])
    assert (found["anna-his"]["identity"], found["anna-his"]["status"]) == ("bert", "ok")
    assert found["anna-good"]["identity"] == "anna"


def test_of_a_picture_collected_for_two_one_row_is_kept(tmp_path, params):
    say(tmp_path, f"{sha('both')},40,40,keep,bert,,,")
    both = [shown("both", identity=who) for who in PEOPLE]
    found = curated(tmp_path, params, [*references(), shown("good")], both)
    assert found["anna-both"]["error"] == Reason.DROPPED
    assert (found["bert-both"]["identity"], found["bert-both"]["status"]) == ("bert", "ok")


def test_in_a_picture_of_several_faces_the_place_says_which(tmp_path, params):
    group = [
        shown("left", sample=sha("group"), at=0.3),
        shown("right", sample=sha("group"), at=0.5, box=[200.0, 0.0, 320.0, 120.0]),
    ]
    say(tmp_path, f"{sha('group')},260,60,keep,anna,,,")
    found = curated(tmp_path, params, [*references(), *group])
    assert (found["anna-right"]["status"], found["anna-left"]["error"]) == ("ok", Reason.SECOND_FACE)
    say(tmp_path, f"{sha('group')},,,keep,anna,,,")
    with pytest.raises(FacemillError, match=r"line 2: the picture has 2 faces; .* x,y: 60,60, 260,60"):
        curate.run(params, tmp_path)


def test_a_word_about_a_face_counts_before_one_about_its_picture(tmp_path, params):
    group = [
        shown("left", sample=sha("group")),
        shown("right", sample=sha("group"), at=0.5, box=[200.0, 0.0, 320.0, 120.0]),
    ]
    say(tmp_path, f"{sha('group')},,,drop,,,,", f"{sha('group')},260,60,keep,anna,,,")
    found = curated(tmp_path, params, [*references(), *group])
    assert (found["anna-right"]["status"], found["anna-left"]["error"]) == ("ok", Reason.DROPPED)


def test_two_words_about_one_face_are_a_question(tmp_path, params):
    say(tmp_path, f"{sha('good')},40,40,drop,,,,", f"{sha('good')},50,50,keep,anna,,,")
    with pytest.raises(FacemillError, match=r"lines 2 and 3 say different things of one face"):
        curated(tmp_path, params, [*references(), shown("good")])


def test_a_dropped_reference_defines_nobody_and_a_kept_one_is_never_doubted(tmp_path, params):
    agreeing = [shown(f"ref{number}", at=0.05 * number, role="reference") for number in range(3)]
    child = shown("child", at=0.9, role="reference")
    rows = [references()[1], *agreeing, child]
    assert curated(tmp_path, params, rows)["anna-child"]["error"] == Reason.DOUBTFUL_REFERENCE
    say(tmp_path, f"{sha('child')},60,60,keep,anna,,,", f"{sha('ref0')},60,60,drop,,,,")
    found = curated(tmp_path, params, rows)
    assert found["anna-child"]["reference"]
    assert found["anna-child"]["status"] == "ok"
    assert not found["anna-ref0"]["reference"]


def test_what_was_said_of_a_picture_passes_to_the_copy_that_stands_for_it(tmp_path, params):
    large = shown("large", box=[200.0, 200.0, 400.0, 400.0])
    put_part(tmp_path, 0, [*references(), large])
    pictures = [*tables.iterate_rows(tmp_path / "data/unique", UNIQUE)]
    for row in pictures:
        row |= {"width": 800, "height": 800}
    fallen = {"sample_id": sha("small"), "identity": "anna", "keep": False, "duplicate_of": sha("large")}
    pictures.append(fallen | {"width": 200, "height": 200, "cluster": sha("large")})
    tables.write_part(tmp_path / "data/unique/00000.parquet", tables.from_rows(pictures, UNIQUE))
    say(tmp_path, f"{sha('small')},75,75,drop,,,,")
    curate.run(params, tmp_path)
    found = {row["face_id"]: row for row in tables.iterate_rows(tmp_path / "data/dataset", DATASET)}
    assert found["anna-large"]["error"] == Reason.DROPPED


def test_kept_copies_stay_and_never_lie_on_both_sides(tmp_path, params):
    looks = {"look": bytes(range(256)), "landmarks": [float(one) for one in range(136)]}
    twins = [shown(f"twin{number}", sharpness=90.0 - number, **looks) for number in range(20)]
    rows = [*references(), *twins]
    found = curated(tmp_path, params, rows)
    assert [found[f"anna-twin{number}"]["error"] for number in (0, 1)] == [None, Reason.NEAR_DUPLICATE]
    say(tmp_path, *(f"{sha(f'twin{number}')},,,keep,anna,,," for number in range(1, 20)))
    found = curated(tmp_path, params, rows)
    assert found["anna-twin0"]["error"] == Reason.NEAR_DUPLICATE  # this one rather than that
    kept = [found[f"anna-twin{number}"] for number in range(1, 20)]
    assert {row["status"] for row in kept} == {"ok"}
    assert len({row["split"] for row in kept}) == 1


def test_a_decision_costs_the_part_that_its_face_lies_in_and_its_identity(tmp_path, params, capsys):
    parts = [[*references()], *([shown(f"{part}{number}") for number in range(8)] for part in "abc")]
    parts[-1].append(shown("his", identity="bert"))
    found = curated(tmp_path, params, *parts)
    trained = next(name for name, row in found.items() if name.startswith("anna-c") and row["split"] == "train")
    before = {path.name: path.stat().st_ino for path in (tmp_path / "data/dataset").glob("*.parquet")}
    say(tmp_path, f"{sha(trained.removeprefix('anna-'))},,,drop,,,,")
    capsys.readouterr()
    curated(tmp_path, params)
    told = capsys.readouterr().out
    assert "curate-judge: 1/1 shards" in told
    assert "curate-repeats: 1/1 shards" in told  # anna's: bert's are known
    after = {path.name: path.stat().st_ino for path in (tmp_path / "data/dataset").glob("*.parquet")}
    assert [name for name in before if before[name] != after[name]] == ["00003.parquet"]


def test_who_when_and_why_decide_nothing(tmp_path, params):
    say(tmp_path, f"{sha('good')},,,keep,anna,ann,2026-11-26,fine")
    curated(tmp_path, params, [*references(), shown("good")])
    content = (tmp_path / "data/decisions.json").read_bytes()
    say(tmp_path, f"{sha('good')},,,keep,anna,bob,2026-11-27,still fine")
    curate.run(params, tmp_path)
    assert (tmp_path / "data/decisions.json").read_bytes() == content
    assert read_json(tmp_path / "data/decisions.json")["decisions"] == [[sha("good"), None, None, "keep", "anna"]]


def test_changes_are_told_by_number():
    def content(*said):
        return as_content(Decision(sha(name), None, verdict, who) for name, verdict, who in said)

    old = content(("a", Verdict.DROP, ""), ("b", Verdict.DROP, ""))
    new = content(("a", Verdict.KEEP, "anna"), ("c", Verdict.DROP, ""), ("d", Verdict.DROP, ""))
    assert changes(old, new) == ["decisions: 2 new, 1 changed, 1 taken back"]
    assert changes(new, new) == []


GOOD = f"{sha('a')},1,2,keep,anna,,,"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sample,verdict\n", r"line 1: the first line has to be `sample_id,x,y,verdict,identity,by,date,why`"),
        (",".join([*COLUMNS, "verdit"]), r"line 1: the first line has to be"),
        ("sample_id;x;y;verdict;identity\n", r"line 1: the first line has to be"),
        (f"{GOOD},more", r"line 2: 9 values for 8 columns; a text with a comma stands in quotes"),
        ("abc,1,2,keep,anna,,,", r"line 2: 'abc' is no sample_id: 64 digits"),
        (f"{sha('a')},1.5,2,keep,anna,,,", r"line 2: x and y are '1.5' and '2': write both in whole pixels"),
        (f"{sha('a')},1,,keep,anna,,,", r"line 2: x and y are"),
        (f"{sha('a')},²,1,keep,anna,,,", r"line 2: x and y are"),
        (f"{sha('a')},1,2,maybe,anna,,,", r"line 2: the verdict is 'maybe': write keep or drop"),
        (f"{sha('a')},1,2,keep,carl,,,", r"line 2: the face that is kept is 'carl', whom params.yaml does not know"),
        (f"{sha('a')},1,2,keep,,,,", r"line 2: the face that is kept is nobody's: write whose it is \(anna, bert\)"),
        (f"{sha('a')},1,2,drop,anna,,,", r"line 2: a face that is dropped is nobody's"),
        (f"{GOOD}\n\n{GOOD}", r"line 4: this face stands in line 2, too; take one of them out"),
        (f'{sha("a")},1,2,keep,anna,,,"why', r"line \d: not CSV .*close its quotes"),
        (f"{GOOD}\n{sha('b')},1,2,keep,anna,,,{'x' * 200_000}", r"line 3: not CSV"),
    ],
)
def test_a_broken_file_is_told_with_line_and_remedy(text, told):
    text = text if text.startswith("sample") else ",".join(COLUMNS) + "\n" + text
    with pytest.raises(FacemillError, match=told):
        parse_decisions(text.encode(), DECISIONS_FILE, PEOPLE)


def test_other_encodings_and_endless_files_are_told():
    with pytest.raises(FacemillError, match=r"line 2: not UTF-8"):
        parse_decisions((",".join(COLUMNS) + f"\n{GOOD}é").encode("latin-1"), DECISIONS_FILE, PEOPLE)
    with pytest.raises(FacemillError, match=r"more than 64 MiB"):
        parse_decisions(b"x" * (64 * 2**20 + 1), DECISIONS_FILE, PEOPLE)


@given(st.binary(max_size=400))
def test_foreign_bytes_raise_nothing_but_our_error(data):
    for start in (b"", ",".join(COLUMNS).encode() + b"\n", ",".join(COLUMNS).encode() + b"\n" + GOOD.encode()):
        try:
            parse_decisions(start + data, DECISIONS_FILE, PEOPLE)
        except FacemillError:
            continue


_words = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20).map(str.strip)
_places = st.none() | st.tuples(*[st.integers(0, 999_999)] * 2)


@given(
    st.lists(
        st.builds(
            Decision,
            st.integers().map(lambda one: sha(str(one))),
            _places,
            st.just(Verdict.KEEP),
            st.sampled_from(PEOPLE),
        )
        | st.builds(
            Decision,
            st.integers().map(lambda one: sha(str(one))),
            _places,
            st.just(Verdict.DROP),
            by=_words,
            date=_words,
            why=_words,
        ),
        unique_by=lambda one: one.about,
    )
)
@settings(max_examples=30)  # each is flushed to the disk
def test_what_is_written_is_read(tmp_path_factory, decisions):
    root = tmp_path_factory.mktemp("decisions")
    write_decisions(root / DECISIONS_FILE, decisions)
    assert read_decisions(root, PEOPLE) == decisions


def test_a_file_of_a_spreadsheet_is_read():
    text = (
        "\ufeff"
        + ",".join(COLUMNS)
        + "\r\n"
        + GOOD
        + '\r\n"'
        + sha("b")
        + '",,,drop,,ann,,"sun, glasses"\r\n,,,,,,,\r\n'
    )
    assert [one.why for one in parse_decisions(text.encode(), "x", PEOPLE)] == ["", "sun, glasses"]


def test_a_budget_takes_every_look_and_whatever_a_person_kept(tmp_path, params):
    params = params.model_copy(update={"curate": params.curate.model_copy(update={"budget": 4})})
    frontal = [shown(f"frontal{number}", sharpness=90.0 - number) for number in range(8)]
    turned = [shown("turned", yaw=40.0, sharpness=20.0), shown("up", pitch=25.0, sharpness=20.0)]
    say(tmp_path, f"{sha('frontal7')},,,keep,anna,,,")
    found = curated(tmp_path, params, [*references(), *frontal, *turned])
    taken = {name for name, row in found.items() if row["identity"] == "anna" and row["status"] == "ok"}
    assert len(taken) == 4
    assert "anna-frontal7" in taken
    left = found["anna-frontal6"]
    assert (left["error"], left["detail"]) == (Reason.OVER_BUDGET, "4 of its identity are wanted")
    assert {row["split"] for row in found.values() if row["status"] == "ok"} <= {"train", "val"}
