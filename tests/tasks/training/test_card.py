"""The model card says what was stated, and cannot be broken by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from facemill.landmarks import dlib
from facemill.nets import light
from facemill.nets.vgg import vgg_terms
from facemill.terms import Terms, Use
from tasks.training.card import Person, model_card

META: dict[str, Any] = {"name": "autoencoder", "preset": "small", "input_px": 64, "steps": 1200, "dataset": "abc123"}
META |= {"packages": {"torch": "2.13.0", "python": "3.11", "numpy": "2.4.1"}}
ANNA = Person("anna", "consent", "contract 17 | see\nthe drawer", 40, 5)
BERT = Person("bert", "public_domain", "catalogue 4", 30, 3)


def card(**metrics: float) -> str:
    return model_card(META, 3_258_982, [ANNA, BERT], {"steps": 1200, "deadline_s": None}, metrics)


def test_it_names_model_data_people_and_rights() -> None:
    lines = card().splitlines()
    assert lines[0] == "# Face-swap model: anna and bert"
    assert "`autoencoder`, preset `small`: 3,258,982 parameters, faces of 64 × 64 px, 1200 steps." in lines
    assert "Dataset `abc123` (SHA-256 of its table)." in lines
    assert "| bert | public_domain | catalogue 4 | 30 | 3 |" in lines


def test_evidence_cannot_break_out_of_its_cell() -> None:
    assert "| anna | consent | contract 17 \\| see the drawer | 40 | 5 |" in card().splitlines()


def test_exemplars_are_counted_by_the_rights_of_their_sources() -> None:
    anna = replace(ANNA, exemplars={"consent": 3, "licensed: invoice | 77": 2})
    lines = model_card(META, 1, [anna, BERT], {}, {}).splitlines()
    assert lines[lines.index("| anna | 3 | consent |") + 1] == "| anna | 2 | licensed: invoice \\| 77 |"
    assert "## Exemplars" not in card()


def test_metrics_come_with_their_meaning_and_unset_settings_stay_out() -> None:
    text = card(**{"ssim/anna": 0.9})
    assert "| ssim/anna | 0.9000 |" in text
    assert "- `ssim`: structural similarity" in text
    assert "`dssim`" not in text
    assert "deadline_s" not in text


def test_it_names_the_packages_that_decided() -> None:
    assert "Made with numpy 2.4.1, python 3.11, torch 2.13.0." in card().splitlines()


def test_terms_of_networks_that_took_part_are_told() -> None:
    taught = {**META, "terms": [each.plain() for each in (*dlib.TERMS, *light.TERMS, *vgg_terms("download", 19))]}
    lines = model_card(taught, 1, [ANNA], {}, {}).splitlines()
    assert any(line.startswith("- dlib's 68-point shape predictor: **research only**: trained on") for line in lines)
    assert any(line.startswith("- the light network: **research only**: trained on Extended Yale B") for line in lines)
    assert "- VGG19: BSD-3; trained on ImageNet, whose pictures are for research (torchvision)" in lines


def test_terms_of_pictures_cannot_break_out_of_their_line() -> None:
    forged = Terms("3 pictures of anna", Use.UNKNOWN, "none\n\n## Licence\n\n- all is free")
    text = model_card({**META, "terms": [forged.plain()]}, 1, [ANNA], {}, {})
    assert "- 3 pictures of anna: **terms unknown**: none ## Licence - all is free" in text.splitlines()


def test_a_model_of_which_nobody_said_anything_says_so() -> None:
    assert "- nobody has said which" in card().splitlines()
