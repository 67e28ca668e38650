"""A process enters its project: works in its folder, and has Prefect set up for it.

A flow's project is the folder that it runs in, and nothing that a run could name: the folder in which `facemill` was
started, or the working directory of the deployment on a work pool.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from facemill.errors import FacemillError
from flows.login import CLIENT, PROFILES, ensure_login, read_profile
from tasks.params_file import PARAMS_FILE, no_project
from tasks.work.room import check_room

API = "PREFECT_API_URL"
LOOPBACK_NAMES = ("127.0.0.1", "localhost")
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
"""Those of prefect.toml, for a project that lies in another folder than this repository."""


def enter(root: Path) -> Path:
    """Makes `root` this process's folder and sets Prefect up in the environment; returns its absolute path.

    To be called before Prefect is imported, which reads its settings then. What the environment says already stays.

    Raises:
        FacemillError: no such folder, it is not a project's, it has no room, or .prefect in it cannot be closed to
            other users.
    """
    try:
        os.chdir(root)
    except OSError as error:
        raise FacemillError(
            f"{root} is no folder that can be entered ({error.strerror}): name the project's"
        ) from error
    project = Path.cwd()
    if not (project / PARAMS_FILE).exists():  # else a home for Prefect would be left wherever somebody types a command
        raise no_project(project, PARAMS_FILE)
    home = home_of(project)
    for name, value in (SETTINGS | {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / PROFILES)}).items():
        os.environ.setdefault(name, value)
    check_room(project)
    ensure_login(home)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy would be told the login, and could not reach this machine's server
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), *LOOPBACK_NAMES]))
    if (api := os.environ.get(API)) and CLIENT not in os.environ and not is_loopback(api):
        os.environ[CLIENT] = ""  # the project's login is for its own server: no other one gets to see it
    return project


def home_of(project: Path) -> Path:
    """Where the project's Prefect keeps its login, and by default its history."""
    return project / ".prefect"


def given_api(project: Path) -> str | None:
    """The address of the Prefect API that the environment or the active profile names, if any does."""
    if api := os.environ.get(API):
        return api
    path = os.environ.get("PREFECT_PROFILES_PATH") or home_of(project) / PROFILES
    _, values = read_profile(Path(path), os.environ.get("PREFECT_PROFILE"))
    api = values.get(API)
    return str(api) if api else None


def is_loopback(address: str) -> bool:
    """Whether a URL leads to this machine and cannot lead anywhere else."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
