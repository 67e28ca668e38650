"""Licences in whatever words are the same licence, and what is no licence of Creative Commons keeps its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.picture_licences import is_wanted, licence_of


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
        ("CC-BY-SA-3.0-DE", "CC-BY-SA-3.0-DE"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("http://www.creativecommons.org/licenses/by-sa/3.0/de/deed.en", "CC-BY-SA-3.0-DE"),
        ("https://creativecommons.org/licenses/by/4.0/deed.de", "CC-BY-4.0"),
        ("Creative Commons Attribution 4.0", "CC-BY-4.0"),
        ("by-nc-nd", "CC-BY-NC-ND"),
        ("CC0", "CC0-1.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("pdm", "CC-PDM-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("Public domain", "Public domain"),
        ("All rights reserved", "All rights reserved"),
        ("GFDL 1.2", "GFDL 1.2"),
        ("  a\n licence ", "a licence"),
        ("https://creativecommons.org/licenses/sampling/1.0/", "https://creativecommons.org/licenses/sampling/1.0/"),
        ("", ""),
        (None, ""),
    ],
)
def test_words_and_addresses_are_an_id(stated: str | None, name: str) -> None:
    assert licence_of(stated).name == name
    assert licence_of(name).name == name


def test_version_and_address_are_known_where_they_were_stated() -> None:
    own = licence_of("CC BY 2.0")
    assert (own.version, own.address) == ("2.0", "https://creativecommons.org/licenses/by/2.0/")
    assert licence_of(own.address) == own
    assert licence_of("CC BY").address == ""


@pytest.mark.parametrize("stated", ["CC0", "pdm", "Public domain"])
def test_who_is_to_be_named_is_known(stated: str) -> None:
    assert not licence_of(stated).asks_credit
    assert licence_of("CC BY 4.0").asks_credit
    assert licence_of("").asks_credit


def test_a_list_of_wanted_licences_is_met_in_any_words() -> None:
    wanted = ["CC0-1.0", "cc-by-4.0", "agency contract 7"]
    assert is_wanted("https://creativecommons.org/licenses/by/4.0/", wanted)
    assert is_wanted("Agency contract 7", wanted)
    for other in ("CC BY 3.0", "CC-BY-NC-4.0", "", None):
        assert not is_wanted(other, wanted)
    assert is_wanted(None, [])


@given(st.text())
def test_any_text_is_some_licence(text: str) -> None:
    assert licence_of(licence_of(text).name) == licence_of(text) or licence_of(text).address
