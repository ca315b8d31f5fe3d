"""Single values: what is understood, what is refused, and what is suggested."""

from __future__ import annotations

import json
from datetime import time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.config import duration
from kopiwatch.units.schedule import read_schedule
from kopiwatch.units.table import LABELS
from kopiwatch.units.value import (
    Bad,
    Hours,
    choice,
    read,
    read_binds,
    read_boolean,
    read_catch_up,
    read_collapse,
    read_command,
    read_dump,
    read_duration,
    read_list,
    read_name,
    read_notify,
    read_profiles,
    read_timezone,
)


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "Yes", "on", " on "])
def test_boolean_words_for_true_are_true(text):
    """Every usual word for true is understood, in any case."""
    assert read(read_boolean, text) is True


@pytest.mark.parametrize("text", ["false", "0", "no", "OFF"])
def test_boolean_words_for_false_are_false(text):
    """Every usual word for false is understood, in any case."""
    assert read(read_boolean, text) is False


@pytest.mark.parametrize("text", ["", "  ", "ture", "2", "y", "enabled", "true,false"])
def test_boolean_anything_else_is_bad(text):
    """What is no boolean word is never taken for one."""
    assert isinstance(read(read_boolean, text), Bad)


def test_boolean_typo_names_the_nearest_word():
    """A misspelt boolean comes back with the right spelling."""
    assert read_boolean("ture") == Bad("is not a boolean", "did you mean 'true'?")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("26h", 93_600),
        ("7d", 604_800),
        ("007s", 7),
        ("36500d", 36500 * 86400),
    ],
)
def test_duration_is_a_number_and_a_unit(text, seconds):
    """Each unit counts as it is named."""
    assert read_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "1.5h",
        "-3s",
        "0s",
        "s",
        "5 s",
        "5w",
        "5S",
        "1h30m",
        "٣s",
        "36501d",
        "9" * 40 + "d",
        "9" * 9000,
    ],
)
def test_duration_anything_else_is_bad(text):
    """Numbers without unit, fractions, signs, zero and centuries are refused."""
    assert isinstance(read_duration(text), Bad)


@pytest.mark.parametrize(
    ("text", "near"),
    [("1.5h", "'90m'"), ("1h30m", "'90m'"), ("10 minutes", "'10m'"), ("5S", "'5s'"), ("5", "5m")],
)
def test_duration_near_miss_names_the_right_spelling(text, near):
    """A duration in another notation comes back in ours."""
    found = read_duration(text)
    assert isinstance(found, Bad)
    assert near in found.suggestion


@given(st.integers(1, 36_500 * 86_400))
def test_duration_reads_what_it_writes(seconds):
    """Writing and reading a duration are inverse."""
    assert read_duration(duration.write_duration(seconds)) == timedelta(seconds=seconds)


def test_list_items_are_trimmed_and_kept_once():
    """Blanks around items and repetitions do not count."""
    assert read_list("b, a ,b") == ("b", "a")


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b"])
def test_list_with_an_empty_item_is_bad(text):
    """An empty item is a slip, not nothing."""
    assert isinstance(read_list(text), Bad)


@pytest.mark.parametrize("text", ["Shop", "-shop", "a b", "a/b", "..", "é", "a" * 101])
def test_name_outside_the_alphabet_is_bad(text):
    """A name that could be a path or is not lower-case is refused."""
    assert isinstance(read_name(text), Bad)


def test_name_near_miss_suggests_a_valid_name():
    """The suggestion for a bad name is itself a good one."""
    found = read_name("My Shop")
    assert isinstance(found, Bad)
    assert "'my-shop'" in found.suggestion


def test_choice_names_the_nearest_word():
    """A misspelt word of a closed list comes back right."""
    found = choice("stop", "pause")("stopp")
    assert found == Bad("is not one of stop, pause", "did you mean 'stop'?")


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", ("*",)), ("off", ()), ("/srv,/etc/*", ("/srv", "/etc/*")), ("*", ("*",))],
)
def test_binds_are_a_boolean_or_destinations(text, value):
    """True is all, false is none, anything else a list."""
    assert read_binds(text) == value


@pytest.mark.parametrize("text", ["true,/srv", "srv", "ture", "/a,,/b"])
def test_binds_anything_else_is_bad(text):
    """A boolean among destinations, and what is no destination, are refused."""
    assert isinstance(read_binds(text), Bad)


@pytest.mark.parametrize("text", ["db", "db,!default", "!none"])
def test_profiles_are_names_with_or_without_a_mark(text):
    """An exclamation mark drops a profile."""
    assert read_profiles(text) == tuple(text.split(","))


@pytest.mark.parametrize("text", ["!", "DB", "db,!"])
def test_profiles_anything_else_is_bad(text):
    """What could be no profile's name is refused."""
    assert isinstance(read_profiles(text), Bad)


@pytest.mark.parametrize(
    "text",
    ["0 2 * * *", "*/15 * * * *", "0 1,13 * * mon-fri", "5 4 1 jan *", "@daily", "every 6h", "off"],
)
def test_schedule_of_a_usual_form_is_kept(text):
    """Each documented form of a schedule is understood."""
    assert str(read_schedule(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "2 * * *",
        "60 2 * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "*/0 * * * *",
        "5-2 * * * *",
        "x * * * *",
        "@dayly",
        "every",
        "every 6",
        "false",
        "nightly",
        "0 2 * * MONDAY",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "every 59s",
        "every -1h",
        "@reboot",
        "0 2 * * mon#1",
        "0 2 l * *",
        "1--2 * * * *",
        "0 2 * * * \x00",
    ],
)
def test_schedule_of_another_form_is_bad(text):
    """A schedule that is not understood is refused, never replaced by a daily one."""
    assert isinstance(read_schedule(text), Bad)


