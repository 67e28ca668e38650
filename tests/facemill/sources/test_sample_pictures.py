"""Sets of sample pictures: what is planted is known, and is what it is said to be."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.errors import InputError
from facemill.pictures import decode
from facemill.reasons import Reason
from facemill.sources import Surroundings, fetch
from facemill.sources.sample import Planted, PlantedKind, SampleSource, picture_bytes, picture_set
from facemill.sources.sample.pictures import BROKEN_FORMS, SHARES

SEED = 4


@given(st.integers(4, 200), st.integers(0, 2**31 - 1))
def test_every_set_has_good_pictures_and_duplicates_of_good_ones(pictures: int, seed: int) -> None:
    planted = picture_set("hopper", pictures, seed)
    good = {picture.index for picture in planted if picture.kind is PlantedKind.GOOD}
    assert [picture.index for picture in planted] == list(range(pictures))
    assert len(good) >= 2
    assert all(picture.of in good for picture in planted if picture.of is not None)


def test_shares_are_as_stated() -> None:
    kinds = [picture.kind for picture in picture_set("collins", 200, SEED)]
    assert {kind: kinds.count(kind) for kind in SHARES} == {kind: round(200 * share) for kind, share in SHARES.items()}


def test_exact_duplicates_have_the_same_bytes_and_near_ones_look_the_same() -> None:
    planted = picture_set("hopper", 40, SEED)
    exact = next(picture for picture in planted if picture.kind is PlantedKind.EXACT_DUPLICATE)
    near = next(picture for picture in planted if picture.kind is PlantedKind.NEAR_DUPLICATE)
    assert picture_bytes(exact, SEED) == picture_bytes(planted[exact.of], SEED)
    copy, original = picture_bytes(near, SEED), picture_bytes(planted[near.of], SEED)
    assert copy != original
    assert np.corrcoef(_small(copy), _small(original))[0, 1] > 0.98


def test_a_stranger_is_the_other_person() -> None:
    strangers = [p for p in picture_set("hopper", 40, SEED) if p.kind is PlantedKind.STRANGER]
    assert {picture.person for picture in strangers} == {"collins"}


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("truncated", Reason.TRUNCATED),
        ("empty", Reason.EMPTY_FILE),
        ("text", Reason.NOT_A_PICTURE),
        ("huge", Reason.TOO_LARGE),
        ("noise", Reason.NOT_A_PICTURE),
    ],
)
def test_each_form_of_broken_file_has_its_reason(form: str, reason: Reason) -> None:
    assert form in BROKEN_FORMS
    data = picture_bytes(Planted(index=3, kind=PlantedKind.BROKEN, person="hopper", form=form), SEED)
    with pytest.raises(InputError) as found:
        decode(data, max_pixels=64_000_000)
    assert found.value.reason is reason


@pytest.mark.parametrize("index", range(6))
def test_no_detector_finds_a_face_in_a_faceless_picture(index: int) -> None:
    from facemill.detect import build_detector

    data = picture_bytes(Planted(index=index, kind=PlantedKind.FACELESS, person="hopper"), SEED)
    assert len(build_detector("hog", min_face_px=80).detect([decode(data)])[0]) == 0


def test_units_give_named_items_with_licence_and_author(tmp_path) -> None:
    units = SampleSource(person="hopper", pictures=5).plan("anna", "sample", Surroundings(seed=SEED))
    [item] = fetch(units[2])
    assert [unit.key for unit in units] == [f"sample:hopper/000{n}.jpg" for n in range(5)]
    assert (item.identity, item.role, item.url) == ("anna", "sample", "sample:hopper/0002.jpg")
    assert "public domain" in item.licence
    assert item.author
    assert item.page.startswith("https://")


def test_the_reference_is_the_portrait(tmp_path) -> None:
    [unit] = SampleSource(person="collins").plan("anna", "reference", Surroundings())
    [item] = fetch(unit)
    assert decode(item.data).shape == (512, 512, 3)


def _small(data: bytes) -> np.ndarray:
    grey = cv2.cvtColor(decode(data), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA).ravel()
