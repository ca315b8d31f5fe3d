"""The labels of one container: settings, origins, problems."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.units.build import container

from kopiwatch.units.container import Container
from kopiwatch.units.label import NAMES, find
from kopiwatch.units.parse import DROP, check_profiles, parse
from kopiwatch.units.value import Bad, read

VALUES = st.sampled_from(
    [
        "true",
        "false",
        "ture",
        "stop",
        "pause",
        "stopp",
        "gate",
        "auto",
        "hot",
        "5m",
        "90s",
        "5",
        "-3s",
        "1.5h",
        "999999999999d",
        "a,b",
        "a,,b",
        "",
        " ",
        "/srv/*",
        "db",
        "DB",
        "!none",
        "!default",
        "big",
        "off",
        "0 2 * * *",
        "minimal",
        "full",
        "standard",
        "[",
        '["a"]',
        "\x00",
        "9" * 500,
    ]
) | st.text(max_size=12)
NEAR_NAMES = (
    st.sampled_from(
        [
            *NAMES,
            "kopi.enabled",
            "kopi.Enable",
            "kopi_enable",
            "kopi-enable",
            "kopia.enable",
            "kopi.",
            "kopi",
            "kopi.x",
            "kopi.ignore.db",
            "kopi.worker",
            "kopi.state",
            "kopi.dump.password",
            "com.docker.compose.project",
        ]
    )
    | st.text(max_size=8).map(lambda text: f"kopi.{text}")
    | st.text(max_size=8)
)
LABEL_SETS = st.dictionaries(NEAR_NAMES, VALUES, max_size=8)
PROFILES = st.dictionaries(st.sampled_from(["default", "db", "big"]), LABEL_SETS, max_size=3)


def read_labels(profiles=None, **labels):
    """What a member with these labels says; underscores stand for hyphens."""
    given_ = {key.replace("_", "-"): value for key, value in labels.items()}
    return parse(container("web", labels=given_), profiles)


def test_settings_of_every_kind_are_typed():
    """Supported labels arrive as values, not as text."""
    found = read_labels(
        mode="stop",
        stop_timeout="90s",
        start_timeout="10m",
        window_timeout="2h",
        after="db, cache",
        strategy="gate",
        include="db*",
        exclude="/tmp",
        binds="true",
        scope="minimal",
        unit="shop",
        instance="two",
    )
    assert found.problems == ()
    assert found.settings.stop_timeout == timedelta(seconds=90)
    assert found.settings.start_timeout == timedelta(minutes=10)
    assert found.settings.after == ("db", "cache")
    assert found.settings.include == ("db*",)
    assert found.settings.exclude == ("/tmp",)
    assert found.settings.binds == ("*",)
    assert {n: g.value for n, g in found.unit_wide.items()} == {
        "kopi.window-timeout": timedelta(hours=2),
        "kopi.strategy": "gate",
        "kopi.scope": "minimal",
    }
    assert (found.unit, found.instance) == ("shop", "two")


def test_all_problems_are_found_at_once():
    """One bad label does not hide another, and each says where, what and why."""
    found = read_labels(mode="stopp", start_timeout="5", colour="red")
    assert [(p.container, p.label, p.value) for p in found.problems] == [
        ("web", "kopi.colour", "red"),
        ("web", "kopi.mode", "stopp"),
        ("web", "kopi.start-timeout", "5"),
    ]
    assert all(problem.reason for problem in found.problems)


def test_misspelt_name_suggests_the_right_one():
    """The nearest label stands in the suggestion."""
    (problem,) = read_labels(stragety="gate").problems
    assert problem.suggestion == "did you mean 'kopi.strategy'?"


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("kopi.strategy", "clone"),
        ("kopi.ignore", "*.tmp"),
        ("kopi.ignore.db", "*.tmp"),
        ("kopi.dump", "postgres"),
        ("kopi.hook.pre.command", "sync"),
        ("kopi.drill", "@weekly"),
        ("kopi.notify", "failure"),
    ],
)
def test_value_that_is_not_built_yet_is_a_problem(label, value):
    """What this version cannot do disables the unit; it is never ignored."""
    (problem,) = parse(container("web", labels={label: value})).problems
    assert "not supported by this version" in problem.reason


@pytest.mark.parametrize(
    ("label", "value"), [("kopi.schedule", "off"), ("kopi.drill", "off"), ("kopi.notify", "never")]
)
def test_value_that_asks_for_nothing_is_fine(label, value):
    """Switching off what is not built yet is no problem."""
    assert parse(container("web", labels={label: value})).problems == ()


@pytest.mark.parametrize("label", ["kopi.drill", "kopi.dump.timeout"])
def test_malformed_value_of_an_unsupported_label_is_a_problem(label):
    """An unsupported label is read all the same."""
    (problem,) = parse(container("web", labels={label: "nonsense"})).problems
    assert problem.value == "nonsense"


@pytest.mark.parametrize("value", ["ture", "", "maybe"])
def test_enable_without_a_boolean_is_a_member_with_a_problem(value):
    """Somebody who tried to opt in hears about it."""
    found = parse(container("web", enable=value))
    assert found.standing == "member"
    assert [p.label for p in found.problems] == ["kopi.enable"]


@pytest.mark.parametrize("name", ["kopi.enabled", "kopi.Enable", "kopi_enable", "kopia.enable"])
def test_misspelt_enable_is_a_member_with_a_problem(name):
    """A near miss of the one label that matters is not silence."""
    found = parse(container("web", enable=None, labels={name: "true"} | {"com.x": "y"}))
    assert found.standing == "member"
    assert [p.suggestion for p in found.problems] == ["did you mean 'kopi.enable'?"]


def test_standing_follows_enable():
    """Opting out is quiet, other labels without opting in are stray, and nothing is absent."""
    assert parse(container("web", enable="false", labels={"mode": "?"})).standing == "off"
    assert parse(container("web", enable=None, labels={"mode": "stop"})).standing == "stray"
    assert parse(container("web", enable=None, labels={"kopi.enabled": "no"})).standing == "stray"
    assert parse(container("web", enable=None)).standing == "absent"


@pytest.mark.parametrize("name", ["kopi.worker", "kopi.state"])
def test_reserved_labels_are_a_problem(name):
    """What marks our own containers cannot be set by others."""
    (problem,) = parse(container("web", labels={name: "x"})).problems
    assert "reserved" in problem.reason


def test_password_in_a_label_is_refused_and_not_repeated():
    """A secret stands in no problem, and the suggestion leads to the right place."""
    (problem,) = parse(container("web", labels={"kopi.dump.password": "hunter2"})).problems
    assert "hunter2" not in str(problem)
    assert "kopi.dump.password_env" in problem.suggestion


def test_labels_win_over_profiles_and_later_profiles_over_earlier():
    """Default profile, named profiles in order, labels: each wins over what is before it."""
    profiles = {
        "default": {"kopi.start-timeout": "1m", "kopi.stop-timeout": "1m", "kopi.exclude": "a"},
        "one": {"kopi.start-timeout": "2m", "kopi.stop-timeout": "2m"},
        "two": {"kopi.start-timeout": "3m"},
    }
    found = read_labels(profiles, profile="one,two", exclude="b")
    assert found.problems == ()
    assert found.settings.start_timeout == timedelta(minutes=3)
    assert found.settings.stop_timeout == timedelta(minutes=2)
    assert found.settings.exclude == ("b",)
    origins = {line.label: (line.value, line.origin) for line in found.effective}
    assert origins["kopi.start-timeout"] == ("3m", "profile two")
    assert origins["kopi.stop-timeout"] == ("2m", "profile one")
    assert origins["kopi.exclude"] == ("b", "label")
    assert origins["kopi.mode"] == ("stop", "default")


@pytest.mark.parametrize("text", ["!default", "!none"])
def test_inherited_profile_can_be_dropped(text):
    """An exclamation mark takes the default profile away again."""
    found = read_labels({"default": {"kopi.exclude": "a"}}, profile=text)
    assert (found.settings.exclude, found.problems) == ((), ())


def test_single_setting_of_a_profile_can_be_dropped():
    """The value !none returns to the default."""
    found = read_labels({"default": {"kopi.exclude": "a"}}, exclude="!none")
    assert (found.settings.exclude, found.problems) == ((), ())


def test_unknown_profile_names_the_nearest():
    """A profile that does not exist is a problem, not nothing."""
    (problem,) = read_labels({"database": {}}, profile="databse").problems
    assert problem.label == "kopi.profile"
    assert "'database'" in problem.suggestion


def test_bad_profile_is_a_problem_of_who_uses_it():
    """What a profile says wrongly is told on the container, with the profile's name."""
    profiles = {
        "db": {"kopi.mode": "stopp", "kopi.x": "1", "kopi.enable": "true"},
        "other": {"kopi.y": ""},
    }
    found = read_labels(profiles, profile="db")
    assert [p.label for p in found.problems] == ["kopi.enable", "kopi.mode", "kopi.x"]
    assert all(p.reason.startswith("profile db: ") for p in found.problems)