@pytest.mark.parametrize(
    ("text", "reason", "suggestion"),
    [
        ("0 0 2 * * *", "here are six; there are no seconds", "did you mean '0 2 * * *'?"),
        ("0 2 * *", "here are 4", "'0 2 * * *'"),
        ("0 0 30 2 *", "is never due: there is no such day", "'0 2 * * *'"),
        ("0 2 * * fri-sun", "a Sunday at the end is 7", ""),
        ("5-2 * * * *", "goes backwards", ""),
        ("0 25 * * *", "'25' as its hour, which is not within 0-23", ""),
        ("0 2 * * MONDAY", "'MONDAY' as its day of week", ""),
        ("@dayly", "is not one of @hourly", "did you mean '@daily'?"),
        ("every 90", "is not an interval", "90m"),
        ("every 30s", "the shortest interval is 1m", ""),
    ],
)
def test_schedule_that_is_bad_says_why_and_what_would_be_right(text, reason, suggestion):
    """Promptly, also for a day that never comes."""
    found = read_schedule(text)
    assert isinstance(found, Bad)
    assert reason in found.reason
    assert suggestion in found.suggestion


def test_schedules_are_equal_by_what_they_mean():
    """However they are written; and texts stay as they were."""
    for one, other in (
        ("@daily", "0 0 * * *"),
        ("every 60m", "EVERY 1h"),
        ("0 2 * JAN *", "0  2 * jan *"),
        ("off", "Off"),
    ):
        assert read_schedule(one) == read_schedule(other)
        assert hash(read_schedule(one)) == hash(read_schedule(other))
    assert read_schedule("@daily") != read_schedule("@hourly")
    assert read_schedule("every 1h") != read_schedule("@hourly")
    assert str(read_schedule("@Daily")) == "@daily"


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        (Hours(time(22), time(6)), [time(22), time(23, 59), time(0), time(5, 59, 59)],
         [time(6), time(12), time(21, 59)]),
        (Hours(time(9), time(17)), [time(9), time(16, 59)], [time(17), time(0), time(8, 59)]),
        (Hours(time(22), time(0)), [time(22), time(23, 59)], [time(0), time(21)]),
    ],
)  # fmt: skip
def test_hours_hold_their_beginning_but_not_their_end(hours, inside, outside):
    """They may span midnight."""
    assert all(hours.hold(moment) for moment in inside)
    assert not any(hours.hold(moment) for moment in outside)
    assert read_catch_up(str(hours)) == hours


@pytest.mark.parametrize(
    ("text", "meant"),
    [("20", "20%"), ("0%", "off"), ("no", "off"), ("of", "off"), ("0.2", "20%"), ("120%", "100%")],
)
def test_collapse_that_is_not_understood_says_what_would_be(text, meant):
    """A number without its percent sign, and the words that people have for off."""
    found = read(read_collapse, text)
    assert isinstance(found, Bad)
    assert repr(meant) in found.suggestion


def test_collapse_is_its_number_or_none():
    """off is no limit at all."""
    assert (read(read_collapse, " 35% "), read(read_collapse, "off")) == (35, None)


def test_schedule_false_tells_about_yaml():
    """A bare off in YAML arrives as false, and the suggestion says so."""
    found = read_schedule("false")
    assert isinstance(found, Bad)
    assert "YAML" in found.suggestion


@pytest.mark.parametrize(
    ("reader", "good", "bad"),
    [
        (read_catch_up, ["true", "22:00-06:00"], ["25:00-06:00", "22-06", "05:00-05:00", "maybe"]),
        (read_timezone, ["UTC", "Europe/Berlin", "Etc/GMT+3"], ["Europe/", "/etc/passwd", "a b"]),
        (
            read_dump,
            ["postgres", "sqlite:/a.db", "command"],
            ["postgress", "sqlite", "sqlite:a.db", "redis:x"],
        ),
        (
            read_collapse,
            ["20%", "1%", "100%", "OFF"],
            ["20", "0%", "101%", "0.2", "no", "-5%", "2 %"],
        ),
        (read_command, ["pg_ctl stop", '["a", "b"]'], ["[", "[]", "[1]", '[""]', "[" * 5000]),
        (read_notify, ["always", "ops,me"], ["Ops!", "a,,b"]),
    ],
)
def test_reader_tells_good_from_bad(reader, good, bad):
    """Each reader takes its documented forms and refuses others."""
    assert not any(isinstance(reader(text), Bad) for text in good)
    assert all(isinstance(reader(text), Bad) for text in bad)


def test_command_string_runs_in_a_shell():
    """A plain string is what the shell gets."""
    assert read_command("a && b") == ("sh", "-c", "a && b")


@given(
    st.sampled_from(LABELS), st.text(max_size=60) | st.from_regex(r"[0-9,:*/a-z!@\[\]\" -]{0,20}")
)
def test_no_text_makes_a_reader_raise(row, text):
    """Readers return, whatever they are given; an empty text is always bad."""
    found = read(row.reader, text)
    if not text.strip():
        assert isinstance(found, Bad)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_command_as_json_array_is_its_words(words):
    """Quotes, blanks and dollars arrive as they are; an empty program is no command."""
    found = read_command(json.dumps(words))
    assert found == tuple(words) if words[0] else isinstance(found, Bad)
