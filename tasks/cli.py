"""The command line: `facemill`.

Every failure ends with one message and a code: 0 done, 1 an error that the message tells how to mend, 2 wrong usage,
130 interrupted (finished shards and videos are kept; the same command goes on). `--traceback` shows where it came from.
Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from facemill import __version__
from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.commands.detect import detect_command
from tasks.commands.detector import detector_app
from tasks.paths import EXISTING_FOLDER, PATH
from tasks.stages import STAGES

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

app = typer.Typer(
    help="Curated face datasets, face-swap models and converted archives, as resumable, versioned batch work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
version_app = typer.Typer(help="Name, list, compare and bring back dataset versions.", no_args_is_help=True)
app.add_typer(version_app, name="version")
app.add_typer(detector_app, name="detector")

Root = Annotated[
    Path,
    typer.Option("--root", help="The project's folder, with params.yaml.", show_default="here", **PATH),
]
_HERE = Path(".")


def _known_stage(name: str) -> str:
    if name not in STAGES:
        raise typer.BadParameter(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}")
    return name


class FlowName(StrEnum):
    PIPELINE = "pipeline"
    REFRESH = "refresh"
    TRAIN = "train"
    CONVERT = "convert"


@app.command()
def check(root: Root = _HERE) -> None:
    """Check params.yaml, and that what it names exists; say what it asks for. Mend what a killed DVC has left.

    Example: facemill check
    """
    from tasks.check import check_project
    from tasks.params import check_groups, load_params
    from tasks.stages import PARAM_GROUPS
    from tasks.versions.leftovers import mend

    mend(root.resolve())
    params = load_params(root)
    check_groups(root, PARAM_GROUPS)
    check_project(params, root.resolve())
    for name, identity in params.identities.items():
        kinds = ", ".join(source.kind for source in identity.sources)
        print(f"{name}: {identity.rights.basis} ({identity.rights.evidence}); sources: {kinds}")
    becomes = ", ".join(f"{replaced} becomes {new}" for replaced, new in params.convert.becomes.items())
    print(f"archive: {params.archive.kind}; {becomes}")
    print("params.yaml is in order")


@app.command()
def stage(
    name: Annotated[
        str,
        typer.Argument(
            help="Which stage.", metavar="|".join(STAGES), callback=_known_stage, autocompletion=lambda: [*STAGES]
        ),
    ],
    root: Root = _HERE,
    retry: Annotated[
        bool, typer.Option("--retry", envvar="FACEMILL_RETRY", help="Also take up the rows that failed before.")
    ] = False,
) -> None:
    """Run one stage, stale or not; `dvc repro` runs those that are stale.

    Example: facemill stage extract
    """
    from tasks.stages import print_totals, run_stage

    print_totals(run_stage(name, root.resolve(), retry=retry))


@app.command()
def run(
    flow: Annotated[FlowName, typer.Argument(help="Which flow.")] = FlowName.PIPELINE,
    root: Root = _HERE,
) -> None:
    """Run a Prefect flow here and now: pipeline is refresh, then train, then convert, then the report.

    Example: facemill run pipeline
    """
    _become_flows(root, flow.value)


@app.command()
def serve(
    root: Root = _HERE,
    cron: Annotated[str, typer.Option(help="When the dataset is refreshed.")] = "0 3 * * *",
) -> None:
    """Stay and run the refresh by the clock, the other flows on demand.

    Example: facemill serve --cron "0 3 * * *"
    """
    _become_flows(root, "serve", "--cron", cron)


@app.command()
def convert(
    archive: Annotated[Path, typer.Argument(help="A folder of videos.", **EXISTING_FOLDER)],
    output: Annotated[Path, typer.Argument(help="The folder for the converted videos.", **PATH)],
    root: Root = _HERE,
    model: Annotated[
        Path | None,
        typer.Option(help="The model folder.", show_default=Data.MODEL, **PATH),
    ] = None,
) -> None:
    """Convert an archive folder with a trained model; run again it converts only what is new.

    Identities, rights and settings come from params.yaml.
    Example: facemill convert ~/footage ~/converted
    """
    from tasks.convert import convert_folder
    from tasks.params import load_params
    from tasks.stages import print_totals

    root = root.resolve()
    print_totals(convert_folder(load_params(root), archive, output, model or root / Data.MODEL))


app.command("detect")(detect_command)


@app.command()
def export(
    root: Root = _HERE,
    identity: Annotated[str | None, typer.Option(help="Only this identity.")] = None,
) -> None:
    """Write the trained model as ONNX, checked against torch.

    Example: facemill export
    """
    from tasks.commands.export import export as write

    for path, difference in write(root.resolve(), identity=identity).items():
        print(f"{path}: differs from torch by at most {difference:.1e}")


@version_app.command("list")
def version_list(root: Root = _HERE) -> None:
    """List the dataset versions, oldest first. Example: facemill version list"""
    from tasks.versions.store import list_versions, print_versions

    print_versions(list_versions(root.resolve()))


@version_app.command("save")
def version_save(
    name: Annotated[str | None, typer.Argument(help="Its name.", show_default="the next v1, v2, …")] = None,
    root: Root = _HERE,
) -> None:
    """Name the dataset as it is now. The same data is never two versions. Example: facemill version save spring"""
    from tasks.versions.store import describe_saved, save_version

    print(describe_saved(save_version(root.resolve(), name), name))


@version_app.command("compare")
def version_compare(
    first: Annotated[str, typer.Argument(help="The older version.")],
    second: Annotated[str, typer.Argument(help="The newer version.")],
    root: Root = _HERE,
) -> None:
    """Show what differs between two versions. Example: facemill version compare v1 v2"""
    from tasks.versions.comparison import compare_versions, print_comparison

    print_comparison(compare_versions(root.resolve(), first, second))


@version_app.command("restore")
def version_restore(
    name: Annotated[str, typer.Argument(help="Which version.")],
    root: Root = _HERE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite parameters that no version holds.")] = False,
) -> None:
    """Bring a version's data and parameters back. Example: facemill version restore v1"""
    from tasks.versions.store import restore_version

    restore_version(root.resolve(), name, force=force)
    print(f"data and parameters are those of {name}")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """The entry point: turns errors into one message and a code."""
    console = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except FacemillError as error:
        if "--traceback" in sys.argv:
            console.print_exception()
        console.print(f"[bold red]error:[/] {_escaped(str(error))}")
        sys.exit(EXIT_ERROR)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this code and says nothing
            console.print("interrupted: what was finished is kept; run the same command to go on")
        raise
    except Exception as error:  # a defect: still one line first, and where to look
        if "--traceback" in sys.argv:
            console.print_exception()
        console.print(
            f"[bold red]defect:[/] {type(error).__name__}: {_escaped(str(error))}\n"
            "run again as `facemill --traceback …` and report what it prints"
        )
        sys.exit(EXIT_ERROR)


def _become_flows(root: Path, *arguments: str) -> None:
    """Hands over to `python -m flows`, which lies a layer above and is not imported here."""
    os.chdir(root)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "flows", *arguments])


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
