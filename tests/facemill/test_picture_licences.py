"""Licences in whatever words are the same licence, and what is no licence of Creative Commons keeps its own."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from facemill.picture_licences import attribution, is_wanted, licence_of, work_of
from facemill.terms import Use


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
        ("Attribution-NonCommercial-ShareAlike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("Creative Commons Attribution License", "CC-BY"),
        ("CC BY 3.0 NL", "CC-BY-3.0-NL"),
        ("CC BY 4", "CC-BY-4.0"),
        ("CC BY 2.0 NC", "CC BY 2.0 NC"),
        ("by me", "by me"),
        ("Creative Commons Zero v1.0 Universal", "CC0-1.0"),
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


FREE = [
    "CC0", "pdm", "Public domain", "in the public domain", "https://creativecommons.org/publicdomain/MARK/1.0/",
    "public domain (US government work)", "U.S. Government Works", "United States Government Work",
    "http://www.usa.gov/government-works", "no known copyright restrictions", "https://www.flickr.com/commons/usage/",
    "http://rightsstatements.org/vocab/NKC/1.0/",
]  # fmt: skip
CREDITED = [
    "CC BY 4.0", "CC BY 3.0 NL", "CC BY-SA 3.0 NZ", "CC BY 2.0 NO", "cc-by-sa-4.0", "Attribution-ShareAlike 4.0",
    "https://creativecommons.org/licenses/by/3.0/nl/", "GFDL 1.2", "GFDL-1.3-or-later", "Free Art License 1.3",
    "OGL-UK-3.0",
]  # fmt: skip
RESEARCH = [
    "cc by-nc 2.0", "https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC BY-NC 3.0 NL", "CC BY 2.0 NC",
    "CC-BY-SA-NC", "https://creativecommons.org/licenses/by-nd-nc/1.0/", "for non-commercial research only",
    "Attribution-NonCommercial", "Non-Commercial", "academic use", "Editorial use only", "personal_use",
    "Educational", "public domain; cleared for personal use", "http://rightsstatements.org/vocab/InC-NC/1.0/",
    "http://rightsstatements.org/vocab/InC-EDU/1.0/", "http://rightsstatements.org/vocab/NoC-NC/1.0/",
    "All rights reserved, research permitted",
]  # fmt: skip
IN_DOUBT = [
    "All rights reserved", "all-rights-reserved", "http://rightsstatements.org/vocab/InC/1.0/", "InC",
    "Copyright 2020 Getty", "© Getty", "copyrighted", "fair use", "ours", "Agency contract 7", "by me", "by license",
    "not in the public domain", "public domain (disputed)", "public domain in the US only", "not CC0", "CC0 or ours",
    "https://creativecommons.org/licenses/sampling/1.0/", "https://example.org/cc0", "CC BY-ND 4.0", "by-nd",
    "http://rightsstatements.org/vocab/NoC-US/1.0/", "http://rightsstatements.org/vocab/UND/1.0/", "版权所有",
]  # fmt: skip
NOTHING_SAID = [
    None, "", " ", "?", "-", "unknown", "Unknown", "licence unknown", "Unknown license", "None", "n/a", "not stated",
    "no licence", "null",
]  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "use", "rank"),
    [
        *((stated, Use.ANY, 0) for stated in FREE),
        *((stated, Use.ANY, 1) for stated in CREDITED),
        *((stated, Use.RESEARCH, 2) for stated in RESEARCH),
        *((stated, Use.UNKNOWN, 2) for stated in IN_DOUBT),
        *((stated, Use.UNKNOWN, 3) for stated in NOTHING_SAID),
    ],
)
def test_use_rank_and_credit_are_those_of_one_reading(stated: str | None, use: Use, rank: int) -> None:
    found = licence_of(stated)
    assert (found.use, found.rank, found.asks_credit) == (use, rank, rank > 0)


@given(st.text(min_size=1), st.sampled_from([*FREE, *CREDITED]))
def test_what_is_free_is_not_free_with_more_words(more: str, free: str) -> None:
    """Letters and digits before it may say anything: that it is not, or what else binds."""
    assume(any(letter.isalnum() for letter in more))
    found = licence_of(f"{more} or {free}")
    assert found.use is not Use.ANY


@pytest.mark.parametrize(
    ("stated", "author", "text"),
    [
        ("CC BY 4.0", " Ann\n Other ", "p by Ann Other, CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/)"),
        ("Agency contract 7", "", "p by an author who is not stated, Agency contract 7"),
        ("", "Bo", "p by Bo, no licence stated"),
        ("CC0", "Cy", ""),
    ],
)
def test_whoever_has_to_be_named_is_named_in_a_line(stated: str, author: str, text: str) -> None:
    assert attribution(licence_of(stated), author, "p") == text


def test_a_work_is_its_page_else_its_address_without_the_place_of_a_frame() -> None:
    assert work_of("https://example.org/File:A", "a.jpg") == "https://example.org/File:A"
    assert work_of("", "clips/talk.mp4#pts=1@1/25") == work_of(None, "clips/talk.mp4") == "clips/talk.mp4"


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
