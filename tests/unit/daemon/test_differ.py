"""Two looks at the units: what is said of each that is new, changed, gone, or back."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from unit.units.build import container, volume

from kopiwatch.daemon.differ import differences
from kopiwatch.report.history_record import UnitRecord
from kopiwatch.units.group import Discovery, discover

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
GONE = {"shop": UnitRecord("shop", first_seen=NOW, gone_since=NOW)}
KNOWN = {"shop": UnitRecord("shop", first_seen=NOW)}


def shop(**labels: str) -> Discovery:
    return discover([container("shop", volume("data"), labels=labels)])


def told(before, after, known=None) -> list[tuple[str, str, str]]:
    return [
        (line.action, line.level, line.message) for line in differences(before, after, known or {})
    ]


def test_equal_looks_say_nothing():
    """Every resync would be a line otherwise."""
    assert told(shop(), shop(), KNOWN) == []


@pytest.mark.parametrize("before", [None, Discovery()])
def test_unit_that_was_never_there_is_found(before):
    """With its members, sources and schedule, in one line."""
    assert told(before, shop(schedule="@hourly")) == [
        ("unit-found", "info", "unit shop: found: shop; 1 source, schedule @hourly")
    ]


@pytest.mark.parametrize(("before", "known"), [(None, GONE), (Discovery(), KNOWN)])
def test_unit_that_was_away_is_back(before, known):
    """Also across a restart."""
    assert [action for action, _, _ in told(before, shop(), known)] == ["unit-back"]


def test_unit_known_at_the_start_is_found_and_not_back():
    """It never went away: only we did."""
    assert [action for action, _, _ in told(None, shop(), KNOWN)] == ["unit-found"]


def test_unit_that_vanishes_is_a_warning_with_the_way_out():
    """Its deadline goes on, which somebody may want to end."""
    ((action, level, message),) = told(shop(), Discovery(), KNOWN)
    assert (action, level) == ("unit-gone", "warning")
    assert "gone with shop" in message
    assert "kopiwatch forget shop" in message


def test_unit_that_is_missing_at_the_start_is_said_once():
    """With the time since which it is."""
    assert told(None, Discovery(), GONE) == [
        ("unit-gone", "warning", "unit shop: its containers are gone since 2026-01-02 12:00 UTC")
    ]
    assert told(Discovery(), Discovery(), GONE) == []


def stack(*names: str, **more: object) -> Discovery:
    return discover(
        [container(name, volume(f"v-{name}"), project="shop", **more) for name in names]
    )


def test_members_that_come_and_go_are_named_with_what_they_hold():
    """One line for the unit, not one for each."""
    ((action, _, message),) = told(stack("db", "web"), stack("db", "mail"))
    assert action == "unit-changed"
    assert message == (
        "unit shop: mail joined, web left, now protects volumes/v-mail, "
        "no longer protects volumes/v-web"
    )


def test_member_that_was_recreated_is_said():
    """A new id under the same name."""
    rows = [container("db", volume("data"), project="shop")]
    anew = [msgspec.structs.replace(rows[0], id="f" * 64)]
    assert told(discover(rows), discover(anew)) == [
        ("unit-changed", "info", "unit shop: db recreated")
    ]


def test_new_schedule_is_said_with_the_old_one():
    """Somebody may have meant another one."""
    assert told(shop(schedule="@daily"), shop(schedule="@hourly")) == [
        ("unit-changed", "info", "unit shop: schedule @hourly instead of @daily")
    ]


def test_member_that_stops_is_no_news():
    """States change all the time, also by our own hand."""
    rows = [container("db", volume("data"))]
    down = [msgspec.structs.replace(rows[0], state="exited")]
    assert told(discover(rows), discover(down)) == []


def test_broken_label_is_an_error_once_and_its_end_is_said():
    """It names the label; the same problem at the next look is not said again."""
    ((action, level, message),) = told(shop(), shop(mode="stopp"))
    assert (action, level) == ("unit-invalid", "error")
    assert "DISABLED" in message
    assert "kopi.mode" in message
    assert told(shop(mode="stopp"), shop(mode="stopp")) == []
    other = told(shop(mode="stopp"), shop(mode="stopp", schedule="@hourly"))
    assert [action for action, _, _ in other] == ["unit-changed"]
    again = told(shop(mode="stopp"), shop(priority="x", mode="stopp"))
    assert {action for action, _, _ in again} == {"unit-invalid"}
    assert told(shop(mode="stopp"), shop()) == [
        ("unit-valid", "info", "unit shop: its labels are good again")
    ]


def test_unit_that_is_found_broken_says_both():
    """That it is there, and that nothing will happen to it."""
    actions = [action for action, _, _ in told(None, shop(mode="stopp"))]
    assert actions == ["unit-found", "unit-invalid"]


def writers(*others: str) -> Discovery:
    """``shop``, and other containers without labels that write to its volume."""
    rows = [container(name, volume("data"), enable=None) for name in others]
    return discover([container("shop", volume("data")), *rows])


def test_new_warning_is_said_and_an_old_one_is_not():
    """Each once, when it begins."""
    ((action, level, message),) = told(writers(), writers("guest"))
    assert (action, level) == ("unit-warning", "warning")
    assert "guest" in message
    assert told(writers("guest"), writers("guest")) == []
