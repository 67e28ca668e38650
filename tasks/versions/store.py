"""Named versions of the dataset: save, list, bring back (tasks.versions.comparison compares them).

A version is an annotated git tag `dataset/NAME` on a commit of its own whose tree is that of HEAD with the present
dvc.yaml, dvc.lock, params.yaml and decisions.csv. The user's branch, index and work tree stay as they are. The data
lies in DVC's cache (and remote) under the hashes of that dvc.lock, so `git clone` + `dvc pull` brings a version to
another machine (`git push origin NAME` or `--tags` takes the tags along), and `dvc gc --all-tags` keeps what versions
need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from facemill.errors import FacemillError
from facemill.files import read_object, write_bytes
from tasks.catalogue import Data, metrics_file
from tasks.curating.decisions import DECISIONS_FILE
from tasks.params_file import PARAMS_FILE, no_project, parse_params_text
from tasks.stages import REFRESH_STAGES, only_one
from tasks.versions import dvc, git
from tasks.versions import dvc_lock as locks
from tasks.versions.dvc_lock import LOCK_FILE, Lock
from tasks.versions.remote import how_to_get
from tasks.versions.shared_names import bring_names
from tasks.work.terminal import say, say_table

STAGES_FILE = "dvc.yaml"
_PREFIX = "dataset/"
_COMMENT = re.compile(rb"(?:^|\s)#.*", re.MULTILINE)


@dataclass(frozen=True)
class Version:
    """A dataset that was named, with the commit and the totals of the stages that made it."""

    name: str
    dataset: str
    """DVC's hash of data/dataset: equal hashes, equal bytes."""
    commit: str
    created: datetime
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each refresh stage: rows `in`, `ok`, `rejected`, `failed`."""
    is_new: bool = False
    """Whether this call of `save_version` made it."""

    @property
    def tag(self) -> str:
        return _PREFIX + self.name


def save_version(
    root: Path, name: str | None = None, *, tell: Callable[[str], None] = say, is_untouched: bool = False
) -> Version:
    """Names the dataset as it is now. Names that other clones have given are brought from the git remote first.

    Args:
        root: the project's folder.
        name: of the version; by default the next of v1, v2, …
        tell: gets what a person should know about names of other clones.
        is_untouched: DVC has just said that the dataset is what dvc.lock says, and is not asked again.

    Returns:
        The new version, or the one that has this very data already.

    Raises:
        FacemillError: no git repository or no commit in it; no dataset yet, or one that was changed by hand; the name
            is taken or not allowed.
    """
    _check_repository(root)
    for sentence in bring_names(root, _PREFIX):
        tell(sentence)
    versions = list_versions(root)
    lock = locks.read(root)
    dataset = locks.dataset_hash(lock)
    if dataset is None:
        raise FacemillError(f"{LOCK_FILE} holds no {Data.DATASET}: run `dvc repro curate` first")
    if not is_untouched:
        _check_untouched(root, lock)
    for version in versions:
        if version.dataset == dataset:
            return version
    name = name or _next_name(versions)
    if name in {version.name for version in versions}:
        raise FacemillError(f"version {name!r} exists and holds other data: choose another name")
    names = [STAGES_FILE, LOCK_FILE, PARAMS_FILE, DECISIONS_FILE, *locks.metrics_files(lock)]
    files = {each: (root / each).read_bytes() for each in names if (root / each).exists()}
    message = json.dumps({"dataset": dataset, "totals": _totals(root)}, indent=2, sort_keys=True)
    commit = git.commit_with_files(root, files, f"Dataset version {name}\n")
    git.tag(root, _PREFIX + name, commit, message)
    return Version(name, dataset, commit, datetime.now(UTC).replace(microsecond=0), _totals(root), is_new=True)


def describe_saved(version: Version, asked: str | None) -> str:
    """What to tell a person who had a version saved: its name, or that the name asked for was not made."""
    if version.is_new or asked in (None, version.name):
        return f"The dataset is version {version.name}."
    return f"This data has a name already: it is version {version.name}."


def list_versions(root: Path) -> list[Version]:
    """All versions, oldest first. Tags below dataset/ that facemill did not make are left out."""
    _check_repository(root)
    versions = []
    for tag, commit, seconds, message in git.tags(root, _PREFIX):
        try:
            content = json.loads(message)
            dataset, totals = content["dataset"], content["totals"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
        created = datetime.fromtimestamp(seconds, UTC)
        versions.append(Version(tag.removeprefix(_PREFIX), dataset, commit, created, totals))
    return versions


def restore_version(root: Path, name: str, *, force: bool = False) -> Version:
    """Brings a version's data, parameters and decisions back: params.yaml, decisions.csv, the refresh stages of
    dvc.lock and their outputs.

    Model and videos are left as they are; `dvc repro` then says whether they are stale.

    Raises:
        FacemillError: no such version; params.yaml, decisions.csv or the dataset is in no commit and no version (and
            `force` is not given); a refresh stage is running; the data is neither in the cache nor in the remote.
            Everything is then as it was, and so it is after an interrupt: data that is half replaced is checked out
            again from the cache. Should that fail too, the error says how to do it by hand.
    """
    versions = list_versions(root)
    version = named(versions, name)
    with _no_refresh(root):
        if not force:
            _check_saved(root, versions)
        _bring_back(root, version)
    return version


def named(versions: Sequence[Version], name: str) -> Version:
    """The version of that name, or an error that lists those there are."""
    for version in versions:
        if version.name == name:
            return version
    known = ", ".join(version.name for version in versions) or "none yet"
    raise FacemillError(f"no dataset version {name!r}; there are: {known}")


def print_versions(versions: Sequence[Version]) -> None:
    """Prints a table with a line for each version."""
    if not versions:
        say("There is no dataset version yet: `facemill run refresh` makes one.")
        return
    rows = []
    for version in versions:
        curate = version.totals.get("curate", {})
        counts = [curate.get(state, "") for state in ("ok", "rejected", "failed")]
        rows.append((version.name, f"{version.created:%Y-%m-%d %H:%M}", version.dataset[:12], *counts))
    say_table(("version", "created (UTC)", "dataset", "faces kept", "rejected", "failed"), rows)


@contextmanager
def _no_refresh(root: Path) -> Iterator[None]:
    """No refresh stage runs in this block, or there is an error that names the one that does."""
    with ExitStack() as held:
        for stage in REFRESH_STAGES:
            held.enter_context(only_one(root, stage))
        yield


def _bring_back(root: Path, version: Version) -> None:
    present = locks.read(root)
    lock = locks.parse(git.show(root, version.tag, LOCK_FILE) or b"")
    names = [PARAMS_FILE, DECISIONS_FILE, *locks.metrics_files(lock)]
    after = {each: git.show(root, version.tag, each) for each in names} | {
        LOCK_FILE: locks.dump(locks.merged(present, lock))
    }
    before = {each: (root / each).read_bytes() if (root / each).exists() else None for each in after}
    replacing = False
    try:
        _put(root, after)
        _fetch(root, lock)
        replacing = True
        dvc.checkout(root, locks.refresh_stages(lock))
    except BaseException:  # Ctrl-C too: it goes on below, once the old version lies there again
        _put(root, before)
        if replacing:  # else the old data still lies there, with what was changed in it by hand
            _check_out_again(root, present)
        raise


def _fetch(root: Path, lock: Lock) -> None:
    try:
        dvc.fetch(root, locks.refresh_stages(lock), locks.cached_hashes(lock))
    except dvc.AbsentError as error:
        raise FacemillError(f"{error}: {how_to_get(root)}") from error


def _check_out_again(root: Path, lock: Lock) -> None:
    stages = locks.refresh_stages(lock)
    try:
        dvc.checkout(root, stages)
    except FacemillError as error:
        raise FacemillError(
            f"{PARAMS_FILE} and {LOCK_FILE} are as they were, but the data is partly replaced: "
            f"run `dvc checkout --force {' '.join(stages)}` ({error})"
        ) from error


def _check_repository(root: Path) -> None:
    if not (root / ".dvc").is_dir():
        raise no_project(root, ".dvc")
    try:
        is_top = git.is_top(root)
    except FacemillError as error:
        raise FacemillError(f"dataset versions are git tags, and git says: {error}") from error
    if not is_top:
        raise FacemillError(
            f"{root} lies below the top of its git repository, where DVC cannot read versions: move it up"
        )
    if not git.has_commits(root):
        raise FacemillError(f"the git repository of {root} holds no commit yet: commit the project once")


def _check_untouched(root: Path, lock: Lock) -> None:
    """A version names what dvc.lock says; the dataset in the folder must be that."""
    stage = locks.dataset_stage(lock)
    if stage is not None and Data.DATASET in dvc.changed_outputs(root, stage):
        raise FacemillError(
            f"{Data.DATASET} is not what {LOCK_FILE} says: run `dvc repro {stage}`, "
            f"or `dvc commit {stage}` to take it as it is"
        )


def _check_saved(root: Path, versions: Sequence[Version]) -> None:
    """Refuses where bringing a version back would lose something that nobody can bring back."""
    revisions = ["HEAD", *(version.tag for version in versions)]
    same: dict[str, Callable[[bytes, bytes], bool]] = {PARAMS_FILE: _says_the_same, DECISIONS_FILE: bytes.__eq__}
    for name, says_the_same in same.items():
        present = (root / name).read_bytes() if (root / name).exists() else None
        saved = (git.show(root, revision, name) for revision in revisions)
        if present is not None and not any(each is not None and says_the_same(present, each) for each in saved):
            raise FacemillError(
                f"{name} has changes that are in no commit and no version: commit them, or give --force to lose them"
            )
    dataset = locks.dataset_hash(locks.read(root))
    committed = locks.dataset_hash(locks.parse(git.show(root, "HEAD", LOCK_FILE) or b""))
    if dataset not in {None, committed, *(version.dataset for version in versions)}:
        raise FacemillError(
            "the present dataset is no version yet: `facemill version save` names it, --force gives it up"
        )


def _says_the_same(params: bytes, others: bytes) -> bool:
    """Whether two files hold the same parameters and the same comments, however their lines end."""
    if params == others:
        return True
    try:
        values = [parse_params_text(each, PARAMS_FILE) for each in (params, others)]
    except FacemillError:  # one that cannot be read is a change that somebody may want to keep
        return False
    comments = [[line.strip() for line in _COMMENT.findall(each)] for each in (params, others)]
    return values[0] == values[1] and comments[0] == comments[1]


def _next_name(versions: Sequence[Version]) -> str:
    taken = {version.name for version in versions}
    number = 1 + sum(name[:1] == "v" and name[1:].isdigit() for name in taken)
    while f"v{number}" in taken:
        number += 1
    return f"v{number}"


def _totals(root: Path) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for stage in REFRESH_STAGES:
        path = root / metrics_file(stage)
        if path.exists():
            metrics = read_object(path)
            totals[stage] = {key: metrics[key] for key in ("in", "ok", "rejected", "failed") if key in metrics}
    return totals


def _put(root: Path, contents: Mapping[str, bytes | None]) -> None:
    for name, content in contents.items():
        if content is None:
            (root / name).unlink(missing_ok=True)
        else:
            write_bytes(root / name, content)
