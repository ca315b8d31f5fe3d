"""Reading Compose files and environment files."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.compose.document import NotCompose, read_document
from kopiwatch.backup.compose.env import NotEnvironment, interpolate, read_env

WHOLE = b"""
x-a: &a {env_file: [base.env]}
services:
  web: {<<: *a, build: ./app, extends: {file: common.yml, service: base}}
  db:
    label_file: labels.env
    env_file:
      - {path: ./opt.env, required: false}
      - ${E:-prod}.env
configs: {c: {file: ./nginx.conf}, d: {content: inline}}
secrets: {s: {file: ./sec}, e: {environment: X}}
include:
  - inc/compose.yml
  - {path: [a.yml, b.yml], project_directory: ../x, env_file: inc.env}
---
services: {more: {env_file: more.env, command: !reset null}}
"""


def test_everything_that_a_compose_file_names_is_found():
    """Through merge keys, in each way to write it, in each document of the file."""
    document = read_document(WHOLE)
    assert {(named.kind, named.path, named.required) for named in document.files} == {
        ("env_file", "base.env", True),
        ("env_file", "./opt.env", False),
        ("env_file", "${E:-prod}.env", True),
        ("env_file", "more.env", True),
        ("label_file", "labels.env", True),
        ("extends", "common.yml", True),
        ("build", "./app", False),
        ("config", "./nginx.conf", True),
        ("secret", "./sec", True),
    }
    first, second = document.included
    assert (first.paths, first.env_files) == (("inc/compose.yml",), None)
    assert second.paths == ("a.yml", "b.yml")
    assert (second.folder, second.env_files) == ("../x", ("inc.env",))


def test_of_an_extended_file_only_the_wanted_service_counts():
    """With what it extends in turn; not the other services, nor the file's secrets."""
    text = b"""
services:
  a: {extends: b, env_file: a.env}
  b: {extends: {service: c}}
  c: {env_file: c.env}
  other: {env_file: other.env}
secrets: {s: {file: s}}
"""
    found = read_document(text, frozenset({"a", "absent"}))
    assert [named.path for named in found.files] == ["a.env", "c.env"]


MERGES = b"x-0: &x0 {k: v}\n" + b"".join(
    b"x-%d: &x%d {<<: [%s]}\n" % (i, i, b",".join([b"*x%d" % (i - 1)] * 100)) for i in range(1, 20)
)


def test_a_yaml_bomb_costs_nothing():
    """Merge keys that would spell out 100**19 entries."""
    assert read_document(MERGES + b"services: {a: {<<: *x19, env_file: e}}").files[0].path == "e"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 5000, "nested"),
        (b"a: [", "not YAML"),
        (b"a: *b", "not YAML"),
        (b"\xff\xfe", "UTF-8"),
        (b"", "empty"),
        (b"- services", "not a Compose file"),
        (b"root:$6$x:1:2:\n", "not a Compose file"),
        (b"name: x\n", "not a Compose file"),
        (b"apiVersion: v1\nservices: {}\n", "not a Compose file"),
        (b"services: {}\n" + b"#" * 300_000, "too large"),
        (
            b"x-x: &x ["
            + b"~," * 50_000
            + b"]\nservices:\n"
            + b"".join(b" s%d: {env_file: *x}\n" % i for i in range(40)),
            "no end",
        ),
        (b"services: {a: {env_file: [" + b"a," * 2000 + b"]}}", "more than"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_what_is_no_compose_file_is_refused_with_a_reason(content, why):
    with pytest.raises(NotCompose, match=why):
        read_document(content)


def test_an_alias_that_holds_itself_ends():
    assert read_document(b"services: &s {x: *s, y: &l [*l]}").files == ()


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_read_or_refused(content):
    """Never another error: it would end the run."""
    with contextlib.suppress(NotCompose):
        read_document(content)


def test_variables_of_an_environment_file():
    """Quotes, comments, export, and values that name others."""
    text = """# head
A=1
export B="x$A\\n"
C='$A' # said raw
D=p${A}q # comment
F
G=${X:-${A}}
H: 3
M="l1
l2"
"""
    assert read_env(text, {}) == {
        "A": "1",
        "B": "x1\n",
        "C": "$A",
        "D": "p1q",
        "G": "1",
        "H": "3",
        "M": "l1\nl2",
    }


@pytest.mark.parametrize(
    "text", ["root:$6$x:19000:0\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", "a b\n", "="]
)
def test_other_files_are_no_environment_files(text):
    """A label could name /etc/shadow or a private key as one."""
    with pytest.raises(NotEnvironment):
        read_env(text, {})


@pytest.mark.parametrize(
    ("text", "filled", "unknown"),
    [
        ("$A/${A}", "1/1", ()),
        ("$$A", "$A", ()),
        ("${N:-d}${N-d}${E:-d}${E-d}", "ddd", ()),
        ("${A:+y}${N:+y}", "y", ()),
        ("${N:-${M:-deep}}", "deep", ()),
        ("${N}x$M", "x", ("N", "M")),
        ("${A:?no}${N:?no}", "1", ("N",)),
        ("${N", "", ("N",)),
    ],
)
def test_variables_in_a_path(text, filled, unknown):
    found = interpolate(text, {"A": "1", "E": ""})
    assert (found.text, found.unknown) == (filled, unknown)


def test_variables_that_grow_without_end_are_not_filled_in():
    lines = [f"A{i}=" + f"$A{i - 1}" * 10 for i in range(1, 30)]
    known = read_env("A0=aaaaaaaaaa\n" + "\n".join(lines), {})
    assert max(map(len, known.values())) <= 32 * 1024


@given(st.text(alphabet="${}:-+?AB'\"\\=#\n a", max_size=60))
def test_any_text_is_filled_in_or_refused(text):
    interpolate(text, {"A": "1"})
    with contextlib.suppress(NotEnvironment):
        read_env(text, {})
