"""The model card says what was stated, and cannot be broken by it."""

from __future__ import annotations

from typing import Any

from tasks.training.card import Person, model_card

META: dict[str, Any] = {"name": "autoencoder", "preset": "small", "input_px": 64, "steps": 1200, "dataset": "abc123"}
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


def test_metrics_come_with_their_meaning_and_unset_settings_stay_out() -> None:
    text = card(**{"ssim/anna": 0.9})
    assert "| ssim/anna | 0.9000 |" in text
    assert "- `ssim`: structural similarity" in text
    assert "`dssim`" not in text
    assert "deadline_s" not in text


def test_terms_of_networks_that_took_part_are_told() -> None:
    assert "VGG" not in card()
    assert "dlib's 68-point model, trained on iBUG 300-W: **research only**" in card()
    taught = {**META, "training": {"features": "VGG19", "light": True}}
    text = model_card(taught, 1, [ANNA], {}, {})
    assert "compared by VGG19, trained on ImageNet" in text
    assert "Extended Yale B: **research only**" in text
