"""deploy/install.py: packages come from where pip would take them, by uv, and by pip where uv cannot."""

from __future__ import annotations

import os
import runpy
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from wheels import write_wheel

SCRIPT = Path(__file__).resolve().parent.parent / "deploy/install.py"
SAYS = runpy.run_path(str(SCRIPT))

# builds a package that is one file, without a network to get a builder from
BACKEND = """
import sys
sys.path.insert(0, {tests!r})
from wheels import write_wheel

NEEDS = "Requires-Dist: probe\\nProvides-Extra: dev\\nRequires-Dist: extra; extra == 'dev'\\n"

def build_editable(folder, settings=None, metadata=None):
    return write_wheel(folder, "mill", "1.0", metadata=NEEDS).name

build_wheel = build_editable
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with an empty environment, and a folder of packages that pip.conf alone names."""
    root = tmp_path / "tests" / "clone"
    (root / "deploy").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "deploy")
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mill"\nversion = "1.0"\ndynamic = ["dependencies", "optional-dependencies"]\n'
    )
    (root / "backend.py").write_text(BACKEND.format(tests=str(Path(__file__).parent)))
    (root / "constraints.txt").write_text("probe==1.0\n")
    index = tmp_path / "packages"
    index.mkdir()
    for version in ("1.0", "2.0"):
        write_wheel(index, "probe", version)
        write_wheel(index, "extra", version)
    (tmp_path / "company.txt").write_text("extra<2\n")
    (root.parent / "pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {tmp_path}\n    {index}\nconstraint = {tmp_path}/company.txt\n"
    )
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    # uv lies beside this test, and here no network is asked for it
    [packages] = (root / ".venv/lib").glob("python*/site-packages")
    (packages / "here.pth").write_text("\n".join(site.getsitepackages()))
    return root


def install(project: Path, *extras: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    told = {
        "PIP_CONFIG_FILE": str(project.parent / "pip.conf"),
        "UV_CACHE_DIR": str(project.parent / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(project / ".venv/bin/python"), "deploy/install.py", *extras]
    return subprocess.run(
        command, cwd=project, env={**clean, **told, **(env or {})}, capture_output=True, text=True, check=False
    )


def version_of(project: Path, name: str) -> str | None:
    code = f"import importlib.metadata as about\nprint(about.version({name!r}))"
    command = [str(project / ".venv/bin/python"), "-c", code]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def installer_of(project: Path, name: str) -> str:
    [note] = project.glob(f".venv/lib/python*/site-packages/{name}-*.dist-info/INSTALLER")
    return note.read_text().strip()


def test_uv_takes_packages_from_where_pip_conf_says_and_as_the_constraints_say(project: Path) -> None:
    done = install(project)
    assert done.returncode == 0, done.stderr
    assert installer_of(project, "probe") == "uv"
    assert version_of(project, "probe") == "1.0"  # constraints.txt
    assert version_of(project, "extra") is None
    assert [*project.glob(".venv/lib/python*/site-packages/__pycache__/probe.*.pyc")]
    assert install(project, "dev").returncode == 0
    assert version_of(project, "extra") == "1.0"  # the company's constraints


def test_where_uv_cannot_pip_does_it_and_it_is_said(project: Path) -> None:
    done = install(project, env={"UV_INDEX_STRATEGY": "nobody knows this one"})
    assert done.returncode == 0, done.stderr
    assert "uv could not install it; pip tries" in done.stderr
    assert installer_of(project, "probe") == "pip"
    assert version_of(project, "probe") == "1.0"


def test_what_neither_can_install_ends_with_an_error(project: Path) -> None:
    (project / "constraints.txt").write_text("probe==3.0\n")
    done = install(project)
    assert done.returncode != 0
    assert "probe==3.0" in done.stderr


def test_the_environment_counts_more_than_the_file_and_install_more_than_global() -> None:
    listed = (
        ":env:.cert='/own.pem'\n:env:.disable-pip-version-check='1'\n"
        "global.cert='/old.pem'\nglobal.no-cache-dir='true'\nglobal.index-url='https://one/simple'\nglobal.find-links='\\n/a\\n/b'\n"
        "install.index-url='https://two/simple'\nfreeze.timeout='1'\n"
    )
    assert SAYS["uv_variables"](SAYS["parse_pip_options"](listed)) == {
        "SSL_CERT_FILE": "/own.pem",
        "UV_NO_CACHE": "true",
        "UV_DEFAULT_INDEX": "https://two/simple",
        "UV_FIND_LINKS": "/a,/b",
    }
