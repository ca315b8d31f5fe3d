"""Restore points: what counts, and which one is meant."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kopiwatch.errors import RunError, UsageError
from kopiwatch.kopia.record import ACCEPTED_PIN, BAD_PIN, Entry, Snapshot, SourceIdentity, Summary
from kopiwatch.restore.point import ensure_complete, of_host, part, points, select


def snapshot(
    hour: int, path: str = "/mnt/shop", *, run: str = "", host: str = "h", **more: object
) -> Snapshot:
    given = {
        "tags": {"tag:kopiwatch-run": run or f"r{hour}"},
        "root_entry": Entry(name="shop", type="d", obj="k1", summ=Summary(size=5, files=2)),
    } | more
    return Snapshot(
        id=f"id{hour}",
        source=SourceIdentity(host, str(given.pop("user", "kopiwatch")), path),
        start_time=datetime(2026, 1, 1, hour, tzinfo=UTC),
        end_time=datetime(2026, 1, 1, hour, 1, tzinfo=UTC),
        **given,
    )


def test_points_tell_complete_from_all_others():
    """Incomplete, quarantined, unreadable and foreign manifests are shown as what they are."""
    unreadable = Entry(name="", type="d", summ=Summary(num_failed=1))
    found = points(
        [
            snapshot(1),
            snapshot(2, incomplete="checkpoint"),
            snapshot(3, pins=(BAD_PIN + "start",)),
            snapshot(4, root_entry=unreadable),
            snapshot(5, tags={}),
        ]
    )
    assert [(point.state, point.reason) for point in found] == [
        ("complete", ""),
        ("incomplete", "checkpoint"),
        ("bad", "start"),
        ("bad", "unreadable"),
        ("foreign", "not made by a run of kopiwatch"),
    ]


def test_accepted_point_is_complete_and_says_so():
    """Unless a verdict still speaks against it, or Kopia itself does."""
    pin = ACCEPTED_PIN + "source-empty"
    found = points(
        [
            snapshot(1, pins=(pin,)),
            snapshot(2, pins=(pin, BAD_PIN + "start")),
            snapshot(3, pins=(pin,), incomplete="canceled"),
            snapshot(4, pins=("somebody-elses",)),
        ]
    )
    assert [(point.state, point.accepted) for point in found] == [
        ("complete", "source-empty"),
        ("bad", ""),
        ("incomplete", ""),
        ("complete", ""),
    ]
    assert select("shop", found[:3], "latest").run == "r1"


def test_points_leave_out_what_is_no_unit():
    """Hot passes, safety snapshots, other tools and other users are no restore points."""
    paths = (
        "/mnt/.hot/shop",
        "/mnt/.hot/@i/shop",
        "/mnt/.stage/0/shop",
        "/mnt/.safety/shop",
        "/home/me",
        "/mnt/shop/volumes",
        "/mnt/@i",
    )
    assert points([snapshot(1, path) for path in paths]) == ()
    assert points([snapshot(1, user="root")]) == ()


def test_points_know_their_instance_and_host():
    """The default instance has no place of its own in the path."""
    (one, two) = points([snapshot(1), snapshot(2, "/mnt/@lab/zoo", host="g")])
    assert (one.unit, one.instance, one.host) == ("shop", "default", "h")
    assert (two.unit, two.instance, two.host) == ("zoo", "lab", "g")
    assert points([snapshot(1), snapshot(2, host="g")], host="g") == (
        points([snapshot(2, host="g")])[0],
    )


FOUND = points([snapshot(1), snapshot(3), snapshot(5, pins=(BAD_PIN + "start",))])


@pytest.mark.parametrize(
    ("at", "run"),
    [
        ("latest", "r3"),
        ("r1", "r1"),
        ("id1", "r1"),
        ("2026-01-01T02:00Z", "r1"),
        ("2026-01-01T03:00:00+00:00", "r3"),
        ("2026-01-01T05:30+01:00", "r3"),
        ("2027-01-01", "r3"),
        ("2026-01-01", "r3"),
        ("2026-01-01T01:00", "r1"),
        ("2026-01-01 03:00Z", "r3"),
        ("9999-12-31T23:59:59.9", "r3"),
    ],
)
def test_select_finds_the_point_that_is_meant(at, run):
    """The newest complete one, or the newest that is not younger than a time."""
    assert select("shop", FOUND, at).run == run


@pytest.mark.parametrize(
    ("unit", "at", "word"),
    [
        ("zoo", "latest", "no restore point of unit 'zoo'"),
        ("shop", "r5", "is bad"),
        ("shop", "yesterday", "is no time"),
        ("shop", "2025-01-01", "or before"),
        ("shop", "0001-01-01T00:00+14:00", "is no time"),
    ],
)
def test_select_refuses_what_is_not_there_or_not_fit(unit, at, word):
    """Never something else in its place."""
    with pytest.raises(UsageError, match=word):
        select(unit, FOUND, at)


def test_select_without_a_complete_point_says_what_is_wrong():
    """Which ones there are, and why they do not count."""
    bad = points([snapshot(1, pins=(BAD_PIN + "start",))])
    with pytest.raises(UsageError, match=r"r1 is bad \(start\)"):
        select("shop", bad, "latest")


TREE = {f"volumes/{name}": Entry(name=name) for name in ("shop_db", "shop_files", "files", "a_x")}


@pytest.mark.parametrize(
    ("name", "path"),
    [("shop_db", "volumes/shop_db"), ("db", "volumes/shop_db"), ("files", "volumes/files")],
)
def test_part_takes_dockers_name_and_the_compose_files(name, path):
    """An exact name goes before a short one."""
    assert part(TREE, name) == path


@pytest.mark.parametrize("name", ["nope", "", "shop"])
def test_part_refuses_an_unknown_volume_and_lists_them(name):
    """The hint names what there is."""
    with pytest.raises(UsageError) as caught:
        part(TREE, name)
    assert "shop_db" in caught.value.hint


def test_point_that_lacks_what_its_recipe_expects_is_refused():
    """Its verdict does not help: the data is not there."""
    with pytest.raises(RunError, match="volumes/gone"):
        ensure_complete(FOUND[0], ("volumes/gone", "volumes/files"), TREE)
    ensure_complete(FOUND[0], ("volumes/files",), TREE)


def test_run_without_a_verdict_is_no_restore_point():
    """Alive or interrupted: its manifest is there, but nobody has judged it."""
    found = points([snapshot(1), snapshot(2)], unfinished={"r2"})
    assert [point.state for point in found] == ["complete", "unfinished"]
    assert select("shop", found, "latest").run == "r1"


def test_points_of_another_host_are_named_when_there_are_none_here():
    """Never 'no points' while there are some."""
    found = points([snapshot(1, host="harbour"), snapshot(2, "/mnt/@lab/zoo", host="vm")])
    assert [p.unit for p in of_host(found, "harbour", "default")] == ["shop"]
    assert [p.unit for p in of_host(found, "", "lab")] == ["zoo"]
    with pytest.raises(UsageError) as caught:
        of_host(found, "vm", "default")
    assert "host harbour" in caught.value.hint
    assert of_host((), "vm", "default") == ()
