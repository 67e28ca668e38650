"""Packages that installers take for real ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_wheel(
    folder: str | Path, name: str, version: str, members: Mapping[str, bytes] | None = None, metadata: str = ""
) -> Path:
    """A pure Python wheel.

    Args:
        members: path in the package → content; without them a module of that name.
        metadata: further lines, each with its end.
    """
    path = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        **(members or {f"{name}.py": b""}),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {**files, f"{about}/RECORD": record.encode()}.items():
            wheel.writestr(file, content)
    return path
