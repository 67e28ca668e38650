"""Everything that is printed, fit for a terminal, whatever the data holds.

A file's name, an identity or a message of somebody else's code may hold markup that rich would read, control characters
that move the cursor or rename the window, signs that turn the direction of writing, or bytes that are no text at all.
So nothing else in the project prints: a test holds that.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_ESCAPED = ("Cc", "Cf", "Zl", "Zp")  # control, format, line and paragraph separators
_JOINERS = "\u200c\u200d"  # format characters that names in Persian, and emoji, are spelt with
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_line(text: object) -> str:
    r"""The text on one line: what steers a terminal is written out (`\x1b`, `\n`), what is not Unicode is replaced.

    Args:
        text: anything; `str` of it is taken.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def lines(text: object) -> str:
    """The same with line breaks and tabs kept, for messages that have several lines."""
    return "".join(part if part in ("\n", "\t") else one_line(part) for part in re.split(r"([\n\t])", str(text)))


def say(text: object, *, error: bool = False) -> None:
    """Prints a message at once.

    Args:
        text: the message, of one or more lines.
        error: on stderr, which is for what is no result.
    """
    never_fail_to_print()
    print(lines(text), file=sys.stderr if error else sys.stdout, flush=True)


def say_error(kind: str, message: object) -> None:
    """Prints on stderr what went wrong, its kind in red before it.

    Args:
        kind: one word, such as `error`.
        message: what was wrong and how to mend it; names of files as they are.
    """
    from rich.text import Text

    console(error=True).print(Text.assemble((f"{kind}:", "bold red"), " ", lines(message)))


def say_traceback() -> None:
    """Prints on stderr where the error that is being handled came from."""
    console(error=True).print_exception()


def duration(seconds: float) -> str:
    """A time in seconds in words: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Prints a table; columns of whole numbers stand to the right.

    Args:
        columns: their names.
        rows: a value for each column.
        title: what stands above it.
    """
    from rich.table import Column, Table
    from rich.text import Text

    values = [*rows]
    numbers = [bool(values) and all(isinstance(row[n], int) for row in values) for n in range(len(columns))]
    heads = [
        Column(Text(one_line(name)), justify="right" if number else "left", overflow="fold")  # a path is not cut off
        for name, number in zip(columns, numbers, strict=True)
    ]
    table = Table(*heads, title=Text(one_line(title)) if title else None, title_justify="left")
    for row in values:
        table.add_row(*(Text(one_line(value)) for value in row))  # rich would read markup in plain strings
    console().print(table)


def console(*, error: bool = False) -> Console:
    """Rich's console on stdout or stderr, for a progress bar; it reads no markup."""
    from rich.console import Console

    never_fail_to_print()
    return Console(stderr=error, soft_wrap=error, markup=False, emoji=False, highlight=False)


def never_fail_to_print() -> None:
    """From now on a character that the terminal's encoding does not have is replaced; else it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":  # half of a pair, as Python has bytes of a file's name that are not UTF-8
        return _REPLACEMENT
    if category in _ESCAPED and character not in _JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
