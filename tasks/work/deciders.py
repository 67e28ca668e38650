"""Which code and which packages decide what a stage writes: computed from the imports, kept by nobody.

A stage's code is what its module imports, directly or not, plus the plug-ins that params.yaml names: with
`train.model: autoencoder` the GAN does not count. It is hashed as Python understands it: comments, docstrings and
layout change nothing. Its packages are those that this code imports, or whose files it reads, with their versions, and
the FFmpeg that PyAV works with.

`inventory` writes one file a stage, data/code/STAGE.json. DVC, shards, training and conversion read that same file, so
that there is one answer to "is this work done?", and `facemill why` can say in words what has changed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import grimp
import yaml

from facemill.detect import detector_modules
from facemill.errors import FacemillError
from facemill.files import file_sha256, foreign_stamp, is_settled, read_json, read_object, write_bytes, write_json
from facemill.landmarks import PREDICTORS
from tasks.catalogue import code_file
from tasks.params import Params
from tasks.work.plugin_files import LooksForFaces
from tasks.work.scratch import WORK_FOLDER

ROOTS = ("facemill", "tasks")
ROOMS = ("collecting", "converting", "curating", "report_page", "training")
"""Folders of `tasks` that stages are made of; each decides the bytes of every stage that imports from it."""
NO_DISTRIBUTIONS = ("python", "ffmpeg")
"""What stands among a stage's packages and is installed by no package of that name."""
ACCEPTED_FILE = "accepted.yaml"
ACCEPTED_KEYS = ("stage", "digest", "stands_for", "reason", "date")
_SOURCE = ".py"
_NOT_CODE = frozenset({".pyc", ".pyi"})


@dataclass(frozen=True)
class Deciders:
    """What decides the bytes of a stage, apart from its parameters and inputs.

    Attributes:
        code: SHA-256 of each file, by its path from the folder that holds the packages.
        packages: version of each distribution that the code uses, and of `NO_DISTRIBUTIONS`.
        accepted: why other code or packages than those that made the results count as the same; empty if none do.
        stands_for: the digest that those results have; empty where `accepted` is.
    """

    code: Mapping[str, str]
    packages: Mapping[str, str]
    accepted: str = ""
    stands_for: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of code and packages, 64 hex digits."""
        plain = json.dumps({"code": dict(self.code), "packages": dict(self.packages)}, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    @property
    def key(self) -> str:
        """What keys of work take: the digest, or the one that a person said it stands for."""
        return self.stands_for or self.digest

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for data/code/STAGE.json."""
        told = {"accepted": self.accepted, "stands_for": self.stands_for} if self.stands_for else {}
        return {"code": dict(self.code), "packages": dict(self.packages), **told}

    @classmethod
    def from_dict(cls, values: Any) -> Deciders:
        """The way back of `as_dict`. Raises ValueError where it is nothing of the kind."""
        match {"accepted": "", "stands_for": ""} | values if isinstance(values, dict) else None:
            case {
                "code": dict(code),
                "packages": dict(packages),
                "accepted": str(accepted),
                "stands_for": str(stands_for),
            } if all(isinstance(each, str) for each in [*code.values(), *packages.values()]):
                return cls(code, packages, accepted, stands_for)
        raise ValueError("not what decides a stage")


def deciders_of(stage: str, plugins: Iterable[str] = ()) -> Deciders:
    """Computes what decides a stage's bytes in this environment.

    Args:
        stage: the stage whose module is `tasks.STAGE`.
        plugins: modules that its parameters name, such as `facemill.detect.hog`.
    """
    modules = _closure(stage, {f"tasks.{stage}", *plugins})
    files = sorted({file for module in modules for file in _files_of(module)})
    base = _folder_of("facemill").parent
    sources = {file: _source(file) for file in files}
    code = {file.relative_to(base).as_posix(): source.content for file, source in sources.items()}
    used = {package for source in sources.values() for package in source.packages_read}
    used |= {_top(name) for module in modules for name in _graph().find_modules_directly_imported_by(module)}
    packages = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **_versions(used)}
    return Deciders(code, packages | ({"ffmpeg": _ffmpeg()} if "av" in used else {}))


def current_deciders(root: Path, stage: str, params: Params) -> Deciders:
    """What decides a stage's bytes here and now, with the plug-ins that the parameters name.

    Where a person has accepted just this code and these packages as others' equal (`facemill accept`), they stand for
    those.

    Raises:
        FacemillError: accepted.yaml cannot be used.
    """
    found = _remembered(root, stage, plugins_of(stage, params))
    for entry in reversed(read_accepted(root)):
        if (entry["stage"], entry["digest"]) == (stage, found.digest):
            return replace(found, accepted=entry["reason"], stands_for=entry["stands_for"])
    return found


