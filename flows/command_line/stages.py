"""`facemill check`, `facemill stage`, `facemill clean` and others: the pipeline without Prefect."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from facemill.errors import FacemillError
from flows.command_line.options import HERE, Root
from tasks.paths import PATH
from tasks.stages import STAGES
from tasks.work.terminal import say


def _known(name: str) -> str:
    if name not in STAGES:
        raise typer.BadParameter(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}")
    return name


StageName = Annotated[
    str,
    typer.Argument(
        help="Name of the stage: " + ", ".join(STAGES) + ".",
        metavar="STAGE",
        callback=_known,
        autocompletion=lambda: [*STAGES],
    ),
]


def check(root: Root = HERE) -> None:
    """Check params.yaml, and that everything it names exists; mend what a killed DVC has left.

    Example: facemill check
    """
    from tasks.commands.check import check as checked

    say("\n".join(checked(root.resolve())))


def why(
    name: Annotated[str | None, typer.Argument(help="Name of one stage, if not all are asked about.")] = None,
    root: Root = HERE,
) -> None:
    """Say what has changed since each stage last ran, and so what `dvc repro` would redo; nothing is written.

    Example: facemill why extract
    """
    from tasks.commands.why import describe, reasons_of
    from tasks.commands.why import why as found

    folder = root.resolve()
    say("\n".join(describe(found(folder) if name is None else {name: reasons_of(folder, name)})))


def freshness(root: Root = HERE) -> None:
    """Say how old the dataset is; end with 1 if that is more than freshness.max_age_h, or if nobody knows.

    Example: facemill freshness
    """
    from tasks.params import load_params
    from tasks.versions.freshness import freshness as found

    folder = root.resolve()
    state = found(folder, load_params(folder))
    if not state.is_fresh:
        raise FacemillError(str(state))
    say(str(state))


def accept(
    name: StageName,
    reason: Annotated[
        str, typer.Option(help="Why the change of code or packages is harmless; it is kept in accepted.yaml.")
    ],
    root: Root = HERE,
) -> None:
    """Keep a stage's results though its code or packages have changed, since you know that the change is harmless.

    Example: facemill accept train --reason "only a message was reworded"
    """
    from tasks.commands.accept import accept as accepted

    say(accepted(root.resolve(), name, reason))


def verify_repro(
    name: Annotated[str | None, typer.Argument(help="Name of one stage, if not all are to be verified.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The number that chooses the pieces; by default another one each time, which is printed."),
    ] = None,
    root: Root = HERE,
) -> None:
    """Make a random piece of each stage again and compare its bytes with those in data; ends with 1 if they differ.

    Example: facemill verify-repro extract
    """
    from tasks.commands.verify_repro import verify_repro as verdicts

    chosen = random.randrange(1_000_000) if seed is None else seed
    say(f"The pieces are chosen by --seed {chosen}.")
    found = []
    for verdict in verdicts(root.resolve(), [*STAGES] if name is None else [_known(name)], chosen):
        say(verdict)
        found.append(verdict)
    if different := [verdict.stage for verdict in found if not verdict.holds]:
        raise FacemillError(
            f"{', '.join(different)}: other bytes than in data. Either something decides them that is not in the key "
            "(report it), or the files in data are no longer what the stage wrote (`dvc status`, `dvc checkout`)"
        )


def stage(
    name: StageName,
    root: Root = HERE,
    retry: Annotated[
        bool,
        typer.Option("--retry", envvar="FACEMILL_RETRY", help="Also take up the rows that failed in an earlier run."),
    ] = False,
) -> None:
    """Run one stage, stale or not; `dvc repro` runs those that are stale.

    Example: facemill stage extract
    """
    from tasks.stages import print_totals, run_stage

    print_totals(run_stage(name, root.resolve(), retry=retry))


def clean(
    root: Root = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
) -> None:
    """Remove what the stages have made and their scratch; DVC's cache and the named versions stay.

    Example: facemill clean
    """
    from tasks.commands import clean as cleaning

    found = cleaning.made(root)
    if not found:
        say("There is nothing to remove.")
        return
    say("\n".join(f"{path}  {size / 1e6:,.1f} MB" for path, size in found))
    if not yes and not typer.confirm("Remove all of this? What DVC's cache has comes back with `dvc checkout`."):
        say("Nothing was removed.")
        return
    cleaning.clean(root)
    say("All of this was removed.")


def forget(
    root: Root = HERE,
    sha: Annotated[
        list[str] | None, typer.Option(help="SHA-256 of a picture's bytes, as `sample_id` in the tables; repeatable.")
    ] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="Address of a picture, or of a page that shows pictures; repeatable.")
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="Author as the sources state it; repeatable.")] = None,
    identity: Annotated[
        list[str] | None, typer.Option(help="Name of an identity that is no longer in params.yaml; repeatable.")
    ] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="File with a SHA-256 or an address a line.", **PATH)
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="Also remove the project's model and training.")] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also remove earlier tables that hold it from DVC's cache and remote.")
    ] = False,
) -> None:
    """Remove pictures or a person, with copies and all that was made of them, and keep them from coming back.

    Example: facemill forget --url https://example.org/portrait.jpg
    """
    from tasks.commands.forget import Asked
    from tasks.commands.forget import forget as removed

    asked = Asked(*(tuple(each or ()) for each in (sha, url, author, identity)))
    if listed is not None:
        asked += Asked.listed_in(listed)
    removed(root.resolve(), asked, models=models, versions=versions)
