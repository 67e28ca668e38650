"""What a worker hands back: the result, or an error as plain data that is the same error on the other side.

Exceptions do not travel as they are: some do not pickle, some pickle and do not unpickle (PyAV's, and whatever has one
of them as its cause), some end the worker instead (SystemExit). So a worker never raises: `attempt` packs what came of
a call, `unpack` opens it where the caller is. Four errors arrive:

    FacemillError     as it was, message for message
    InputError        with its reason and detail
    OSError           with its errno and file, so that a full disk is known as one
    UnexpectedError   for everything else: the type's name, the message and the traceback, as text

Each has the worker's traceback as the text of its cause. A worker that died cannot hand anything back: that is
`WorkerDied`, and only a pool can tell.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from facemill.errors import FacemillError, InputError
from facemill.files import is_full
from facemill.reasons import Reason

MESSAGE_CHARACTERS, TRACE_CHARACTERS = 4_000, 40_000  # of an error; a library may put a whole array into its message


class WorkerDied(Exception):
    """The process that worked on a piece is gone, killed or crashed, without a word."""


class WorkerSilent(WorkerDied):
    """It ended itself, since the piece did not get on any more; the message says where it stood."""


class Interrupted(KeyboardInterrupt):
    """A person has asked for the end: what was at work has ended, there would have been more."""


class UnexpectedError(Exception):
    """Any other error of a worker.

    Args:
        type_name: the name of its class, with the module unless that is `builtins`.
        message: its own words.
        trace: the worker's traceback as text.
    """

    def __init__(self, type_name: str, message: str, trace: str = "") -> None:
        super().__init__(type_name, message, trace)
        self.type_name, self.message, self.trace = type_name, message, trace

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class WorkerTraceback(Exception):
    """The cause of an error that came from a worker: where it was raised there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Packed:
    """What came of a call, as plain data: the pickled result, or the class and arguments of one of the four errors."""

    result: bytes | None
    error: type[Exception] = Exception
    arguments: tuple[Any, ...] = ()
    trace: str = ""


@dataclass(frozen=True)
class Lost:
    """In place of a result: why there is none, for the piece's row."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Cut:
    """What became of a piece that was cut: a result or `Lost` for each part, in their order."""

    results: tuple[Any, ...]


def attempt(function: Callable[[Any], Any], argument: Any, orders: tuple[type[BaseException], ...] = ()) -> Packed:
    """Calls the function and packs its result or its error; raises nothing but `orders`.

    Args:
        function: called with `argument`; what it returns must pickle.
        orders: exceptions that are meant for this process, not for the piece: they pass.
    """
    try:
        return Packed(pickle.dumps(function(argument)))
    except orders:
        raise
    except BaseException as error:  # SystemExit of a library must not end the worker
        return pack_error(error)


def attempt_here(function: Callable[[Any], Any], argument: Any) -> Packed:
    """`attempt` in the process that a person started: Ctrl-C and a cancelled task end it, not the piece."""
    return attempt(function, argument, (KeyboardInterrupt, asyncio.CancelledError))


def pack_error(error: BaseException) -> Packed:
    """An error as one of the four that arrive as what they were. Raises nothing, whatever the error is made of."""
    trace, kind = _trace(error), type(error)
    if isinstance(error, FacemillError):
        return Packed(None, FacemillError, (_text(error),), trace)
    if isinstance(error, InputError) and isinstance(error.reason, Reason):
        return Packed(None, InputError, (error.reason, str(error.detail)), trace)
    if isinstance(error, OSError) and isinstance(error.errno, int):
        number, files = int(error.errno), (_plain(error.filename), None, _plain(error.filename2))
        told = os.strerror(number) if error.strerror is None else str(error.strerror)
        return Packed(None, OSError, (number, told, *files), trace)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Packed(None, UnexpectedError, (name, _text(error), trace), trace)


def unpack(packed: Packed) -> Any:
    """The result of the call, or (returned, not raised) its error."""
    if packed.result is not None:
        try:
            return pickle.loads(packed.result)
        except Exception as raised:  # a class that pickles and does not unpickle
            packed = pack_error(raised)
    error = packed.error(*packed.arguments)
    error.__cause__ = WorkerTraceback(packed.trace)
    return error


def lost_to(error: BaseException) -> Lost:
    """The reason for the row of a piece that ended in an error.

    Raises:
        FacemillError: an error that no other piece would survive either: what a person has to act on, a full disk.
    """
    if isinstance(error, FacemillError):
        raise error
    if isinstance(error, OSError) and is_full(error):
        raise FacemillError(
            f"no space left to write {error.filename or 'a file'}: free some and run the same command again; what was "
            "finished is kept"
        ) from error
    if isinstance(error, WorkerSilent):
        return Lost(Reason.WORKER_HUNG, str(error))
    if isinstance(error, WorkerDied):
        return Lost(Reason.WORKER_KILLED, "")
    if isinstance(error, InputError):
        return Lost(error.reason, error.detail)
    if isinstance(error, OSError):  # its text would name a path of this machine
        return Lost(Reason.PROCESSING_ERROR, f"{type(error).__name__}: {error.strerror}")
    return Lost(Reason.PROCESSING_ERROR, str(error))


def _text(error: BaseException) -> str:
    try:
        return _cut(str(error), MESSAGE_CHARACTERS)
    except Exception as second:
        return f"(no message: its __str__ raised {type(second).__name__})"


def _trace(error: BaseException) -> str:
    try:
        return _cut("".join(traceback.format_exception(error)), TRACE_CHARACTERS)
    except Exception as second:
        return f"(no traceback: writing it raised {type(second).__name__})"


def _cut(text: str, characters: int) -> str:
    """The end of a traceback says most, the beginning of a message does: both ends stay."""
    if len(text) <= characters:
        return text
    return f"{text[: characters // 2]} … {text[-characters // 2 :]}"


def _plain(name: Any) -> str | bytes | int | None:
    """A file name of an OSError: a path, a descriptor, or whatever a library put there."""
    return name if name is None or type(name) in (str, bytes, int) else str(name)
