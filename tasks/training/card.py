"""The model card: what a person who is handed the weights should know (Mitchell et al. 2019, arXiv 1810.03993).

Its text is `model_card.md.j2`. Nothing in it changes from run to run of the same training, so that equal trainings give
equal folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from facemill.embeddings import SAME_PERSON
from facemill.terms import Terms
from tasks.licences import MODEL_TERMS

_TEMPLATE = "model_card.md.j2"
_MEANINGS = {
    "mae": "mean absolute error of a face drawn as itself, of 0…1",
    "dssim": "(1 − SSIM) / 2 of a face drawn as itself; 0 is perfect",
    "ssim": "structural similarity of a face drawn as itself; 1 is perfect",
    "psnr": "peak signal-to-noise ratio of a face drawn as itself, in dB",
    "identity_distance": "distance of a swapped face to the person it should be; "
    f"the same person lies within {SAME_PERSON}",
    "landmark_error": "how far a swap moves the 68 points, in % of the distance of the eyes",
}


@dataclass(frozen=True)
class Person:
    """An identity that the model can draw, with the rights to it and how many faces there were."""

    name: str
    rights: str  # basis, as params.yaml states it
    evidence: str
    train_faces: int
    held_out_faces: int
    exemplars: Mapping[str, int] = field(default_factory=dict)  # rights → real pictures that lie beside the weights


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
        parameters: how many the network has.
        people: whom it draws, on what ground.
        settings: how it was trained, as params.yaml has it, with what `auto` turned out to be; what is None, or was
            left to its defaults, stays out.
        metrics: on held-out faces, by name.
    """
    terms = [Terms.of_plain(each) for each in meta.get(MODEL_TERMS, [])]
    return _template().render(
        title=" and ".join(person.name for person in people),
        meta=meta,
        parameters=parameters,
        people=people,
        settings={name: kept for name, value in settings.items() if (kept := _stated(value)) not in (None, {}, [])},
        metrics=metrics,
        meanings=[(name, text) for name, text in _MEANINGS.items() if any(m.startswith(f"{name}/") for m in metrics)],
        terms=terms,
        has_exemplars=any(person.exemplars for person in people),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; what a person typed goes through `cell`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template(_TEMPLATE)


def _stated(value: Any) -> Any:
    """A setting without the parts of it that were left to their defaults."""
    return {name: part for name, part in value.items() if part is not None} if isinstance(value, Mapping) else value


def _cell(value: Any) -> str:
    """One line, and no bar that ends the cell: evidence is what a person typed."""
    return " ".join(str(value).split()).replace("|", "\\|")
