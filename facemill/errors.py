"""The two errors that facemill raises on purpose.

Everything else that escapes is a defect. `FacemillError` stops the work and is for a person; `InputError` belongs to
one input, becomes a row with a reason, and lets the rest of the batch go on.
"""

from __future__ import annotations

from facemill.reasons import Reason


class FacemillError(Exception):
    """Something a person has to act on: the message says what was wrong, in which file or row, and what to do."""


class InputError(Exception):
    """One input cannot be used.

    Args:
        reason: the code that the row gets.
        detail: what was found, in a few words; no path of the machine, so that tables stay byte-identical elsewhere.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[InputError], tuple[Reason, str]]:
        return InputError, (self.reason, self.detail)  # Exception's own pickling would pass the message alone
