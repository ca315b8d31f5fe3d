"""Docker's multiplexed stream, taken apart."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.engine.stream import Demultiplexer


def frame(stream: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(content)) + content


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8),
    st.integers(min_value=1, max_value=17),
)
def test_both_streams_come_out_whole_however_they_were_cut(written, step):
    """Pieces end anywhere, in a header, too."""
    whole = b"".join(frame(stream, content) for stream, content in written)
    streams = Demultiplexer()
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    got = [frame for piece in pieces for frame in streams.feed(piece)]
    assert got == written
    assert not streams.torn


def test_a_frame_is_held_back_until_it_is_complete():
    """Half a frame could be the half of a character."""
    streams = Demultiplexer()
    assert streams.feed(frame(1, b"whole") + frame(2, b"half")[:-1]) == [(1, b"whole")]
    assert streams.torn
    assert streams.feed(b"f") == [(2, b"half")]
    assert not streams.torn
