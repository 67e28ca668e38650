"""Options of a command from a class of settings, so that they are declared where they are used and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from facemill.command_options import from_options, options
from facemill.settings import Settings
from tasks.paths import PATH_TEXT


def with_options(settings: type[Settings]) -> Callable[[Callable[..., None]], Any]:
    """Gives a Typer command an option for each field of `settings`, in place of its parameter `settings`.

    The command is called with an instance of the class; what is not typed is as the class has it.

    Raises (the command):
        FacemillError: what is wrong, each value under its flag.
    """
    added = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(one.flag, help=one.help, metavar=one.metavar, **PATH_TEXT if one.takes_path else {}),
            ],
        )
        for one in options(settings)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        kept = [one for one in signature.parameters.values() if one.name != "settings"]

        @wraps(command)
        def with_settings(**given: Any) -> None:
            typed = {one.name: given.pop(one.name) for one in added}
            command(**given, settings=from_options(settings, typed))

        # what typer reads; the type of a function declares no such attribute
        with_settings.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        with_settings.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
        return with_settings

    return decorate
