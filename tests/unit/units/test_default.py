"""What the configuration says for units that say nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from unit.units.build import container, volume

from kopiwatch.units.default import check_defaults
from kopiwatch.units.group import discover
from kopiwatch.units.retention import Retention
from kopiwatch.units.schedule import DEFAULT, read_schedule

SCHEDULE = "environment KOPIWATCH_SCHEDULE"
HOURLY = {"kopi.schedule": ("@hourly", SCHEDULE)}
BAD_ZONE = {"kopi.timezone": ("CET-1CEST", "environment TZ")}
BAD_SCHEDULE = {"kopi.schedule": ("0 0 2 * * *", "file /etc/kopiwatch/config.toml")}


def unit_of(*rows, **options):
    (unit,) = discover(rows, **options).units
    return unit


def effective(unit, label, member=0):
    (line,) = [line for line in unit.members[member].effective if line.label == label]
    return line.value, line.origin


@pytest.mark.parametrize(
    ("profiles", "labels", "value", "origin"),
    [
        ({}, {}, "@hourly", SCHEDULE),
        ({"default": {"kopi.schedule": "off"}}, {}, "off", "profile default"),
        ({}, {"kopi.schedule": "@daily"}, "@daily", "label"),
        ({"default": {"kopi.schedule": "off"}}, {"kopi.schedule": "!none"}, "@hourly", SCHEDULE),
    ],
)
def test_default_speaks_more_quietly_than_profiles_and_labels(profiles, labels, value, origin):
    """And is what is left when a profile's word is dropped."""
    unit = unit_of(container("web", labels=labels), profiles=profiles, defaults=HOURLY)
    assert unit.problems == ()
    assert effective(unit, "kopi.schedule") == (value, origin)
    assert unit.settings.schedule == read_schedule(value)


def test_label_on_one_member_replaces_the_default_for_all():
    """The others see who said it."""
    unit = unit_of(
        container("a", project="p", labels={"schedule": "off"}),
        container("b", project="p"),
        defaults=HOURLY,
    )
    assert unit.problems == ()
    assert unit.settings.schedule.off
    assert effective(unit, "kopi.schedule", member=1) == ("off", "label on a")


def test_without_a_default_the_table_counts():
    """Every night at two, in UTC; one run for a missed one."""
    unit = unit_of(container("web"))
    assert (unit.settings.schedule, unit.settings.timezone) == (DEFAULT, "UTC")
    assert (unit.settings.catch_up, unit.settings.priority) == (True, 100)
    assert unit.settings.max_age is None
    assert effective(unit, "kopi.schedule") == ("0 2 * * *", "default")
    assert effective(unit, "kopi.timezone") == ("UTC", "default")
    assert effective(unit, "kopi.max-age") == ("from the schedule", "default")
    assert effective(unit, "kopi.catch-up") == ("true", "default")
    assert effective(unit, "kopi.priority") == ("100", "default")


def test_labels_of_when_are_typed_settings():
    """Each on any member."""
    settings = unit_of(
        container("a", project="p", labels={"max-age": "26h", "catch-up": "22:00-06:00"}),
        container("b", project="p", labels={"timezone": "Europe/Berlin", "priority": "5"}),
    ).settings
    assert settings.max_age == timedelta(hours=26)
    assert str(settings.catch_up) == "22:00-06:00"
    assert (settings.timezone, settings.priority) == ("Europe/Berlin", 5)


def test_members_that_write_the_same_schedule_differently_agree():
    """Schedules are compared by what they mean."""
    for one, other in (("@daily", "0 0 * * *"), ("every 60m", "every 1h"), ("off", "OFF")):
        unit = unit_of(
            container("a", project="p", labels={"schedule": one}),
            container("b", project="p", labels={"schedule": other}),
        )
        assert unit.problems == ()


@pytest.mark.parametrize("defaults", [BAD_ZONE, BAD_SCHEDULE])
def test_bad_default_disables_whoever_would_use_it(defaults):
    """It says where it stands; nothing falls back to UTC, or to two o'clock, in silence."""
    unit = unit_of(container("web", volume("v")), defaults=defaults)
    (problem,) = unit.problems
    ((label, (text, origin)),) = defaults.items()
    assert (problem.label, problem.value) == (label, text)
    assert problem.reason.startswith(f"{origin}: is not ")
    assert problem.suggestion


