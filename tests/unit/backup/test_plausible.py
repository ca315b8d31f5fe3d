"""Plausibility: when a source is refused beside what the last good restore point holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.units import build

from kopiwatch.backup.plausible import (
    FLOOR_BYTES,
    IMPLAUSIBLE,
    Terms,
    compare,
    hint,
    renamed,
    sentence,
    terms_of,
)
from kopiwatch.backup.result import SourceResult
from kopiwatch.units.group import discover

BIG = 10 * FLOOR_BYTES
DATA = "volumes/shop_data"


def source(size: int = BIG, files: int = 3, path: str = DATA, **more) -> SourceResult:
    return SourceResult(path, size=size, files=files, **more)


def reasons(now, before, terms=None, names=()) -> dict[str, str]:
    found = compare(now, {each.path: each for each in before}, terms or Terms(), names)
    return {each.path: each.reason for each in found.sources}


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (source(), source(), ""),
        (source(), source(BIG // 5), ""),
        (source(), source(BIG // 5 - 1), "collapsed"),
        (source(), source(0, 3), "collapsed"),
        (source(), source(0, 0), "empty"),
        (source(5, 1), source(0, 0), "empty"),
        (source(FLOOR_BYTES), source(1), "collapsed"),
        (source(FLOOR_BYTES - 1), source(1), ""),
        (source(0, 0), source(0, 0), ""),
        (source(BIG), source(50 * BIG, 1), ""),
        (source(), source(0, 0, reason="missing"), "missing"),
        (source(), source(1, 1, reason="unreadable", failed=1), "unreadable"),
    ],
)
def test_source_is_refused_for_what_it_lost(before, now, reason):
    """Empty, collapsed, or neither; a fault that it has already stays its fault."""
    assert reasons([now], [before]) == {DATA: reason}


@pytest.mark.parametrize(
    ("percent", "size", "reason"),
    [
        (50, BIG // 2 - 1, "collapsed"),
        (50, BIG // 2, ""),
        (100, BIG - 1, "collapsed"),
        (1, BIG // 50, ""),
        (None, 1, ""),
    ],
)
def test_limit_is_the_labels(percent, size, reason):
    """kopi.collapse says from where on; off says never."""
    assert reasons([source(size)], [source()], Terms(collapse=percent)) == {DATA: reason}


def test_emptied_source_is_refused_whatever_the_limit():
    """off is about sizes."""
    assert reasons([source(0, 0)], [source()], Terms(collapse=None)) == {DATA: "empty"}


def test_source_that_is_new_is_not_refused():
    """There is nothing to compare it with."""
    assert reasons([source(0, 0)], []) == {DATA: ""}


def test_source_that_nobody_mounts_any_more_has_vanished():
    """It stands among the sources, with the figures of the point before."""
    (found,) = compare([], {DATA: source()}, Terms()).sources
    assert (found.reason, found.size, found.size_before, found.files_before) == (
        *("vanished", 0),
        *(BIG, 3),
    )


def test_source_that_labels_leave_out_is_only_noted():
    """Left out on purpose, and said once with the reason."""
    terms = Terms(left_out={DATA: "kopi.exclude names it"})
    found = compare([], {DATA: source()}, terms)
    assert found.sources == ()
    (note,) = found.notes
    assert DATA in note
    assert "kopi.exclude" in note
    assert "10.0 MiB" in note


def test_source_that_held_nothing_is_not_missed():
    """Nothing can be lost with it."""
    found = compare([], {DATA: source(0, 0)}, Terms())
    assert (found.sources, len(found.notes)) == ((), 1)


def test_recipe_is_not_judged():
    """It is ours, and small."""
    recipe = source(1, 1, "recipe")
    assert reasons([recipe], [source(BIG, 9, "recipe")]) == {"recipe": ""}
    assert reasons([], [recipe]) == {}


@pytest.mark.parametrize(
    ("gone", "new", "before", "now", "same"),
    [
        ({"volumes/old_data"}, {"volumes/new_data"}, {"old"}, {"new"}, True),
        ({"volumes/old-web-1:%2Fv"}, {"volumes/new-web-1:%2Fv"}, {"old"}, {"new"}, True),
        ({"volumes/old:%2Fv"}, {"volumes/new:%2Fv"}, {"old"}, {"new"}, True),
        ({"volumes/old_data"}, {"volumes/new_other"}, {"old"}, {"new"}, False),
        ({"volumes/third_data"}, {"volumes/new_data"}, {"old"}, {"new"}, False),
        ({"volumes/olddata"}, {"volumes/newdata"}, {"old"}, {"new"}, False),
        ({"binds/old_data"}, {"binds/new_data"}, {"old"}, {"new"}, False),
        ({"volumes/a_d", "volumes/b_d"}, {"volumes/new_d"}, {"a", "b"}, {"new"}, False),
        ({"volumes/old_d"}, {"volumes/a_d", "volumes/b_d"}, {"old"}, {"a", "b"}, False),
    ],
)
def test_renamed_volume_is_the_same_only_if_a_unit_name_stands_in_front(
    gone, new, before, now, same
):
    """The rest of the name must be equal, and nothing else may claim it."""
    found = renamed(gone, new, before, now)
    assert bool(found) == same
    assert all(path in new and old in gone for path, old in found.items())


def test_renamed_volume_is_compared_with_what_it_was():
    """A project that got a new name and new, empty volumes has lost its data."""
    terms = Terms(names=("new",))
    before = [source(path="volumes/old_data")]
    assert reasons([source(path="volumes/new_data")], before, terms, ("old",)) == {
        "volumes/new_data": ""
    }
    assert reasons([source(0, 0, "volumes/new_data")], before, terms, ("old",)) == {
        "volumes/new_data": "empty"
    }


def test_terms_are_what_the_labels_say():
    """What is left out by each label, with its place in the tree; limit and names."""
    mounts = (
        build.volume("shop_cache", "/cache"),
        build.volume("shop_data", "/data"),
        build.bind("/srv/www", "/www"),
        build.anonymous("a", "/tmp/x"),
    )
    labels = {"exclude": "cache,/tmp/x", "collapse": "35%"}
    row = build.container("shop-web-1", *mounts, project="shop", service="web", labels=labels)
    (unit,) = discover([row]).units
    assert unit.valid, unit.problems
    terms = terms_of(unit)
    assert terms.collapse == 35
    assert terms.names == ("shop", "shop-web-1")
    assert set(terms.left_out) == {
        *("volumes/shop_cache", "binds/srv~www"),
        *("volumes/web:%2Ftmp%2Fx", "volumes/shop-web-1:%2Ftmp%2Fx"),
    }
    assert terms.left_out["volumes/shop_cache"] == "kopi.exclude names it"


def test_sentence_has_the_figures_before_and_now():
    """Nobody has to look them up."""
    found = compare([source(512, 1)], {DATA: source()}, Terms()).sources[0]
    assert sentence(found) == f"{DATA} has collapsed: 3 files, 10.0 MiB → 1 file, 512 B"
    found = compare([source(0, 0)], {DATA: source()}, Terms()).sources[0]
    assert sentence(found) == f"{DATA} is empty: 3 files, 10.0 MiB → 0 files, 0 B"


def test_hint_names_the_one_source_that_is_refused():
    """With several it is the whole unit."""
    one = source(reason="empty")
    assert hint("shop", [one, source(path="x")]).endswith(f"kopiwatch accept shop {DATA}")
    assert hint("shop", [one, source(path="x", reason="vanished")]).endswith("accept shop")


PATHS = st.sampled_from([f"volumes/{name}" for name in ("a_x", "a_y", "b_x", "b_y", "c")])
TREES = st.dictionaries(
    PATHS, st.tuples(st.integers(0, 4 * FLOOR_BYTES), st.integers(0, 3)), max_size=5
).map(lambda tree: {path: source(size, files, path) for path, (size, files) in tree.items()})


@given(now=TREES, before=TREES, collapse=st.none() | st.integers(1, 100))
def test_no_loss_goes_unnoticed_and_no_gain_is_refused(now, before, collapse):
    """Whatever the trees: each old file is accounted for, and growth is never a fault."""
    terms = Terms(collapse=collapse, names=("b",))
    found = compare(now.values(), before, terms, ("a",))
    told = {each.path: each for each in found.sources}
    assert set(now) <= set(told), "every source of the run has a result"
    for path, old in before.items():
        grown = path in now and now[path].size >= old.size and now[path].files >= old.files
        if grown:
            assert not told[path].reason
        if path in now and old.files and not now[path].files:
            assert told[path].reason == "empty"
        if path not in now and path not in told:
            heir = path.replace("a_", "b_")
            assert not old.files or heir in now
    assert {each.reason for each in told.values()} <= {"", *IMPLAUSIBLE}


@given(tree=TREES, collapse=st.none() | st.integers(1, 100))
def test_accepted_state_is_plausible_ever_after(tree, collapse):
    """What equals the last good point is never refused: an acceptance ends the matter."""
    found = compare(tree.values(), tree, Terms(collapse=collapse), ("a", "b"))
    assert [each.reason for each in found.sources] == [""] * len(tree)
    assert found.notes == ()
