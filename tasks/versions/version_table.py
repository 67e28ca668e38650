"""The dataset table of a version, read where it lies: in DVC's cache or remote. Nothing is checked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from facemill import schema
from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.versions.remote import how_to_get
from tasks.versions.store import Version

Found = TypeVar("Found")


def of_each_part(root: Path, version: Version, read: Callable[[pq.ParquetFile], Found]) -> Iterator[Found]:
    """What a function reads from each part of a version's dataset, in the parts' order.

    Raises:
        FacemillError: the data lies neither in DVC's cache nor in its remote, a part is no Parquet, or one of another
            table or schema version.
    """
    from dvc.api import DVCFileSystem
    from dvc_data.index.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=version.tag)
        for path in sorted(files.glob(f"{Data.DATASET}/*.parquet")):
            with files.open(path, "rb") as stream, pq.ParquetFile(stream) as part:
                found = schema.name_of(part.schema_arrow), schema.version_of(part.schema_arrow)
                if found != (schema.DATASET.name, schema.DATASET.version):
                    raise FacemillError(f"version {version.name}: {path} holds table {found[0]} version {found[1]}")
                yield read(part)
    except (OSError, DataIndexDirError) as error:
        raise FacemillError(
            f"the data of version {version.name} is neither in DVC's cache nor in its remote ({error}): "
            f"{how_to_get(root)}"
        ) from error
    except pa.ArrowException as error:
        raise FacemillError(
            f"version {version.name}: {path} is not a readable Parquet file ({error}): delete it from DVC's cache; "
            f"{how_to_get(root)}"
        ) from error
