"""Where the paths lie that a person wrote.

`~` and `~name` are home folders wherever a path is asked for. A relative path of params.yaml, or of a deployment's
parameters, lies in the project's folder; one on a command line lies where the command is typed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.stages import STAGES

if TYPE_CHECKING:  # it loads pydantic's models, and --help must be quick
    from tasks.params import Params

_CHECKOUTS = (".dvc", "tmp", "exps")


def place(path: str | Path, root: Path) -> Path:
    """The file or folder that a person named.

    In a temporary checkout of DVC's, what is not there is looked for in the project that it was made of.

    Args:
        path: as it was written.
        root: the folder in which relative paths lie.

    Raises:
        FacemillError: an empty path, one with a character that no file system takes, or the home folder of somebody
            whom this machine does not know.
    """
    text = str(path)
    if not text.strip():
        raise FacemillError("the path is empty: name a file or a folder, `.` for this one")
    if "\0" in text:
        raise FacemillError(f"{text!r} cannot be a path: it holds the character NUL")
    try:
        written = Path(path).expanduser()
    except RuntimeError as error:
        raise FacemillError(f"{text}: this machine knows no home folder of that name; write the path out") from error
    found = root / written
    if not found.exists() and (project := _project_of(root)) is not None and (project / written).exists():
        return project / written
    return found


def _project_of(root: Path) -> Path | None:
    """The project of which DVC has made a temporary checkout, as `dvc exp run --temp` and `--queue` do; else None.

    Footage that git ignores lies in the project alone.
    """
    parts = root.resolve().parts
    ends = [at for at in range(len(parts) - len(_CHECKOUTS)) if parts[at : at + len(_CHECKOUTS)] == _CHECKOUTS]
    return Path(*parts[: ends[-1]]) if ends else None


def with_home(value: Any) -> Any:
    """Options that go to somebody else's code, such as a cluster class: `~/…` in them, at any depth, written out."""
    if isinstance(value, dict):
        return {key: with_home(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_home(part) for part in value]
    return str(place(value, Path())) if isinstance(value, str) and value.startswith("~/") else value


def archive_folder(params: Params, root: Path) -> Path:
    """Where the videos of the archive lie, those of the sample people included.

    Raises:
        FacemillError: as `place`; a folder that a stage replaces, with whatever a person has put there, or around one.
    """
    if params.archive.kind == "sample":
        return root / Data.ARCHIVE
    folder = place(params.archive.path, root)
    for made in (made for stage in STAGES.values() for made in stage.makes):
        ours, theirs = (root / made).resolve(), folder.resolve()
        if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
            raise FacemillError(
                f"archive.path: {folder} and {made}, which a stage empties and fills, lie in each other: put the "
                "videos into a folder of your own, such as footage"
            )
    return folder


def typed_path(text: str) -> Path:
    """A path on a command line. Raises BadParameter (wrong usage) where `place` has an error."""
    try:
        return place(text, Path())
    except FacemillError as error:
        raise _wrong(str(error)) from error


def _existing_path(text: str) -> Path:
    path = typed_path(text)
    if not path.exists():
        raise _wrong(f"{text} does not exist")
    return path


def _wrong(message: str) -> Exception:
    import typer  # workers place paths too, and parse no command line

    return typer.BadParameter(message)


PATH: dict[str, Any] = {"parser": typed_path}
"""Keywords of `typer.Option` and `typer.Argument` for a path that may or may not be there."""
PATH_TEXT: dict[str, Any] = {"parser": lambda text: str(typed_path(text))}
"""The same for settings that take text, since a word such as `download` can stand there too."""
EXISTING_PATH: dict[str, Any] = {"parser": _existing_path}
"""For a file or folder that must be there."""
