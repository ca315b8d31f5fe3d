"""The staging file: whole or nothing, never a full disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.dump import mark
from kopiwatch.backup.dump.file import BLOCK_BYTES, DumpFile
from kopiwatch.errors import RunError

pytestmark = pytest.mark.anyio
END = b"\nkopiwatch-end 00ff\n"
WHOLE = b"CREATE TABLE t;\n-- Dump completed\n"


async def stage(path, pieces, check=mark.anything, **more) -> DumpFile:
    file = DumpFile(path, "unit shop: the dump of db (mysql)", END, **more)
    await file.open()
    try:
        for piece in pieces:
            await file.take(piece)
        await file.finish(check)
    finally:
        await file.close()
    return file


async def test_dump_has_its_name_only_when_it_is_whole(tmp_path):
    file = await stage(tmp_path / "db.sql", [WHOLE, END], mark.mysql)
    assert (tmp_path / "db.sql").read_bytes() == WHOLE
    assert file.size == len(WHOLE)
    assert [each.name for each in tmp_path.iterdir()] == ["db.sql"]
    assert (tmp_path / "db.sql").stat().st_mode & 0o777 == 0o600


async def test_truncation_at_any_byte_is_never_accepted(tmp_path):
    """Whatever the engine: also of a command that has no mark of its own."""
    content = WHOLE + END
    for size in range(len(content)):
        with pytest.raises(RunError) as caught:
            await stage(tmp_path / "db.sql", [content[:size]])
        assert caught.value.reason == "dump-cut"
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300), st.integers(min_value=1, max_value=40))
async def test_pieces_may_end_anywhere(tmp_path_factory, content, step):
    path = tmp_path_factory.mktemp("stage") / "db"
    whole = b"x" + content + END
    await stage(path, [whole[at : at + step] for at in range(0, len(whole), step)])
    assert path.read_bytes() == b"x" + content


async def test_nothing_printed_is_no_dump(tmp_path):
    with pytest.raises(RunError, match="printed nothing") as caught:
        await stage(tmp_path / "db", [END])
    assert caught.value.reason == "dump-empty"


async def test_dump_without_its_mark_is_refused_although_it_ended_well(tmp_path):
    with pytest.raises(RunError, match="Dump completed"):
        await stage(tmp_path / "db", [b"CREATE TABLE t;\n", END], mark.mysql)
    assert list(tmp_path.iterdir()) == []


async def test_surplus_is_cut_off(tmp_path):
    dump = b"REDIS0011\xff" + bytes(8)
    await stage(tmp_path / "db", [dump, b"0" * 40, END], mark.redis)
    assert (tmp_path / "db").read_bytes() == dump


async def test_disk_is_never_filled_up(tmp_path):
    """The journal and the history need their room, too."""
    with pytest.raises(RunError, match="does not fit") as caught:
        await stage(tmp_path / "db", [b"x" * BLOCK_BYTES], reserve=1 << 62)
    assert caught.value.reason == "dump-space"
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_second_attempt_begins_anew(tmp_path):
    file = DumpFile(tmp_path / "db", "the dump", END)
    await file.open()
    await file.take(b"half of it")
    await file.open()
    await file.take(b"all of it" + END)
    await file.finish(mark.anything)
    await file.close()
    assert (tmp_path / "db").read_bytes() == b"all of it"
