"""What classes of settings share: limits of values and a sentence for each, declared where they are used.

    @dataclass(frozen=True, kw_only=True)
    class Blur(Settings):
        strength: Annotated[float, Limits(ge=0, le=1)] = 0.5
        # then, as a text below the field: "Share of the blurred picture."

Such a class checks itself, with nothing but Python, since a bare GPU machine has no pydantic. Pydantic takes it as it
stands, limits included, so that it is a group of `params.yaml` too (`tasks.params`), and `facemill.command_options`
makes a command line's options of it.
"""

from __future__ import annotations

import ast
import inspect
import json
import operator
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Limits:
    """Which values a field takes, as metadata of an `Annotated` number or text. None stands for no limit.

    Attributes:
        ge, gt, le, lt: at least, more than, at most, less than.
        pattern: a regular expression that the text must match; begin it with ^ and end it with $.
        max_length: of a text, in characters.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    pattern: str | None = None
    max_length: int | None = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type, as the end of a sentence; None where nothing is."""
        for name, limit in self._given.items():
            sentence, holds = _SENTENCES[name]
            if not holds(value, limit):
                return f"{sentence} {limit}, got {value!r}"
        return None

    def __str__(self) -> str:
        """Of numbers, for help texts: `≥ 1`, `> 0, ≤ 1`."""
        return ", ".join(f"{_SIGNS[name]} {limit:g}" for name, limit in self._given.items() if name in _SIGNS)

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> Any:
        """Pydantic's schema of a number or a text is a mapping with keys of these very names."""
        return {**handler(kind), **self._given}

    @property
    def _given(self) -> dict[str, Any]:
        return {name: limit for name, limit in vars(self).items() if limit is not None}


_SENTENCES: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": ("must be at least", operator.ge),
    "gt": ("must be more than", operator.gt),
    "le": ("must be at most", operator.le),
    "lt": ("must be less than", operator.lt),
    "pattern": ("must match", lambda value, limit: re.search(limit, value) is not None),
    "max_length": ("must not be longer in characters than", lambda value, limit: len(value) <= limit),
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

Count = Annotated[int, Limits(ge=1)]
Natural = Annotated[int, Limits(ge=0)]
Positive = Annotated[float, Limits(gt=0)]
NotNegative = Annotated[float, Limits(ge=0)]
Share = Annotated[float, Limits(ge=0, le=1)]
Name = Annotated[str, Limits(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""Of something that is registered under it, or of a person."""
DetectorNames = Annotated[str, Limits(pattern=r"^[a-z0-9_]+(, ?[a-z0-9_]+)*$", max_length=64)]
"""One detector, or several with commas between: the next is asked where those before it found no face."""


class SettingsError(ValueError):
    """Values that settings do not take.

    Attributes:
        problems: what is wrong, by the name of the field.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name} {problem}" for name, problem in self.problems.items()))


class Settings:
    """Base of a frozen dataclass that checks its values when it is made. Raises SettingsError, which names them all."""

    def __post_init__(self) -> None:
        problems = {name: problem_of(hint, getattr(self, name)) for name, hint in hints(type(self)).items()}
        if found := {name: problem for name, problem in problems.items() if problem}:
            raise SettingsError(found)

    def plain(self) -> dict[str, Any]:
        """The values by field as JSON has them, paths as they were written."""
        # `Settings` itself is no dataclass, each class of it is one, which mypy cannot know here
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))  # type: ignore[call-overload]
        return values


def hints(settings: type[Any]) -> dict[str, Any]:
    """The type of each field of a dataclass, in their order, metadata included."""
    known = get_type_hints(settings, include_extras=True)
    return {one.name: known[one.name] for one in fields(settings)}


def problem_of(hint: Any, value: Any) -> str | None:
    """What is wrong with a value of that type, as the end of a sentence; None where nothing is.

    Looked at are numbers, texts, Literals and their unions; what else there is takes any value.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = (one.problem(value) for one in parts[1:] if isinstance(one, Limits))
        return problem_of(parts[0], value) or next(filter(None, limits), None)
    if origin in (Union, UnionType):
        problems = [problem_of(part, value) for part in parts]
        return None if None in problems else problems[0]
    if origin is Literal:
        return None if value in parts else f"must be one of {', '.join(map(str, parts))}, got {value!r}"
    if hint in WORDS:
        taken = (int, float) if hint is float else hint
        right = isinstance(value, taken) and (hint is bool or not isinstance(value, bool))
        return None if right else f"must be {WORDS[hint]}, got {value!r}"
    return None


WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
    NoneType: "null",
}


def descriptions(settings: type) -> dict[str, str]:
    """The text below each field of a dataclass and of its bases, by the field's name, on one line."""
    found: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(settings.__mro__)):
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