def _remembered(root: Path, stage: str, plugins: list[str]) -> Deciders:
    """`deciders_of`, which takes seconds, from the project's memory if no source file and no package is another since.

    As with `tasks.work.file_hashes`, the memory may be deleted at any time.
    """
    path, here, key = root / WORK_FOLDER / "hashes" / "code.json", environment(), " ".join([stage, *plugins])
    try:
        memory = read_object(path, "environment", "deciders")
        known = dict(memory["deciders"]) if memory["environment"] == here else {}
    except (FacemillError, TypeError, ValueError):  # there was none, it was cut, or it is none of ours
        known = {}
    try:
        return Deciders.from_dict(known.get(key))
    except ValueError:
        with _sources_remembered(root):
            found = deciders_of(stage, plugins)
    write_json(path, {"environment": here, "deciders": {**known, key: found.as_dict()}})
    return found


@cache
def environment() -> str:
    """Hash of size and time of all files of this project's packages, of the names of what is installed, and of FFmpeg.

    As long as it is the same, what was found out about code and packages need not be found out again.
    """
    folders = [_folder_of(package) for package in ROOTS]
    sources = [
        [str(file), foreign_stamp(file)] for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    own = [item for item in sources if "__pycache__" not in item[0]]
    installed = sorted({file.name for place in sys.path for file in Path(place or ".").glob("*-info")})
    return hashlib.sha256(json.dumps([sys.version, own, installed, _ffmpeg()]).encode()).hexdigest()


def read_accepted(root: Path) -> list[dict[str, str]]:
    """What persons have accepted in this project, oldest first.

    Raises:
        FacemillError: accepted.yaml is not what `facemill accept` writes.
    """
    path = root / ACCEPTED_FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        return [{key: str(entry[key]) for key in ACCEPTED_KEYS} for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise FacemillError(
            f"{path} is not a list of {', '.join(ACCEPTED_KEYS)} ({error}): mend it, or delete it to accept nothing"
        ) from error


def write_accepted(root: Path, entries: Iterable[Mapping[str, str]]) -> None:
    """Writes accepted.yaml, which belongs into git beside params.yaml."""
    text = yaml.safe_dump([dict(entry) for entry in entries], sort_keys=False, allow_unicode=True)
    write_bytes(root / ACCEPTED_FILE, text.encode())


def read_deciders(root: Path, stage: str, params: Params) -> Deciders:
    """What `inventory` found for a stage; where it has not looked yet, that is done now.

    Raises:
        FacemillError: the file is damaged.
    """
    path = root / code_file(stage)
    if not path.exists():
        write_deciders(root, stage, current_deciders(root, stage, params))
    try:
        return Deciders.from_dict(read_json(path))
    except ValueError as error:
        raise FacemillError(f"{path} is damaged: run `facemill stage inventory` again") from error


def plugins_of(stage: str, params: Params) -> list[str]:
    """The modules that a stage's parameters name, and that its imports do not reach.

    Sources for `collect`, detectors for whatever looks for faces, the model for what trains or uses it.
    """
    model = params.train.model
    named = {
        "collect": [f"facemill.sources.{kind}" for kind in sorted(params.source_kinds)],
        "extract": _finding(params.extract),
        "train": [f"facemill.nets.{model}", f"facemill.train.objectives.{model}"],
        "track": _finding(params.track),
        "convert": [f"facemill.nets.{model}"],
        "report": [f"facemill.nets.{model}", *_finding(params.track)],
    }
    return named.get(stage, [])


def _finding(group: LooksForFaces) -> list[str]:
    """The modules of a group's detector and landmark predictor."""
    return [*detector_modules(group.detector), PREDICTORS[group.landmarks].__module__]


def write_deciders(root: Path, stage: str, deciders: Deciders) -> None:
    """Writes data/code/STAGE.json, unless it says so already; the same deciders give the same bytes."""
    path = root / code_file(stage)
    try:
        known = read_json(path)
    except FacemillError:
        known = None
    if known != deciders.as_dict():
        write_json(path, deciders.as_dict())


def _closure(stage: str, modules: set[str]) -> set[str]:
    """The modules, all that they import of this project and that decides, and the packages that these lie in."""
    graph, found, waiting = _graph(), set[str](), set(modules)
    while waiting:
        module = waiting.pop()
        if module in found or not _decides(stage, module):
            continue
        if module not in graph.modules:
            raise FacemillError(f"no module {module}: what decides a stage cannot be told")
        found.add(module)
        parents = {module.rpartition(".")[0]} - {""}  # their __init__ runs first
        own = {name for name in graph.find_modules_directly_imported_by(module) if _top(name) in ROOTS}
        waiting |= own | parents
    return found


def _decides(stage: str, module: str) -> bool:
    """Whether a module can decide a stage's bytes: the library can, and of `tasks` the stage's modules and the `ROOMS`.

    All else in `tasks` carries work and decides no row of it: what it holds reaches one only as a parameter or as
    content, which have keys of their own.
    """
    return module in ROOTS or module.startswith(("facemill.", f"tasks.{stage}", *(f"tasks.{room}" for room in ROOMS)))


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOTS, include_external_packages=True, cache_dir=None)


@cache
def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FacemillError(f"the package {package} cannot be found: install facemill again")
    return Path(next(iter(spec.submodule_search_locations)))


def _files_of(module: str) -> list[Path]:
    """A module's source; for a package also what lies beside it and is no code, such as weights and templates."""
    top, *rest = module.split(".")
    path = _folder_of(top).joinpath(*rest)
    if not path.is_dir():
        return [path.with_suffix(_SOURCE)]
    beside = [file for file in path.iterdir() if file.is_file() and file.suffix not in {_SOURCE, *_NOT_CODE}]
    return [path / f"__init__{_SOURCE}", *beside]


class _Source(NamedTuple):
    """What counts of a file of code, or of one that lies beside it.

    Attributes:
        content: SHA-256 of it; of Python code without comments, docstrings and layout.
        packages_read: packages whose files it reads without importing them.
    """

    content: str
    packages_read: tuple[str, ...]


_sources: dict[str, tuple[dict[str, int], _Source]] = {}
"""Those that have been read, by their paths, with the `foreign_stamp` that they had then."""


def _source(file: Path) -> _Source:
    now = foreign_stamp(file)
    known = _sources.get(str(file))
    if known is None or known[0] != now:
        known = _sources[str(file)] = (now, _read_source(file))
    return known[1]


@contextmanager
def _sources_remembered(root: Path) -> Iterator[None]:
    """In the block only files are read that are new or others since; reading all takes seconds.

    As with `tasks.work.file_hashes`, the memory may be deleted at any time, and what was changed just now is not kept.
    """
    path, by = root / WORK_FOLDER / "hashes" / "sources.json", [sys.version, foreign_stamp(Path(__file__))]
    old: dict[str, Any] = {}
    with suppress(FacemillError, TypeError, ValueError, AttributeError):  # there was none, it was cut, or none of ours
        memory = read_object(path, "by", "files")
        files = memory["files"] if memory["by"] == by else {}
        known = {
            str(name): (dict(stamped), _Source(str(content), tuple(map(str, packages))))
            for name, (stamped, content, packages) in files.items()
        }
        old = files
        for name, source in known.items():
            _sources.setdefault(name, source)
    yield
    files = {
        name: [stamped, source.content, list(source.packages_read)]
        for name, (stamped, source) in _sources.items()
        if is_settled(stamped)
    }
    if files != old:
        write_json(path, {"by": by, "files": files})


def _read_source(file: Path) -> _Source:
    if file.suffix != _SOURCE:
        return _Source(file_sha256(file), ())
    tree = ast.parse(file.read_bytes(), filename=str(file))
    nodes = list(ast.walk(tree))
    packages = tuple(sorted(_packages_read(nodes)))
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [item for item in node.body if not _is_text(item)] or [ast.Pass()]
    return _Source(hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest(), packages)


def _is_text(node: ast.stmt) -> bool:
    """A string that stands as a statement: a docstring, or the words under a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _packages_read(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Packages whose files the code reads without importing them: `find_spec("face_recognition_models")`."""
    calls = [node for node in nodes if isinstance(node, ast.Call) and len(node.args) == 1]
    named = [call.args[0] for call in calls if _called(call.func) == "find_spec"]
    return frozenset(
        _top(name.value) for name in named if isinstance(name, ast.Constant) and isinstance(name.value, str)
    )


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Distribution → version of the packages that are no part of Python or of this project; absent ones say so."""
    found = {}
    for package in sorted(set(packages) - set(sys.stdlib_module_names) - set(ROOTS)):
        for distribution in _distributions_of(package):
            try:
                found[distribution] = version(distribution)
            except PackageNotFoundError:
                found[distribution] = "absent"
    return dict(sorted(found.items()))


@cache
def _ffmpeg() -> str:
    """Version of the FFmpeg that PyAV works with: wheels bring one, a PyAV that was built here takes the system's."""
    try:
        import av
    except ImportError:
        return "absent"
    return str(av.ffmpeg_version_info)


@cache
def _distributions_of(package: str) -> list[str]:
    """Names of the distributions that bring a package; its own name where none does."""
    named = sorted(set(_by_top_level().get(package, [])))
    if not named:  # some wheels do not say all that they bring: their list of files does
        named = [name for name, folders in _folders_brought() if package in folders]
    return named or [package]


@cache
def _folders_brought() -> list[tuple[str, frozenset[str]]]:
    """Each distribution with the folders that its list of files begins with. Paths as objects would take a second."""
    found = []
    for each in distributions():
        record = each.read_text("RECORD")
        files = record.splitlines() if record else [str(file) for file in each.files or ()]
        found.append((each.name, frozenset(file.lstrip('"').partition("/")[0] for file in files if "/" in file)))
    return found


@cache
def _by_top_level() -> Mapping[str, list[str]]:
    return packages_distributions()


def _top(module: str) -> str:
    return module.partition(".")[0]
