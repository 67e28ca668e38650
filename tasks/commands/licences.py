"""Which terms bind what a project makes, for a person to read."""

from __future__ import annotations

from pathlib import Path

from facemill.terms import unique
from tasks.licences import licences, sentence
from tasks.params import load_params


def describe(root: Path, model: Path | None = None) -> list[str]:
    """The terms that bind the dataset, the model and the outputs, a line each, and what they mean for commercial use.

    Args:
        root: the project's folder.
        model: folder of another model than the project's.

    Raises:
        FacemillError: wrong parameters, a table of another version, a broken model.
    """
    params = load_params(root)
    found = licences(params, root, model)
    lines = []
    for bound in found:
        how = "from what was really used" if bound.made else "not made yet: from what params.yaml asks for"
        lines += [f"{bound.what} ({how})", *(f"  {sentence(each)}" for each in bound.terms)]
    lines += ["people", *(
        f"  {name}: {'; '.join([identity.rights.words, *identity.exceptions])}"
        for name, identity in params.identities.items()
    )]  # fmt: skip
    forbidding = unique(each for bound in found for each in bound.forbidding)
    bound_things = ", ".join(bound.what for bound in found if bound.forbidding)
    if not forbidding:
        return [*lines, "Commercial use: nothing here forbids it. The archive's videos have terms of their own."]
    named = "; ".join(each.name for each in forbidding)
    return [*lines, f"Commercial use: not of {bound_things}, because of {named}."]