def test_profiles_are_checked_without_a_container():
    """A mistake in a profile that nobody uses yet is found, too."""
    problems = check_profiles({"db": {"kopi.modus": "stop"}})
    assert [str(p) for p in problems] == [
        "profile db: kopi.modus='stop': is not a label of kopiwatch (did you mean 'kopi.mode'?)"
    ]


def test_unsupported_profile_value_that_a_label_replaces_is_no_problem():
    """Only what counts in the end must be supported."""
    assert read_labels({"default": {"kopi.drill": "@daily"}}, drill="off").problems == ()
    assert read_labels({"default": {"kopi.drill": "@daily"}}).problems != ()


@given(LABEL_SETS, PROFILES)
def test_no_labels_make_the_parser_raise(labels, profiles):
    """Whatever stands in labels and profiles, there is an answer, and always the same."""
    row = Container("1", "web", labels={"kopi.enable": "true"} | labels)
    found = parse(row, profiles)
    turned = Container("1", "web", labels=dict(reversed(list(row.labels.items()))))
    turned_profiles = {k: dict(reversed(list(v.items()))) for k, v in reversed(profiles.items())}
    again = parse(turned, turned_profiles)
    assert (found.settings, found.problems, found.unit_wide, found.effective) == (
        again.settings, again.problems, again.unit_wide, again.effective,
    )  # fmt: skip
    check_profiles(profiles)


@given(LABEL_SETS)
def test_no_given_value_is_replaced_by_a_default(labels):
    """Each given label is in the settings as it was read, or there is a problem that names it."""
    found = parse(Container("1", "web", labels={**labels, "kopi.enable": "true"}))
    complained = {problem.label for problem in found.problems}
    for name, text in found.container.labels.items():
        if not name.startswith("kopi.") or name in complained or text.strip() == DROP:
            continue
        row = find(name)
        assert row is not None
        value = read(row.reader, text)
        assert not isinstance(value, Bad)
        assert row.supports(value)
        if row.field:
            held = (
                getattr(found.settings, row.field)
                if row.level == "member"
                else found.unit_wide[name].value
            )
            assert held == value
