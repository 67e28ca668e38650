"""The little of git that dataset versions need, by plumbing: no branch, index or work tree is ever touched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from facemill.errors import FacemillError

_OF_ONE_REPOSITORY = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
_UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")}
"""At night nobody types a password."""
_NOBODY = {"NAME": "facemill", "EMAIL": "facemill@localhost"}


def commit_with_files(root: Path, files: Mapping[str, bytes], message: str) -> str:
    """Makes a commit on top of HEAD that differs from it in these files only, and that no branch points to.

    Args:
        root: the top of the work tree.
        files: names and contents.

    Returns:
        The commit's id.
    """
    with tempfile.TemporaryDirectory(prefix="facemill-index-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", "HEAD", extra=index)
        for name, content in files.items():
            blob = git(root, "hash-object", "-w", "--stdin", stdin=content).strip()
            git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", extra=index)
        tree = git(root, "write-tree", extra=index).strip()
    return git(root, "commit-tree", tree, "-p", "HEAD", "-m", message, extra=_author(root)).strip()


def tag(root: Path, name: str, commit: str, message: str) -> None:
    """Makes an annotated tag; its message is kept as it is.

    Raises:
        FacemillError: the tag exists, or git does not allow the name.
    """
    options = ["--annotate", "--cleanup=verbatim", "--file=-"]
    git(root, "tag", *options, name, commit, stdin=message.encode(), extra=_author(root))


def tags(root: Path, prefix: str) -> list[tuple[str, str, int, str]]:
    """(name, commit, seconds since 1970, message) of all annotated tags below a prefix, oldest first."""
    form = "%(refname:lstrip=2)%00%(*objectname)%00%(creatordate:unix)%00%(contents)%00%00"
    found = []
    answer = git(root, "for-each-ref", "--sort=version:refname", f"--format={form}", f"refs/tags/{prefix}")
    for record in answer.split("\0\0\n"):
        if record:
            name, commit, seconds, message = record.split("\0")
            if commit:  # a lightweight tag points to a commit itself and holds no message
                found.append((name, commit, int(seconds), message))
    return sorted(found, key=lambda each: each[2])  # stable: tags of one second stay in the order of their names


def tag_ids(root: Path, prefix: str) -> dict[str, str]:
    """Name → id of the tags below a prefix."""
    answer = git(root, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", f"refs/tags/{prefix}")
    return {name: each for each, _, name in (line.partition(" ") for line in answer.splitlines())}


def remote(root: Path) -> str | None:
    """The remote that a clone belongs to: that of its branch, else `origin`, else the only one."""
    names = git(root, "remote").split("\n")[:-1]
    branch = _run(root, ["symbolic-ref", "--quiet", "--short", "HEAD"], b"", {}).stdout.decode().strip()
    followed = _run(root, ["config", f"branch.{branch}.remote"], b"", {}).stdout.decode().strip()
    for name in (followed, "origin"):
        if name in names:
            return name
    return names[0] if len(names) == 1 else None


def remote_tag_ids(root: Path, name: str, prefix: str, deadline_s: float) -> dict[str, str]:
    """Name → id of the tags below a prefix that a remote has.

    Raises:
        FacemillError: it cannot be reached or asks for a password.
    """
    answer = git(
        root, "ls-remote", "--tags", "--refs", name, f"refs/tags/{prefix}*", extra=_UNATTENDED, deadline_s=deadline_s
    )
    return {
        ref.removeprefix("refs/tags/"): each for each, _, ref in (line.partition("\t") for line in answer.splitlines())
    }


def fetch_tags(root: Path, name: str, tags: Iterable[str], deadline_s: float) -> None:
    """Brings tags of a remote; those that are here stay as they are.

    Raises:
        FacemillError: it cannot be reached, or the disk is full.
    """
    wanted = [f"refs/tags/{tag}:refs/tags/{tag}" for tag in tags]
    git(root, "fetch", "--quiet", "--no-tags", name, *wanted, extra=_UNATTENDED, deadline_s=deadline_s)


def is_shallow(root: Path) -> bool:
    """Whether the clone was made without the whole history, and so without its tags."""
    return git(root, "rev-parse", "--is-shallow-repository").strip() == "true"


def show(root: Path, revision: str, name: str) -> bytes | None:
    """A file's content in a revision; None where it is not in it."""
    done = _run(root, ["cat-file", "blob", f"{revision}:{name}"], b"", {})
    return done.stdout if done.returncode == 0 else None


def is_top(root: Path) -> bool:
    """Whether the folder is the top of its work tree."""
    return not git(root, "rev-parse", "--show-prefix").strip()


def has_commits(root: Path) -> bool:
    return _run(root, ["rev-parse", "--verify", "--quiet", "HEAD"], b"", {}).returncode == 0


def git(
    root: Path,
    *arguments: str,
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
    deadline_s: float | None = None,
) -> str:
    """Runs git and returns what it printed.

    Raises:
        FacemillError: git is not installed, it failed, with its message, or it did not end in time.
    """
    done = _run(root, arguments, stdin, extra or {}, deadline_s)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise FacemillError(f"git {arguments[0]} failed in {root}: {message}")
    return done.stdout.decode(errors="replace")


def _run(
    root: Path,
    arguments: tuple[str, ...] | list[str],
    stdin: bytes,
    extra: Mapping[str, str],
    deadline_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    # A hook that calls us has set GIT_DIR and GIT_INDEX_FILE for its own repository.
    inherited = {key: value for key, value in os.environ.items() if key not in _OF_ONE_REPOSITORY}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            input=stdin,
            env={**inherited, **extra},
            capture_output=True,
            check=False,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        raise FacemillError(f"git {arguments[0]} did not end within {deadline_s:.0f} s in {root}") from error
    except FileNotFoundError as error:
        raise FacemillError("git is not installed: dataset versions and DVC need it") from error


def _author(root: Path) -> dict[str, str]:
    """Who git says one is; where nobody has told it, facemill signs."""
    known = {key: _run(root, ["config", f"user.{key.lower()}"], b"", {}).stdout.decode().strip() for key in _NOBODY}
    return {
        f"GIT_{role}_{key}": os.environ.get(f"GIT_{role}_{key}") or known[key] or nobody
        for role in ("AUTHOR", "COMMITTER")
        for key, nobody in _NOBODY.items()
    }
