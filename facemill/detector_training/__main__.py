"""`python -m facemill.detector_training FOLDER --output DIR`: training where there are only torch, numpy, OpenCV and
pyarrow. Every field of `Recipe` is an option; `facemill detector train` is the same with more comfort."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from facemill.detector_training.augment import Sampling
from facemill.detector_training.run import Recipe, train_detector
from facemill.errors import FacemillError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
_SPECIAL = ("schedule", "sampling")


def main(arguments: list[str] | None = None) -> int:
    """Trains, and returns the exit code: 0 done, 1 an error that was told, 130 told to end, the state is saved."""
    given = vars(_parser().parse_args(arguments))
    folder, output = given.pop("folder"), given.pop("output")
    try:
        recipe = Recipe(schedule=_schedule(given.pop("schedule")), sampling=_sampling(given.pop("sampling")), **given)
        trained = train_detector(folder, output, recipe, tell=lambda line: print(line, flush=True))
    except FacemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    if trained.metrics is None:
        print(f"told to end; step {trained.outcome.step} is saved, the same command goes on", flush=True)
        return EXIT_INTERRUPTED
    print(f"detector in {trained.folder / 'detector'}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m facemill.detector_training", description="Train DSFD.")
    parser.add_argument("folder", type=Path, help="pictures and annotations: VOC, WIDER FACE or dlib")
    parser.add_argument("--output", type=Path, required=True, help="folder of this training")
    parser.add_argument("--schedule", default="", help='"0:1,0.67:0.1": from which share of the steps which factor')
    parser.add_argument("--sampling", default="", help='"anchor=0.4,expand_most=2": fields of Sampling')
    for field in dataclasses.fields(Recipe):
        if field.name not in _SPECIAL:
            kind = next((k for k in (int, float) if k.__name__ in str(field.type).split(" | ")), str)
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    return parser


def _schedule(text: str) -> Any:
    if not text:
        return Recipe().schedule
    try:
        return tuple((float(share), float(factor)) for share, factor in (part.split(":") for part in text.split(",")))
    except ValueError as error:
        raise FacemillError(f"--schedule wants SHARE:FACTOR,…, got {text!r}") from error


def _sampling(text: str) -> Sampling:
    known = {field.name for field in dataclasses.fields(Sampling) if field.type == "float"}
    changes: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            changes[name] = float(value)
        except ValueError:
            name = ""
        if name not in known:
            raise FacemillError(f"--sampling wants NAME=NUMBER,… with {', '.join(sorted(known))}; got {part!r}")
    return Sampling(**changes)


if __name__ == "__main__":
    sys.exit(main())
