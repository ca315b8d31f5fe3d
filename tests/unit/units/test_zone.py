"""Time zones by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kopiwatch.units.value import Bad, read_timezone
from kopiwatch.units.zone import nearest_zone, zone, zone_names


def test_every_name_is_a_zone():
    """What is suggested can be used."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert len(zone_names()) > 400
    assert all(noon.astimezone(zone(name)).utcoffset() is not None for name in zone_names())


@pytest.mark.parametrize(
    "name",
    ["", "CET-1CEST", "europe/berlin", "Europe", "Europe/", "../UTC", "/etc/passwd", "a\0b",
     "localtime", "Factory", "posixrules", "right/Europe/Berlin", "é"],
)  # fmt: skip
def test_what_is_no_place_is_no_zone(name):
    """POSIX rules, paths, folders, and what some hosts keep beside the zones."""
    with pytest.raises(KeyError):
        zone(name)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("Europe/Brelin", "Europe/Berlin"),
        ("utc", "UTC"),
        ("xyzzy", ""),
    ],
)
def test_nearest_zone_is_what_was_meant(word, meant):
    """A city is enough, in any case."""
    assert nearest_zone(word) == meant


def test_zone_of_the_opposite_sign_is_not_suggested():
    """Etc/GMT+2 is two hours behind Greenwich: not what somebody means who writes GMT+2."""
    assert not nearest_zone("GMT+2").startswith("Etc/GMT+")


def test_unknown_zone_comes_back_with_the_nearest_name():
    """And is never taken for UTC."""
    found = read_timezone("Europe/Brelin")
    assert found == Bad("is not the name of a time zone", "did you mean 'Europe/Berlin'?")


def test_zone_is_read_from_disk_once(monkeypatch):
    """The event loop asks for zones that the labels have named before, and waits for no disk."""
    names = ("UTC", "Europe/Berlin", "America/New_York")
    first = [zone(name) for name in names]

    def refuse(*_args, **_options):
        raise AssertionError("the disk was asked")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("os.stat", refuse)
    assert [zone(name) for name in names] == first
