"""`facemill why`: what has changed since each stage last ran, in words.

What a stage was made from stands in dvc.lock: its parameters by value, its inputs by hash. What DVC's cache still has
of the small ones (the inventory, which code and packages decided) is compared with what is now. Nothing is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import as_json
from tasks.catalogue import Data, weights_file
from tasks.curating.decisions import changes
from tasks.inventory import current_code, look
from tasks.params import load_params
from tasks.params_file import PARAMS_FILE, read_params_file
from tasks.stages import STAGES, Stage
from tasks.versions import dvc, dvc_lock

NAMED = 3
"""So many names of a kind are listed; of the rest the number."""
NEVER = "it has never run here"


def why(
    root: Path, *, without_code: bool = False, files: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, list[str]]:
    """What makes each stage stale, as clauses that can stand alone; nothing for one that is up to date.

    Args:
        root: the project's folder.
        without_code: leave code and packages out, of the stages before as well.
        files: what the inventory would write, where the caller has looked already (`tasks.inventory.Found.files`).

    Returns:
        Stage → reasons, for every stage but the inventory, which always looks.

    Raises:
        FacemillError: params.yaml or dvc.lock cannot be used, or a source is missing.
    """
    params, lock = load_params(root), dvc_lock.stages(dvc_lock.read(root))
    values = read_params_file(root)
    if files is None:
        code = current_code(params, root) if lock and not without_code else {}  # seconds, the first time
        files = look(params, root).files(code)
    makers = {made: stage.name for stage in STAGES.values() for made in stage.makes}
    reasons: dict[str, list[str]] = {}
    for stage in STAGES.values():
        if not stage.reads:
            continue
        entry = lock.get(stage.name)
        if entry is None:
            reasons[stage.name] = [NEVER]
            continue
        reasons[stage.name] = [
            *_of_files(root, entry, files),
            *params_reasons(entry.get("params", {}).get(PARAMS_FILE, {}), values),
            *_of_tables(stage, entry, lock, makers, reasons),
            *_of_outputs(root, entry),
        ]
    return reasons


def describe(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each stage."""
    return [
        f"Stage {stage} will run again: {'; '.join(found)}." if found else f"Stage {stage} is up to date."
        for stage, found in reasons.items()
    ]


def code_reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two contents of data/code/STAGE.json."""
    reasons = [
        f"{name} was {old['packages'].get(name, 'not used')} and is {new['packages'].get(name, 'not used')} now"
        for name in _differing(old["packages"], new["packages"])
    ]
    if files := _differing(old["code"], new["code"]):
        reasons.append(f"the code in {_listed(files)} has changed")
    return reasons


def inventory_reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two contents of data/inventory.json: pictures and videos that came, went or changed."""
    reasons = []
    for key, what, name in (("sources", "source", "name"), ("archive", "video", "name")):
        before, after = (_by_name(each[key], name) for each in (old, new))
        for word, names in (
            ("added", sorted(after.keys() - before.keys())),
            ("removed", sorted(before.keys() - after.keys())),
            ("changed", sorted(each for each in after.keys() & before.keys() if after[each] != before[each])),
        ):
            if names:
                noun = {"source": "picture or film", "video": "video of the archive"}[what]
                plural = {"source": "pictures or films", "video": "videos of the archive"}[what]
                count = f"1 {noun} was" if len(names) == 1 else f"{len(names)} {plural} were"
                reasons.append(f"{count} {word} ({_listed([each[-1] for each in names])})")
    if old.get("portraits") != new.get("portraits"):
        reasons.append("the sample portraits have changed")
    return reasons


def params_reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Parameters whose values differ, with both; `old` are the groups that dvc.lock recorded."""
    return [
        f"parameter {key} was {_shown(before)} and is {_shown(after)} now"
        for group, recorded in old.items()
        for key, before, after in _leaves(group, recorded, new.get(group))
    ]


def _leaves(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*map(str, old), *map(str, new)}):
            yield from _leaves(f"{key}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield key, old, new


def _of_files(root: Path, entry: Mapping[str, Any], present: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What differs in the small inputs that the inventory makes."""
    compare = {Data.INVENTORY: inventory_reasons, Data.DECISIONS: changes} | {
        weights_file(stage): partial(weights_reasons, stage) for stage in STAGES
    }
    for dep in entry.get("deps", []):
        content = present.get(dep["path"])
        if content is not None and hashlib.md5(as_json(content)).hexdigest() != dep.get("md5"):
            old = recorded(dvc.cache_folder(root), dep)
            if old is None:
                if _now_differs(root, dep):
                    yield f"{dep['path']} has changed, and DVC's cache no longer has what it was"
                continue
            yield from compare.get(dep["path"], code_reasons)(old, content)


def weights_reasons(stage: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Files that a stage's parameters name, whose content differs."""
    return [f"the file that {stage}.{name} names has another content" for name in _differing(old, new)]


def _of_tables(
    stage: Stage,
    entry: Mapping[str, Any],
    lock: Mapping[str, Any],
    makers: Mapping[str, str],
    reasons: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Inputs that an earlier stage makes: those that it will make anew, and those that are others by now."""
    recorded = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
    for maker, paths in _by_maker(stage.reads, makers).items():
        if reasons.get(maker):
            yield f"it reads {', '.join(Path(path).name for path in paths)}, which {maker} makes anew"
        elif maker in reasons:
            made = {out["path"]: out.get("md5") for out in lock.get(maker, {}).get("outs", [])}
            yield from (
                f"{path} is not the one that it was made from" for path in paths if recorded.get(path) != made.get(path)
            )


def _by_maker(paths: Sequence[str], makers: Mapping[str, str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for path in paths:
        if path in makers:
            grouped.setdefault(makers[path], []).append(path)
    return grouped


def _of_outputs(root: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    for out in entry.get("outs", []):
        if not (root / out["path"]).exists():
            yield f"{out['path']} is gone"


def recorded(cache: Path, dep: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content that a dependency had, from DVC's cache; None where the cache has it no more."""
    md5 = str(dep.get("md5", ""))
    try:
        content: Any = json.loads((cache / md5[:2] / md5[2:]).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _now_differs(root: Path, dep: Mapping[str, Any]) -> bool:
    try:
        return hashlib.md5((root / dep["path"]).read_bytes()).hexdigest() != dep.get("md5")
    except OSError:
        return True


def _by_name(entries: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[str, ...], Any]:
    """Entries of the inventory by what stays the same while their content changes."""
    keys = ("identity", "role", "source")
    return {(*(str(each.get(key, "")) for key in keys), str(each[name])): each.get("sha256") for each in entries}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def reasons_of(root: Path, stage: str) -> list[str]:
    """As `why`, for one stage.

    Raises:
        FacemillError: no such stage, or as `why` does.
    """
    found = why(root)
    if stage not in found:
        raise FacemillError(f"there is nothing to say of {stage!r}; the stages are {', '.join(found)}")
    return found[stage]