@pytest.mark.parametrize(
    "labels", [{"timezone": "UTC"}, {"schedule": "every 6h"}, {"schedule": "off"}]
)
def test_bad_zone_of_the_environment_harms_nobody_who_does_without(labels):
    """TZ is not ours alone; one member that says enough is enough."""
    unit = unit_of(
        container("a", project="p", labels=labels), container("b", project="p"), defaults=BAD_ZONE
    )
    assert unit.problems == ()


def test_bad_defaults_are_found_without_a_container():
    """All of them, each with its place, the reason and what would be right."""
    schedule, timezone = check_defaults(BAD_ZONE | BAD_SCHEDULE)
    assert schedule.startswith("file /etc/kopiwatch/config.toml: '0 0 2 * * *' is not a schedule: ")
    assert schedule.endswith("(did you mean '0 2 * * *'?)")
    assert timezone == (
        "environment TZ: 'CET-1CEST' is not the name of a time zone (such as UTC or Europe/Berlin)"
    )
    assert check_defaults(HOURLY) == ()
    assert check_defaults({}) == ()


def test_bad_zone_is_no_problem_of_a_configuration_whose_schedule_needs_none():
    """An interval lies on its grid in every zone."""
    every = {"kopi.schedule": ("every 6h", SCHEDULE)}
    assert check_defaults(BAD_ZONE | every) == ()


NUMBERS = ("latest", "hourly", "daily", "weekly", "monthly", "annual")
NOTHING = {f"kopi.retention.{name}": ("0", "file /c") for name in NUMBERS}


def test_retention_is_put_together_number_by_number():
    """A label beats a profile, that the configuration, that Kopia's own; any member may say it."""
    unit = unit_of(
        container("a", project="p", labels={"kopi.retention.latest": "2"}),
        container("b", project="p", labels={"kopi.retention.annual": "0"}),
        profiles={"default": {"kopi.retention.latest": "5", "kopi.retention.hourly": "6"}},
        defaults={"kopi.retention.hourly": ("7", "file /c"), "kopi.retention.daily": ("8", "x")},
    )
    assert unit.problems == ()
    assert unit.settings.retention == Retention(2, 6, 8, 4, 24, 0)
    assert effective(unit, "kopi.retention.weekly") == ("4", "default")
    assert effective(unit, "kopi.retention.daily") == ("8", "x")
    assert effective(unit, "kopi.retention.latest", member=1) == ("2", "label on a")


def test_retention_that_keeps_nothing_disables_the_unit():
    """Kopia would keep everything then, and nobody would expect either."""
    labels = {f"kopi.retention.{name}": "0" for name in NUMBERS}
    (problem,) = unit_of(container("web", labels=labels)).problems
    assert (problem.container, problem.label, problem.value) == (
        "web",
        "kopi.retention.latest",
        "0",
    )
    assert "keeps nothing" in problem.reason
    (problem,) = unit_of(container("web"), defaults=NOTHING).problems
    assert problem.container == "web"
    assert unit_of(container("web", labels={"kopi.retention.daily": "1"}), defaults=NOTHING).valid
    (said,) = check_defaults(NOTHING)
    assert said == "file /c: all six numbers of the retention are 0"
    assert check_defaults(NOTHING | {"kopi.retention.daily": ("1", "file /c")}) == ()


@pytest.mark.parametrize("value", ["-1", "ten", "1.5", ""])
def test_retention_that_is_no_number_disables_the_unit(value):
    """A silent default would delete what somebody wanted kept."""
    (problem,) = unit_of(container("web", labels={"kopi.retention.daily": value})).problems
    assert problem.label == "kopi.retention.daily"


def test_members_that_want_different_numbers_disagree():
    """One unit has one rule."""
    unit = unit_of(
        container("a", project="p", labels={"kopi.retention.daily": "7"}),
        container("b", project="p", labels={"kopi.retention.daily": "9"}),
    )
    assert [problem.label for problem in unit.problems] == ["kopi.retention.daily"]
