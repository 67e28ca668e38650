"""The README and docs name only what there is: links and their headings, files, commands with their options, keys of
params.yaml, and names in the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.command_line.main import app
from tasks.params import Params

PROJECT = Path(__file__).resolve().parent.parent
DOCS = sorted([PROJECT / "README.md", *PROJECT.glob("docs/**/*.md")])
TOP = "facemill|tasks|flows|tests|benchmarks|docs|deploy"
COMMAND = get_command(app)
MAKEFILE = (PROJECT / "Makefile").read_text()
NAMES = [str(path.relative_to(PROJECT)) for path in DOCS]


@pytest.fixture(params=DOCS, ids=NAMES)
def doc(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def heading_ids(path: Path) -> set[str]:
    """What a link behind `#` can name, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def parts(text: str) -> tuple[list[str], str]:
    """The lines in blocks of commands (sh, bash, or of no language), and the text outside of all blocks."""
    commands, prose, language = list[str](), list[str](), None
    for line in text.splitlines():
        if fence := re.fullmatch(r" *```(\w*)", line):
            language = fence[1] if language is None else None
        elif language is None:
            prose.append(line)
        elif language in ("sh", "bash", ""):
            commands.append(line)
    return commands, "\n".join(prose)


def quoted(text: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", parts(text)[1])


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command in blocks and between backticks, comments left out."""
    block = re.sub(r"\\\n", " ", "\n".join(parts(text)[0]))
    for line in [*block.splitlines(), *quoted(text)]:
        for command in re.split(r"&&|\|", re.sub(r"\s#.*", "", line)):
            try:
                words = shlex.split(command)
            except ValueError:  # a sentence, or a table
                continue
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if words:
                yield words


def test_every_link_leads_somewhere(doc: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", doc.read_text()):
        there = doc.parent / target if target else doc
        assert there.exists(), target
        assert not heading or heading in heading_ids(there), f"{target}#{heading}"


def test_every_file_that_is_named_is_there(doc: Path) -> None:
    for name in quoted(doc.read_text()):
        if re.fullmatch(rf"({TOP})(/[\w-]+)+/?(\.[a-z]\w*)*", name):
            assert (PROJECT / name).exists(), name


def test_every_name_in_the_code_is_there(doc: Path) -> None:
    for name in quoted(doc.read_text()):
        if re.fullmatch(rf"({TOP})(\.\w+)+", name) and not (PROJECT / name).is_file():
            *modules, last = name.split(".")
            while modules and not (found := module_file(modules)):
                last = modules.pop()
            assert found, name
            assert module_file([*modules, last]) or last in defined(found), name


def module_file(names: list[str]) -> Path | None:
    base = PROJECT.joinpath(*names)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def defined(path: Path) -> set[str]:
    """Names that a module defines or imports."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
            case ast.ImportFrom(names=names):
                found |= {each.asname or each.name for each in names}
    return found


def test_every_command_is_one_that_there_is(doc: Path) -> None:
    for program, *words in command_lines(doc.read_text()):
        if program == "facemill":
            check_facemill(words)
        elif program == "make":
            targets = [word for word in words if re.fullmatch("[a-z-]+", word)]
            assert all(re.search(rf"^{each}:", MAKEFILE, re.MULTILINE) for each in targets), words
        elif program == "python" and words[:1] == ["-m"] and words[1].startswith("facemill."):
            assert module_file(words[1].split(".")), words[1]
        elif program in ("python", "pytest") and (files := [each for each in words if each.endswith(".py")]):
            assert (PROJECT / files[0]).exists(), files[0]
            if files[0].startswith("benchmarks/"):
                code = (PROJECT / files[0]).read_text()
                unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in code]
                assert not unknown, (files[0], unknown)


def check_facemill(words: list[str]) -> None:
    """Walks down the tree of commands; options and a first word that is none are an error."""
    command: Any = COMMAND
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            assert name in flags | {"--help"}, (words, name)
        elif getattr(command, "commands", {}) and word.islower() and word.replace("-", "").isalpha():
            assert word in command.commands, (words, word)
            command = command.commands[word]


def test_every_key_of_params_is_one_that_there_is(doc: Path) -> None:
    groups = Params.model_json_schema()
    for name in quoted(doc.read_text()):
        if found := re.match(r"([a-z]+)\.([a-z_]+)(?::|$)", name):
            group, key = found.groups()
            if group in groups["properties"] and key not in ("py", "yaml", "csv", "json"):
                assert key in keys_of(groups, group), name


def keys_of(schema: dict[str, Any], group: str) -> set[str]:
    """The keys of a group of params.yaml."""
    told = schema["properties"][group]
    reference = told.get("$ref") or next((each.get("$ref") for each in told.get("allOf", [])), None)
    return set(schema["$defs"][reference.rpartition("/")[2]]["properties"]) if reference else set()
