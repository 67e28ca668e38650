"""Whatever lies there as params.yaml: it is read as DVC reads it, or refused in one line that says where."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from facemill.errors import FacemillError
from tasks.params import Params, load_params
from tasks.params_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_params_text, read_params_file

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = (PROJECT / "params.yaml").read_bytes()

DEEP = b"a: " + b"[" * 50_000 + b"]" * 50_000
LAUGHS = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)
MERGED_LAUGHS = b"a0: &a0 {x: 1, y: 2}\n" + b"".join(
    b"a%d: &a%d {<<: [%s], k%d: 1}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9), n) for n in range(1, 12)
)
STAIRS = b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (n, n, n - 1) for n in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "params.yaml is empty: it must hold groups"),
        (b"# nothing\n", "params.yaml is empty"),
        (b"---\n...\n", "params.yaml is empty"),
        (b"- seed\n- train\n", "params.yaml holds a list: it must hold groups"),
        (b"seed\n", "params.yaml holds a str"),
        (b"a: [\n", "params.yaml line 2 is not YAML"),
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", 'params.yaml line 4 is not YAML: found duplicate key "c"'),
        (b"a: 1\n'a': 2\n", 'params.yaml line 2 is not YAML: found duplicate key "a"'),
        (b"x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", 'line 2 is not YAML: found duplicate merge key "<<"'),
        (b"a: 1\n---\nb: 1\n", "params.yaml line 2: a second document begins here"),
        (b"a:\n\tb: 1\n", "params.yaml line 2 is not YAML: found character that cannot start any token"),
        (b"a: 1\nb: M\xfcller\n", "params.yaml line 2: byte 0xfc is not UTF-8"),
        ("a: ü".encode("utf-16"), "params.yaml line 1: byte 0xff is not UTF-8"),
        (b"a: b\0c\n", "params.yaml is not YAML"),
        (b'a: "b\\0c"\n', "params.yaml: a: a character that no text can hold"),
        (b'a: "\\ud800"\n', "params.yaml line 1 is not YAML"),
        (DEEP, f"params.yaml line 1: lists and groups lie in each other more than {MAX_DEPTH} deep"),
        (b"- " * 5000, f"line 1: lists and groups lie in each other more than {MAX_DEPTH} deep"),
        (STAIRS, f"params.yaml line {MAX_DEPTH}: lists and groups lie in each other"),
        (LAUGHS, f"more than {MAX_VALUES} values"),
        (MERGED_LAUGHS, f"more than {MAX_VALUES} values"),
        (b"a: &a [*a]\n", "params.yaml line 1: *a stands for nothing that is complete"),
        (b"a: *b\n", "params.yaml line 1: *b stands for nothing"),
        (b"a: 1\nb: 2024-99-99\n", "params.yaml line 2: 2024-99-99 would be read as a date; put it in quotes"),
        (b"a: 2024-01-02\n", "params.yaml line 1: 2024-01-02 would be read as a date"),
        (b"a: !!python/object/apply:os.system [x]\n", "params.yaml line 1: the tag tag:yaml.org,2002:python"),
        (b"a: !!set {x, y}\n", "params.yaml line 1: the tag"),
        (b"a: =\n", "params.yaml line 1 is not YAML"),
        (b"1: a\n", "params.yaml: the key 1 is no text; put it in quotes"),
        (b"a: {2024: b}\n", "params.yaml: a: the key 2024 is no text"),
        (b"a:\n  ? [b]\n  : c\n", "params.yaml: a: the key ('b',) is no text"),
        (b"? {a: 1}\n: b\n", "params.yaml line 1 is not YAML: found unhashable key"),
        (b"true: a\n", "params.yaml: the key True is no text"),
        (b"a: .nan\n", "params.yaml: a: no number"),
        (b"a: {b: [1, -.inf]}\n", "params.yaml: a.b.1: a number beyond"),
        (b"a: 1e400\n", "params.yaml: a: a number beyond"),
        (b"a: 123456789012345678901234567890\n", "params.yaml: a: a number beyond"),
        (b"a: " + b"9" * 5000 + b"\n", "params.yaml line 1: 9999999999"),
        (b"a: " + b"9" * 400 + b"\n", "params.yaml: a: a number beyond"),
        (b"a: 0b_\n", "params.yaml line 1: 0b_ cannot be read as a number"),
        (b"train: {options: {size: 3}}\n", "params.yaml: train.options: a key must not be called 'size'"),
        (b"x: " + b"y" * MAX_BYTES, f"params.yaml is larger than {MAX_BYTES} bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_parameters_is_one_line_with_its_place(text: bytes, message: str) -> None:
    with pytest.raises(FacemillError) as error:
        parse_params_text(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"x: &x {a: 1, c: 3}\ny: {<<: *x, a: 2}\n", {"x": {"a": 1, "c": 3}, "y": {"a": 2, "c": 3}}),
        (b"a: on\nb: 1e3\nc: 010\nd: 1:30\ne: no\n", {"a": "on", "b": 1000.0, "c": 10, "d": "1:30", "e": "no"}),
        (b"a: ~\nb: ~/x\nc: 1.5e-3\nd: true\n", {"a": None, "b": "~/x", "c": 0.0015, "d": True}),
        (b"cluster: {options: {nfiles: 3}}\n", {"cluster": {"options": {"nfiles": 3}}}),
        (b"a: &a 1\nb: [*a, *a]\nc: &c {d: e}\nf: *c\n", {"a": 1, "b": [1, 1], "c": {"d": "e"}, "f": {"d": "e"}}),
        (b"%YAML 1.1\n---\na: on\n", {"a": "on"}),
    ],
    ids=repr,
)
def test_what_is_read_is_what_dvc_reads(text: bytes, values: dict[str, Any]) -> None:
    assert parse_params_text(text) == values == parse_yaml(text.decode(), "params.yaml")


def test_a_file_that_is_none_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"no params.yaml in .*: run this in the project's folder"):
        read_params_file(tmp_path)
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(FacemillError, match=r"params.yaml is not a file"):
        read_params_file(tmp_path)


CRUMBS = [
    b" ",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\t",
    b"!!set ",
    b"2024-99-99",
    b"1e9",
]


def cut_and_mixed() -> st.SearchStrategy[bytes]:
    """Bytes that look like parameters: lines of the shipped file in any order with crumbs in between."""
    lines = st.sampled_from(SHIPPED.splitlines(keepends=True))
    return st.lists(lines | st.binary(max_size=12) | st.sampled_from(CRUMBS), max_size=30).map(b"".join)


def read_or_refused(root: Path, data: bytes) -> Params | str:
    """The parameters, or the message of the one error that there may be."""
    (root / "params.yaml").write_bytes(data)
    try:
        return load_params(root)
    except FacemillError as error:
        return str(error)


@given(st.binary(max_size=200) | cut_and_mixed())
@example(DEEP)
@example(SHIPPED)
@example(b"a: =\n")
def test_any_bytes_are_parameters_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    found = read_or_refused(tmp_path_factory.getbasetemp(), data)
    if isinstance(found, str):
        assert "params.yaml" in found
    else:
        assert parse_params_text(data) == parse_yaml(data.decode(), "params.yaml")


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["", "~", "..", "on"])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a tree of parameters."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [deeper for key, value in inner for deeper in [(*path, key), *places(value, (*path, key))]]


@given(st.data())
def test_any_value_anywhere_is_a_parameter_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = parse_params_text(SHIPPED)
    *above, last = data.draw(st.sampled_from(places(values)))
    node = values
    for key in above:
        node = node[key]
    node[last] = data.draw(VALUES)
    stream = io.BytesIO()
    try:
        YAML(typ="safe", pure=True).dump(values, stream)
    except (UnicodeEncodeError, ValueError):
        return  # half a character: such a file cannot be written
    found = read_or_refused(tmp_path_factory.getbasetemp(), stream.getvalue())
    assert isinstance(found, Params) or "params.yaml" in found
