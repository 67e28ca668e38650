"""What is wrong with values of params.yaml, said in one line each, as the file's reader would point at it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from facemill.errors import FacemillError
from tasks.params_file import PARAMS_FILE


class WrongParams(FacemillError):
    """Values of params.yaml that are wrong; `lines` has one for each, which names its key."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(f"{PARAMS_FILE} has {len(lines)} wrong value(s):\n  " + "\n  ".join(lines))
        self.lines = tuple(lines)

    def __reduce__(self) -> tuple[type[WrongParams], tuple[tuple[str, ...]]]:
        return WrongParams, (self.lines,)


class WrongValues:
    """Collects what is wrong with parameters, so that all of it is said at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def under(self, key: str) -> Iterator[None]:
        """Notes a FacemillError of its block as one of this key, and lets the code behind the block go on.

        An empty key, or a WrongParams: the message names its keys itself.
        """
        try:
            yield
        except WrongParams as error:
            self._lines += error.lines
        except FacemillError as error:
            self._lines.append(f"{key}: {error}" if key else str(error))

    def complain(self) -> None:
        """Raises WrongParams if there is anything wrong."""
        if self._lines:
            raise WrongParams(self._lines)


def lines_of(error: ValidationError, values: Any, known: Sequence[str]) -> list[str]:
    """What pydantic found wrong as `key: what`, a line for each key.

    Args:
        error: of the check. Where a value may be several things, none of which it is, it has a problem for each.
        values: what was checked.
        known: all keys that there are, among which the nearest to an unknown one is looked for.
    """
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        key, message = _key_and_message(problem, values, known)
        problems.setdefault(key, []).append(message)
    return [f"{key}: {'; or '.join(messages)}" if key else "\n  ".join(messages) for key, messages in problems.items()]


def _key_and_message(problem: Any, values: Any, known: Sequence[str]) -> tuple[str, str]:
    """Where it is wrong, as the file's reader would point at it, and a sentence; the nearest key for an unknown one."""
    kind = problem["type"]
    key = _place_of(problem["loc"], values, named=kind in ("missing", "missing_argument", *_UNKNOWN))
    if kind in _UNKNOWN:
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        instead = _MOVED.get(key) or (f"did you mean {nearest[0]!r}?" if nearest else "")
        return key, "unknown key" + (f"; {instead}" if instead else "")
    if key == "convert.encoder" and isinstance(problem["input"], str):
        return key, f"write `convert: {{encoder: {{name: {problem['input']}}}}}`"
    if kind in ("missing", "missing_argument"):
        return key, "missing" + _MISSING.get(key.rpartition(".")[2], "")
    if kind == "union_tag_not_found":
        return f"{key}.kind", "missing"
    if kind == "union_tag_invalid":
        return f"{key}.kind", f"there is no {problem['ctx']['tag']!r}; there are {problem['ctx']['expected_tags']}"
    message = problem["msg"].removeprefix("Value error, ")
    quoted = "; put it in quotes" if kind == "string_type" and isinstance(problem["input"], int | float) else ""
    return key, f"{message}{'' if kind == 'value_error' else _shown(problem['input'])}{quoted}"


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = {"rights": " (state on what ground this person's face may be used)"}


def _place_of(parts: tuple[int | str, ...], values: Any, *, named: bool) -> str:
    """The key with what pydantic puts in between left out: the chosen `kind`, and what a value could have been.

    named: the last part is a key that is not there.
    """
    kept = []
    for part in parts[:-1] if named else parts:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue
        kept.append(part)
    return ".".join(str(part) for part in (*kept, *(parts[-1:] if named else ())))


def _shown(value: Any) -> str:
    """A plain value as messages show it: `true` and `null` as the file has them, long ones cut."""
    if isinstance(value, dict | list):
        return ""
    text = json.dumps(value, ensure_ascii=False) if value is None or isinstance(value, bool) else repr(value)
    return f" (got {text if len(text) <= 60 else text[:57] + '…'})"


_BECOMES = "write `convert: {becomes: {bert: anna}}`: Bert becomes Anna"
_LOOKING = ("detector", "detector_options", "landmarks", "landmark_options", "min_face_px", "max_side_px", "smoothing")
_MOVED = {
    # a video is tracked once, whoever is replaced in it
    **{f"convert.{key}": f"write `track: {{{key}: …}}`" for key in _LOOKING},
    "convert.detect_every": "write `track: {every: …}`",
    "train.preview_every": "write `train: {evaluate_every: …}`: each evaluation draws a preview",
    # elsewhere the source is the face that is put in: a near key would turn a conversion round in silence
    "convert.source": _BECOMES,
    "convert.target": _BECOMES,
    "convert.crf": "write `convert: {encoder: {crf: …}}`",
    "convert.encoder_preset": "write `convert: {encoder: {preset: …}}`",
}
"""What to write for a key that was one once, or is one elsewhere."""
