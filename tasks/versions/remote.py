"""The DVC remote: the place, apart from this project's cache, that holds the data of its versions.

The project ships none, since DVC cannot name one that is right everywhere: a path that is relative in the committed
`.dvc/config` leads to the root of the file system in commands that read other commits (`dvc push --all-tags`), and a
folder on the same disk is no backup. One in `.dvc/config.local` holds for all commits, also for those made before it.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from facemill.errors import FacemillError
from tasks.versions import dvc

ADD = "dvc remote add --local --default store"
"""To be followed by a folder's absolute path or a URL."""
PUSH_ALL, FETCH_ALL = "dvc push --all-tags", "dvc fetch --all-tags"


def describe_remote(root: Path) -> str:
    """Where the copies of a project's data go, in a sentence, with the command that changes it.

    Raises:
        FacemillError: the committed remote is one that DVC reads as another path in other commits.
    """
    check_remote(root)
    name = dvc.default_remote(root)
    if name is None:
        return f"none: the data lies on this disk alone. `{ADD} /folder/on/another/disk` names one (or a URL)"
    return f"{name}, to which each refresh copies what is new (`{PUSH_ALL}` copies all versions)"


def check_remote(root: Path) -> None:
    """Sees to it that DVC finds the committed remotes whatever commit it reads.

    Raises:
        FacemillError: one has a relative path.
    """
    parser = configparser.ConfigParser(interpolation=None)
    path = root / ".dvc" / "config"
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise FacemillError(f"{path} is not as DVC writes it: {error}") from error
    for section in parser.sections():
        url = parser[section].get("url", "")
        if section.startswith("'remote ") and url and "://" not in url and not Path(url).expanduser().is_absolute():
            name = section.removeprefix("'remote ").strip("'\"")
            raise FacemillError(
                f"{path}: the remote {name!r} has the relative path {url}, which DVC takes for /{Path(url).name} when "
                f"it reads other commits: run `dvc remote remove {name}`, then `{ADD}` with the absolute path"
            )


def how_to_get(root: Path) -> str:
    """What to do about data that neither the cache nor the remote of a clone has: commands for it and for the other."""
    name = dvc.default_remote(root)
    here = f"this clone has the remote {name}" if name else f"this clone has no DVC remote: `{ADD} URL` names one"
    return (
        f"{here}. In a clone that has the data, with the same remote, run `{PUSH_ALL}`; then `{FETCH_ALL}` here, and "
        "this command again"
    )
