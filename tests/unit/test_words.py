"""Numbers in words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kopiwatch import words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_size_is_in_powers_of_1024(count, text):
    """And says so."""
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "12 ms"), (1.5, "1.5 s"), (119, "119.0 s"), (150, "2 min 30 s"), (7260, "2 h 1 min")],
)
def test_seconds_are_for_people(value, text):
    """From milliseconds to hours."""
    assert words.seconds(value) == text


def test_counted_knows_its_grammar():
    """One file, two files."""
    assert (words.counted(1, "file"), words.counted(2, "file")) == ("1 file", "2 files")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-5, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (7260, "2 h 1 min")),
        *((172800, "2 d"), (180000, "2 d 2 h")),
    ],
)
def test_age_has_two_units_at_most(seconds, text):
    """Nobody reads seconds of a backup that is days old."""
    assert words.age(timedelta(seconds=seconds)) == text


def test_until_says_now_for_what_is_due():
    """Never a negative length."""
    assert (words.until(timedelta(seconds=-3)), words.until(timedelta(hours=5))) == (
        "now",
        "in 5 h",
    )
