"""Which containers are a unit, and what is wrong with it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.units.build import anonymous, bind, container, volume
from unit.units.test_parse import LABEL_SETS, PROFILES

from kopiwatch.units.group import discover, tree_path
from kopiwatch.units.refusal import RefusedPaths


def units(*rows, **options):
    return {unit.name: unit for unit in discover(rows, **options).units}


def names(unit):
    return [member.container.name for member in unit.members]


def test_unit_is_label_else_project_else_container():
    """The three ways to belong, and where the name came from."""
    found = units(
        container("shop-web-1", project="shop", service="web"),
        container("shop-db-1", project="shop", service="db"),
        container("blog", labels={"unit": "press"}),
        container("lone"),
    )
    assert {name: (names(unit), unit.origin) for name, unit in found.items()} == {
        "lone": (["lone"], "container"),
        "press": (["blog"], "label"),
        "shop": (["shop-db-1", "shop-web-1"], "project"),
    }
    assert all(unit.valid for unit in found.values())


def test_own_container_oneoffs_workers_and_others_are_no_members():
    """We never back ourselves up, nor anything short-lived, nor what another instance cares for."""
    own = container("kopiwatch")
    found = discover(
        [
            own,
            container("run", labels={"com.docker.compose.oneoff": "True"}),
            container("worker", labels={"kopi.worker": "1"}),
            container("theirs", labels={"instance": "two"}),
            container("plain", enable=None),
        ],
        self_id=own.id,
    )
    assert found.units == ()
    assert [ignored.container for ignored in found.ignored] == ["kopiwatch"]


def test_instance_takes_its_own_members_only():
    """Two instances share a host without sharing a member."""
    rows = [container("a", labels={"instance": "two"}), container("b")]
    assert list(units(*rows, instance="two")) == ["a"]
    assert list(units(*rows)) == ["b"]


def test_unreadable_instance_is_visible_everywhere():
    """A container that nobody can claim is shown by all, not by none."""
    row = container("a", labels={"instance": "Two!"})
    assert not units(row)["a"].valid
    assert not units(row, instance="two")["a"].valid


def test_labels_without_enable_are_reported():
    """Somebody who forgot the one label that counts finds out."""
    (ignored,) = discover([container("a", enable=None, labels={"unit": "x"})]).ignored
    assert ignored.labels == ("kopi.unit",)
    assert "kopi.enable=true" in ignored.reason


def test_bad_label_disables_its_own_unit_only():
    """The neighbour of a broken unit goes on."""
    found = units(container("a", labels={"mode": "stopp"}), container("b"))
    assert (found["a"].valid, found["b"].valid) == (False, True)
    assert found["a"].problems[0].container == "a"


def test_same_name_from_project_and_container_is_a_problem():
    """A coincidence is not a merge."""
    found = units(container("shop"), container("x", project="shop"))
    assert not found["shop"].valid
    assert "coincidence" in found["shop"].problems[0].reason


def test_same_name_by_label_is_a_merge():
    """A label that names a project joins it."""
    found = units(container("extra", labels={"unit": "shop"}), container("x", project="shop"))
    assert found["shop"].valid
    assert names(found["shop"]) == ["extra", "x"]


def test_upper_case_name_becomes_lower_case_if_nobody_else_has_it():
    """Docker allows upper case, units do not."""
    assert units(container("Web"))["web"].valid
    assert not units(container("Web"), container("web"))["web"].valid
    assert not units(container("Web"), container("x", labels={"unit": "web"}))["web"].valid


def test_name_that_cannot_be_a_unit_asks_for_a_label():
    """The problem says what to set; a valid unit of a similar name is not harmed."""
    found = units(container("a", project="_shop"), container("shop"))
    assert found["shop"].valid
    (problem,) = found["?shop"].problems
    assert "set kopi.unit, such as 'shop'" in problem.suggestion


def test_bad_unit_label_harms_no_other_unit():
    """A container whose unit cannot be told does not drag its project down."""
    found = units(
        container("a", project="shop", labels={"unit": "My Shop"}), container("b", project="shop")
    )
    assert found["shop"].valid
    assert not found["?my-shop"].valid


def test_unit_wide_labels_may_stand_on_any_member():
    """One member speaks for the unit, and the others see who did."""
    found = units(
        container("a", project="p", labels={"window-timeout": "2h"}), container("b", project="p")
    )["p"]
    assert found.settings.window_timeout.total_seconds() == 7200
    lines = {line.label: line for line in found.members[1].effective}
    assert lines["kopi.window-timeout"].value == "2h"
    assert lines["kopi.window-timeout"].origin == "label on a"


def test_members_that_disagree_are_a_problem_that_names_both():
    """Nobody guesses whose word counts."""
    unit = units(
        container("a", project="p", labels={"window-timeout": "2h"}),
        container("b", project="p", labels={"window-timeout": "1h"}),
    )["p"]
    (problem,) = unit.problems
    assert (problem.container, problem.label, problem.value) == ("a", "kopi.window-timeout", "2h")
    assert "b says '1h'" in problem.reason


def test_members_that_say_the_same_in_other_words_agree():
    """Values are compared, not spellings."""
    assert units(
        container("a", project="p", labels={"window-timeout": "60m"}),
        container("b", project="p", labels={"window-timeout": "1h"}),
    )["p"].valid


def test_label_on_one_member_wins_over_profiles_of_others():
    """A profile that reaches all members does not contradict a label on one."""
    unit = units(
        container("a", project="p", labels={"scope": "minimal"}),
        container("b", project="p"),
        profiles={"default": {"kopi.scope": "standard"}},
    )["p"]
    assert unit.valid
    assert unit.settings.scope == "minimal"


def test_unit_without_sources_says_so():
    """Only the recipe is kept, and that is no secret."""
    unit = units(container("a"))["a"]
    assert unit.valid
    assert "only the recipe" in unit.warnings[0]


def test_order_problems_disable_the_unit():
    """A cycle or an unknown name is visible before any run."""
    unit = units(container("a", volume("v"), labels={"after": "nobody"}))["a"]
    assert [problem.label for problem in unit.problems] == ["kopi.after"]


def test_paused_container_does_not_disable_the_unit():
    """What a container does just now is not what its labels say."""
    assert units(container("a", volume("v"), state="paused"))["a"].valid


def test_refused_paths_reach_the_coverage():
    """Our own repository is no source."""
    row = container("a", bind("/repo", "/r"), labels={"binds": "true"})
    unit = units(row, refused=RefusedPaths(("/repo",)))["a"]
    assert unit.coverage[0].state == "not-supported"


@pytest.mark.parametrize(
    ("instance", "path"), [("default", "/mnt/shop"), ("two", "/mnt/@two/shop")]
)
def test_tree_path_names_instance_and_unit(instance, path):
    """The default instance does not show."""
    assert tree_path("shop", instance) == path


ROWS = st.lists(
    st.builds(
        lambda name, labels, project, mount, state: container(
            name, mount, enable=None, project=project, labels=labels, state=state
        ),
        st.sampled_from(["web", "Web", "db", "shop", "_x"]),
        LABEL_SETS | st.just({"kopi.enable": "true"}),
        st.sampled_from(["", "shop", "Shop", "web", "--"]),
        st.sampled_from([volume("v"), volume("shop_db"), anonymous("a"), bind("/srv")]),
        st.sampled_from(["running", "exited", "paused"]),
    ),
    max_size=5,
    unique_by=lambda row: row.name,
)


@given(ROWS, PROFILES, st.randoms())
def test_discovery_never_raises_and_ignores_the_order(rows, profiles, random):
    """The same containers make the same units, in whatever order Docker lists them."""
    found = discover(rows, profiles=profiles)
    turned = list(rows)
    random.shuffle(turned)
    assert discover(turned, profiles=profiles) == found
    assert [unit.name for unit in found.units] == sorted({unit.name for unit in found.units})
    listed = [member.container.id for unit in found.units for member in unit.members]
    assert len(listed) == len(set(listed))
    msgspec.json.encode([unit.problems for unit in found.units])
