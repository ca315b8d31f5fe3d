"""What the worker writes, the reader reads: any bytes, any damage."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.attributes import (
    Attributes,
    HardLinks,
    Node,
    Time,
    Unread,
    Xattrs,
    read,
    stored,
)
from kopiwatch.errors import AttributesDamaged
from kopiwatch.worker import listing
from kopiwatch.worker.listing import Listing, text

names = st.one_of(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, ord("/")}),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1).map(
        str.encode
    ),
)
paths = st.lists(names, max_size=3).map(b"/".join)
times = st.integers(-(2**62), 2**62)
numbers = st.integers(0, 2**32 - 1)
nodes = st.builds(
    Node,
    paths,
    st.sampled_from(["fifo", "socket", "character", "block"]),
    st.integers(0, 0o7777),
    *(numbers, numbers, times, numbers, numbers),
)
xattrs = st.builds(
    Xattrs,
    paths,
    st.lists(st.tuples(names, st.binary(max_size=40)), min_size=1, max_size=3).map(tuple),
)


def few(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


attributes = st.builds(
    Attributes,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    folders=few(st.builds(Time, paths, times)),
    symlinks=few(st.builds(Time, paths, times)),
    names=few(paths),
    nodes=few(nodes),
    links=few(st.builds(HardLinks, few(paths), numbers)),
    xattrs=few(xattrs),
    unread=few(st.builds(Unread, paths, st.just("xattrs"), st.text(max_size=9))),
)


def written(folder, what: Attributes) -> bytes:
    """The list as the worker writes it; entries with the same attributes come twice."""
    out = Listing(str(folder / "list"), str(folder / ".new"), what.source)
    for name, each in (("folder", what.folders), ("symlink", what.symlinks)):
        for time in each:
            out.line({"is": name, "path": text(time.path), "mtime": time.mtime})
    for path in what.names:
        out.line({"is": "name", "path": text(path)})
    for node in what.nodes:
        fields = {name: getattr(node, name) for name in node.__struct_fields__}
        out.line({"is": "node", **fields, "path": text(node.path)})
    for group in what.links:
        shown = [text(path) for path in group.paths]
        out.line({"is": "hard-link", "paths": shown, "outside": group.outside})
    for entry in what.xattrs:
        out.xattrs(entry.path, entry.of)
    for unread in what.unread:
        out.line({"is": "unread", "path": text(unread.path), "part": "xattrs", "why": unread.why})
    out.finish()
    return (folder / "list").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@settings(deadline=None)
@given(what=attributes)
def test_list_reads_as_it_was_written(folder, what):
    """Whatever bytes a name or value holds."""
    twice = Attributes(
        **{name: getattr(what, name) for name in what.__struct_fields__ if name != "xattrs"},
        xattrs=what.xattrs * 2,
    )
    assert read(written(folder, twice)) == twice


@settings(max_examples=40, deadline=None)
@given(what=attributes, place=st.floats(0, 1), byte=st.integers(1, 255))
def test_list_with_a_changed_byte_is_refused(folder, what, place, byte):
    """One byte is enough, wherever it is."""
    content = bytearray(written(folder, what))
    content[int(place * (len(content) - 1))] ^= byte
    with pytest.raises(AttributesDamaged):
        read(bytes(content))


@settings(max_examples=40, deadline=None)
@given(what=attributes, place=st.floats(0, 1, exclude_max=True))
def test_list_that_is_cut_off_is_refused(folder, what, place):
    """At any place; an empty file is no empty list."""
    content = written(folder, what)
    with pytest.raises(AttributesDamaged):
        read(content[: int(place * len(content))])


@given(name=st.binary(max_size=30))
def test_stored_name_is_the_same_to_writer_and_reader(name):
    """Text with as many U+FFFD as there are bytes that are no UTF-8."""
    assert stored(name) == listing.stored(name)
    assert (stored(name).encode() == name) == isinstance(text(name), str)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"lat\xe9in", "lat\ufffdin"),
        (b"tr\xe4\xb8", "tr\ufffd\ufffd"),
        (b"sur\xed\xa0\x80x", "sur\ufffd\ufffd\ufffdx"),
        (b"big\xf4\x90\x80\x80", "big\ufffd\ufffd\ufffd\ufffd"),
        (b"over\xc0\xaf", "over\ufffd\ufffd"),
        (b"bom\xef\xbb\xbf", "bom\ufeff"),
        (b"fffe\xef\xbf\xbe", "fffe\ufffe"),
    ],
)
def test_stored_name_is_what_kopia_makes_of_it(name, kept):
    """As measured on Kopia 0.23.1, which is Go's JSON encoding."""
    assert stored(name) == kept


def test_list_of_a_later_format_is_refused_with_the_way_out():
    """It may tell of things that we would silently leave out."""
    with pytest.raises(AttributesDamaged, match="format 2") as refused:
        read(sealed(b'{"is":"attributes","format":2,"source":"x"}\n{"is":"new"}\n'))
    assert "version" in refused.value.hint


@pytest.mark.parametrize(
    "line",
    [
        b'{"is":"new"}',
        b'{"is":"folder","path":"x"}',
        b'{"is":"folder","path":{"base64":"?"},"mtime":1}',
        b'{"is":"xattrs","path":"x","like":7}',
        b'{"is":"xattrs","path":"x"}',
        b'{"is":"node","path":"x","kind":"door","mode":1,"uid":1,"gid":1,"mtime":1}',
        b"[]",
        b"\xff",
    ],
)
def test_list_with_a_strange_line_is_refused(line):
    """Although its checksum is right."""
    header = b'{"is":"attributes","format":1,"source":"x"}\n'
    with pytest.raises(AttributesDamaged):
        read(sealed(header + line + b"\n"))


def sealed(body: bytes) -> bytes:
    end = {"is": "end", "lines": body.count(b"\n"), "crc": f"{zlib.crc32(body):08x}"}
    return body + json.dumps(end).encode() + b"\n"


def test_raw_names_stand_in_base64():
    """So that any JSON reader takes the file."""
    assert text(b"caf\xe9") == {"base64": base64.b64encode(b"caf\xe9").decode()}
    assert text("café".encode()) == "café"


def test_example_of_the_documentation_is_what_we_read():
    """Whoever follows the page reads and writes the same."""
    page = (Path(__file__).parents[2] / "docs" / "attributes.md").read_text()
    listed = read(page.split("```\n")[1].encode())
    assert listed.source == "volumes/shop_data"
    assert listed.names == (b"caf\xe9",)
    assert {entry.path for entry in listed.xattrs} == {b"bin/ping", b"bin/ping6"}
    assert len({entry.of for entry in listed.xattrs}) == 1
    assert [node.kind for node in listed.nodes] == ["fifo", "character"]
    assert len(listed.unread) == len(listed.links) == 1
