"""Who may talk to the project's Prefect server: whoever can read `.prefect/profiles.toml`, which is its owner alone.

Loopback is no authentication: every user of the machine, and every page that a browser shows, reaches its ports, and
who can start a run could as well run code. The server therefore asks for a login (Prefect's basic authentication). It
lies in a Prefect profile, where Prefect's own commands find it too: prefect.toml names the file.
"""

from __future__ import annotations

import os
import secrets
import tomllib
from pathlib import Path
from typing import Any

import tomlkit

from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.locks import locked
from facemill.private_folders import private_folder

CLIENT, SERVER = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
PROFILES = "profiles.toml"
_PROFILE = "facemill"
# Prefect's default profile has this; without it, Prefect's own commands would want a server for everything.
_NEW_PROFILE = {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true"}
_OTHERS = 0o077
_LOGIN_S = 10.0  # to write a small file, on a slow disk


def ensure_login(home: Path) -> str:
    """Sees to it that the project has a login that only its owner can read; returns it (`USER:PASSWORD`).

    Args:
        home: the project's .prefect; made if it is not there, closed to others if it is.

    Raises:
        FacemillError: the folder is another user's or cannot be closed to others, or profiles.toml is broken.
    """
    if given := os.environ.get(SERVER):
        return given
    own = f"set {SERVER} and {CLIENT} to a login of your own, USER:PASSWORD, so that none is kept there"
    private_folder(home, "the login", own)
    path = home / PROFILES
    busy, advice = f"the login of {home} is being made already", "it takes a moment: if that process hangs, end it"
    with locked(home / "login.lock", busy, advice, wait_s=_LOGIN_S):  # two first starts at once make one login
        name, values = read_profile(path)
        if found := values.get(SERVER):
            if path.stat().st_mode & _OTHERS:
                path.chmod(0o600)
            return str(found)
        login = f"{_PROFILE}:{secrets.token_urlsafe(24)}"
        # A worker's clone may name the login of a server elsewhere: that stays.
        _add(path, name, {SERVER: login} if CLIENT in values else {SERVER: login, CLIENT: login})
        return login


def read_profile(path: Path, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """Name and settings of a profile, by default the active one; without a file it is empty.

    Raises:
        FacemillError: the file is no TOML, or not of the shape that Prefect gives it.
    """
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        read = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FacemillError(f"{path} is not TOML ({error}): mend it, or delete it to get a new login") from error
    name = name or read.get("active", _PROFILE)
    profiles = read.get("profiles", {})
    values = profiles.get(name, {}) if isinstance(name, str) and isinstance(profiles, dict) else None
    if not isinstance(name, str) or not isinstance(values, dict):
        raise FacemillError(f"{path}: `active` must name a table [profiles.NAME]; mend it, or delete the file")
    return name, values


def _add(path: Path, name: str, values: dict[str, str]) -> None:
    """Writes values into a profile; what a person has written there stays, comments included."""
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    document.setdefault("active", name)
    profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
    profiles.setdefault(name, _NEW_PROFILE).update(values)
    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)  # of a process with our number that was killed here
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(tomlkit.dumps(document))
