"""Folders that other users of the machine can neither read nor enter."""

from __future__ import annotations

import os
from pathlib import Path

from facemill.errors import FacemillError

_OTHERS = 0o077


def private_folder(folder: Path, holds: str, otherwise: str) -> Path:
    """Makes a folder that only its owner can enter, or takes all rights on it from others; returns it.

    Args:
        folder: it and those above are made where they are not there.
        holds: what lies in it, for messages, such as "the login".
        otherwise: what to do where no folder can be closed, for messages.

    Raises:
        FacemillError: it belongs to somebody else, or its file system knows no rights.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for found in (folder.lstat(), folder.stat()):  # who owns a link says where it leads
        if found.st_uid != os.geteuid():
            raise FacemillError(
                f"{folder} belongs to the user with the number {found.st_uid}, who could read {holds} in it: "
                "work as that user, or delete the folder"
            )
    if found.st_mode & _OTHERS:
        folder.chmod(0o700)
    if folder.stat().st_mode & _OTHERS:
        raise FacemillError(
            f"{folder} cannot be closed to other users because its file system has no permissions: {otherwise}"
        )
    return folder
