"""Installs this folder's package and what it needs, with uv: it takes a quarter of pip's time.

    .venv/bin/python deploy/install.py        # into the environment of this Python
    .venv/bin/python deploy/install.py query  # with an extra of pyproject.toml besides

uv knows nothing of pip.conf and PIP_…, where people and their companies say which index, folder of wheels or
certificates to take; so pip is asked for those, and uv gets them. Where it cannot be had or fails, pip installs.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
CONSTRAINTS = "constraints.txt"
SPOKEN_BY_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "no-cache-dir": ("UV_NO_CACHE", " "),
    "proxy": ("ALL_PROXY", " "),
}
"""Option of pip → the variable by which uv is told the same, and what stands there between several values."""


def main() -> int:
    """Returns: the exit status of what installed."""
    package = f".[{','.join(sys.argv[1:])}]" if sys.argv[1:] else "."
    if _run(*PIP, "install", "--quiet", "--constraint", CONSTRAINTS, "uv") == 0:
        options = _pip_options()
        # to pip several indexes are one large one, to uv the first that knows a name has all its versions
        told = {**uv_variables(options), "UV_INDEX_STRATEGY": "unsafe-best-match"}
        uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable)
        constraints = [f"--constraint={file}" for file in (CONSTRAINTS, *options.get("constraint", "").split())]
        if _run(*uv, *constraints, "--editable", package, told=told) == 0:
            _compile()
            return 0
        print("uv could not install it; pip tries", file=sys.stderr)
    return _run(*PIP, "install", "--quiet", "--constraint", CONSTRAINTS, "--editable", package)


def uv_variables(options: Mapping[str, str]) -> dict[str, str]:
    """pip's options, by their long names, as the environment of uv. What uv has no word for is left out."""
    return {
        SPOKEN_BY_UV[name][0]: SPOKEN_BY_UV[name][1].join(value.split())
        for name, value in options.items()
        if name in SPOKEN_BY_UV and value.split()
    }


def parse_pip_options(listed: str) -> dict[str, str]:
    """What `pip config list` prints, as option → value: `install` counts more than `global`, the environment most.

    Args:
        listed: lines such as `global.index-url='https://…'` and `:env:.cert='/…'`.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            found[section][option] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def _compile() -> None:
    """Makes the bytecode of all packages, on all cores: else each of the many processes of a run makes it, or, where
    PYTHONDONTWRITEBYTECODE is set, does without it each time. Tests of packages, a fifth of it, are left out; a file
    that is no Python of this version, as some packages have, is no fault."""
    packages = sysconfig.get_path("purelib")
    left_out = (
        rf"^{re.escape(packages)}/(.*/)?tests?/"  # below the packages: the clone itself may lie in a folder `tests`
    )
    compiler = (sys.executable, "-m", "compileall", "-qq", "-j", "0", "-x", left_out, packages)
    subprocess.run(compiler, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _pip_options() -> dict[str, str]:
    listed = subprocess.run([*PIP, "config", "list"], cwd=PROJECT, check=False, capture_output=True, text=True)
    return parse_pip_options(listed.stdout) if listed.returncode == 0 else {}


def _run(*command: str, told: Mapping[str, str] | None = None) -> int:
    # what somebody has told uv already stands
    return subprocess.run(command, cwd=PROJECT, check=False, env={**(told or {}), **os.environ}).returncode


if __name__ == "__main__":
    sys.exit(main())
