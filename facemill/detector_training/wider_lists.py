"""WIDER FACE's official lists of the faces that are easy, medium and hard, as its evaluation tool brings them.

Apart from `facemill.detector_training.evaluate`, which also runs where there is no scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.detector_training.annotations import AnnotatedPicture
from facemill.detector_training.evaluate import SUBSET_HEIGHTS_PX, Subset
from facemill.errors import FacemillError


def official_subsets(folder: Path, truths: Sequence[AnnotatedPicture]) -> dict[str, Subset]:
    """WIDER FACE's own lists, `wider_{easy,medium,hard}_val.mat` (its evaluation tool brings them), for these pictures.

    Raises:
        FacemillError: a list is missing or unreadable, or lacks one of the pictures.
    """
    try:
        # scikit-image brings scipy; a bare GPU machine does without these lists
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise FacemillError("WIDER FACE's .mat lists need scipy: pip install scipy, or leave the lists out") from error
    subsets: dict[str, Subset] = {}
    for name in SUBSET_HEIGHTS_PX:
        path = folder / f"wider_{name}_val.mat"
        try:
            table = loadmat(path)
            lists = {
                (str(event[0][0]), str(file[0][0])): numbers[0].ravel().astype(int) - 1
                for event, files, rows in zip(table["event_list"], table["file_list"], table["gt_list"], strict=True)
                for file, numbers in zip(files[0], rows[0], strict=True)
            }
        except (MatReadError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise FacemillError(f"{path} is not one of WIDER FACE's lists: {error}") from error
        subsets[name] = [_listed(lists, truth, path) for truth in truths]
    return subsets


def _listed(
    lists: Mapping[tuple[str, str], npt.NDArray[Any]], truth: AnnotatedPicture, path: Path
) -> npt.NDArray[np.bool_]:
    rows = lists.get((truth.event, truth.path.stem))
    if rows is None:
        raise FacemillError(f"{path} does not know {truth.event}/{truth.path.name}: these lists belong to another set")
    numbers = np.arange(len(truth.ignore)) if truth.numbers is None else truth.numbers
    return np.isin(numbers, rows)
