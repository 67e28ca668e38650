"""The model card: what a person who is handed the weights should know (Mitchell et al. 2019, arXiv 1810.03993).

Nothing in it changes from run to run of the same training, so that equal trainings give equal folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Person:
    """An identity that the model can draw."""

    name: str
    rights: str  # basis, as params.yaml states it
    evidence: str
    train_faces: int
    held_out_faces: int


def model_card(
    meta: Mapping[str, Any],
    parameters: int,
    people: Sequence[Person],
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """The card as Markdown.

    Args:
        meta: what `model.json` says.
        parameters: of the network.
        people: whom it draws, on what ground.
        settings: how it was trained, as params.yaml has it, with what `auto` turned out to be.
        metrics: on held-out faces, by name.
    """
    title = " and ".join(person.name for person in people)
    drawn = {name: kept for name, value in settings.items() if (kept := _stated(value)) not in (None, {}, [])}
    return "\n".join(
        [
            f"# Face-swap model: {title}",
            "",
            f"`{meta['name']}`, preset `{meta['preset']}`: {parameters:,} parameters, faces of "
            f"{meta['input_px']} × {meta['input_px']} px, {meta.get('steps', '?')} steps.",
            "",
            "## Data",
            "",
            f"Dataset `{meta.get('dataset', 'unknown')}` (SHA-256 of its table).",
            "",
            *_table(
                ("identity", "rights", "evidence", "training faces", "held-out faces"),
                [(p.name, p.rights, p.evidence, p.train_faces, p.held_out_faces) for p in people],
            ),
            "",
            "The rights are those that the maker stated for each person's face; they bind whoever uses the weights.",
            "",
            "## Measured on held-out faces",
            "",
            *_table(("metric", "value"), [(name, f"{value:.4f}") for name, value in sorted(metrics.items())]),
            "",
            *(
                f"- `{name}`: {meaning}"
                for name, meaning in _MEANINGS.items()
                if any(m.startswith(f"{name}/") for m in metrics)
            ),
            "",
            "## Training",
            "",
            *_table(("setting", "value"), [(name, value) for name, value in sorted(drawn.items())]),
            "",
            "## Licence",
            "",
            "facemill's code is under the Apache licence 2.0. These weights are bound by the rights above, and by the "
            "terms of what they were made with:",
            "",
            *(f"- {terms}" for terms in _terms(meta.get("training", {}))),
            "",
            "## Intended use",
            "",
            f"Swapping faces between {title} in pictures and videos, within the rights above, marked as synthetic.",
            "",
            "## Limits",
            "",
            "- It draws these people only; of anybody else's face it makes one of theirs.",
            "- Poses, expressions and light that the training faces do not show are drawn badly: the number of faces "
            "above says how much was seen.",
            "- It is no evidence of what anybody did or said, and not to be used to deceive, to harass or to identify.",
            "- The weights hold likenesses: treat them as personal data of the people named.",
            "",
        ]
    )


def _terms(training: Mapping[str, Any]) -> list[str]:
    """What the networks that took part in a training ask of those who use what came of it."""
    terms = [
        "faces were aligned by dlib's 68-point model, trained on iBUG 300-W: **research only**; take another landmark "
        "model, and train again, for anything else"
    ]
    if str(training.get("features") or "").startswith("VGG"):
        terms.append(
            f"pictures were compared by {training['features']}, trained on ImageNet, whose pictures are for research"
        )
    if training.get("light"):
        terms.append("light was compared by a network trained on Extended Yale B: **research only**, with citation")
    return terms


def _stated(value: Any) -> Any:
    """A setting without the parts of it that were left to their defaults."""
    return {name: part for name, part in value.items() if part is not None} if isinstance(value, Mapping) else value


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(_cell(value) for value in line)} |" for line in lines]


def _cell(value: Any) -> str:
    """One line, and no bar that ends the cell: evidence is what a person typed."""
    return " ".join(str(value).split()).replace("|", "\\|")


_MEANINGS = {
    "mae": "mean absolute error of a face drawn as itself, of 0…1",
    "dssim": "(1 − SSIM) / 2 of a face drawn as itself; 0 is perfect",
    "ssim": "structural similarity of a face drawn as itself; 1 is perfect",
    "psnr": "peak signal-to-noise ratio of a face drawn as itself, in dB",
    "identity_distance": "distance of a swapped face to the person it should be; the same person lies within 0.6",
    "landmark_error": "how far a swap moves the 68 points, in % of the distance of the eyes",
}
