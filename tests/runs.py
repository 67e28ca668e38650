"""The type of a fixture that converts a video."""

from __future__ import annotations

from typing import Protocol

from facemill.swap.converter import Receipt


class Run(Protocol):
    """Converts a video: `video, output, swapper, settings`, and who is known by which embeddings."""

    def __call__(self, *arguments: object, references: object = None) -> Receipt: ...
