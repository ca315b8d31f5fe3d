"""Sources, and the fate of every mount."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.units.build import anonymous, bind, container, volume

from kopiwatch.units.container import Mount
from kopiwatch.units.coverage import Covered, RefusedPaths, cover
from kopiwatch.units.place import anonymous_place, bind_place, clean, volume_place
from kopiwatch.units.setting import MemberSettings
from kopiwatch.units.unit import Member


def member(name: str, *mounts: Mount, project: str = "", service: str = "", **settings: Any):
    row = container(name, *mounts, project=project, service=service)
    return Member(row, MemberSettings(**settings))


def states(covered: Covered) -> dict[str, str]:
    return {line.destination: line.state for line in covered.coverage}


def reason(covered: Covered, destination: str) -> str:
    (line,) = [line for line in covered.coverage if line.destination == destination]
    return line.reason


def test_volumes_are_sources_and_binds_need_opt_in():
    """Without labels, every volume is protected and no bind mount is."""
    found = cover([member("db", volume("db"), anonymous("a", "/tmp/a"), bind("/srv", "/srv"))])
    assert [source.path for source in found.sources] == ["volumes/db", "volumes/db:%2Ftmp%2Fa"]
    assert states(found) == {"/data": "protected", "/tmp/a": "protected", "/srv": "opt-in"}
    assert "kopi.binds" in reason(found, "/srv")


@pytest.mark.parametrize("kind", ["tmpfs", "image", "npipe", "cluster", "other"])
def test_other_kinds_of_mounts_are_not_supported_and_say_why(kind):
    """Nothing is left out without a word."""
    found = cover([member("db", Mount(kind, "/x"))])
    assert states(found) == {"/x": "not-supported"}
    assert reason(found, "/x")
    assert found.sources == ()


@pytest.mark.parametrize(
    "pattern", ["shop_db", "db", "/var/lib/db", "/var/lib/db/", "*db", "/var/*"]
)
def test_exclude_matches_volume_short_name_and_destination(pattern):
    """A volume may be called by each of its names, with globs."""
    row = member(
        "web",
        volume("shop_db", "/var/lib/db"),
        volume("shop_x"),
        project="shop",
        exclude=(pattern,),
    )
    found = cover([row])
    assert states(found) == {"/var/lib/db": "left-out", "/data": "protected"}
    assert (found.problems, found.warnings) == ((), ())


def test_include_leaves_other_volumes_out():
    """Naming one volume means only that one."""
    found = cover([member("web", volume("a", "/a"), volume("b", "/b"), include=("a",))])
    assert states(found) == {"/a": "protected", "/b": "left-out"}


def test_include_without_a_match_is_a_problem_with_the_nearest_name():
    """What was asked for and cannot be done disables the unit."""
    (problem,) = cover([member("web", volume("uploads"), include=("upload",))]).problems
    assert (problem.label, problem.value) == ("kopi.include", "upload")
    assert problem.suggestion == "did you mean 'uploads'?"


def test_include_of_a_bind_mount_points_to_binds():
    """The suggestion names the label that can do it."""
    (problem,) = cover([member("web", bind("/srv", "/www"), include=("/www",))]).problems
    assert "kopi.binds" in problem.suggestion


def test_exclude_without_a_match_is_a_warning():
    """Leaving out what is not there does no harm."""
    found = cover([member("web", volume("uploads"), exclude=("upload",))])
    assert found.problems == ()
    assert "did you mean 'uploads'?" in found.warnings[0]


def test_volume_that_one_member_wants_is_protected_for_all():
    """Members that disagree about a shared volume get it protected, and the other is told."""
    found = cover(
        [member("a", volume("v"), exclude=("v",)), member("b", volume("v", writable=False))]
    )
    (source,) = found.sources
    assert (source.users, source.writers) == (("a", "b"), ("a",))
    assert {line.state for line in found.coverage} == {"protected"}
    assert "but b protects it" in found.coverage[0].reason


def test_binds_by_destination_are_sources():
    """An opted-in folder lies under a name made of its path."""
    found = cover([member("web", bind("/srv/www/", "/www"), binds=("/www",))])
    (source,) = found.sources
    assert (source.path, source.host_path, source.kind) == ("binds/srv~www", "/srv/www", "bind")
    assert source.destinations == ("/www",)


REFUSED = RefusedPaths(("/srv/repository", "/var/lib/kopiwatch"))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/..",
        "/srv/..",
        "/dev/sda",
        "/dev",
        "/proc/1",
        "/sys",
        "/run/x",
        "/var/run/docker.sock",
        "/home/me/docker.sock",
        "/srv",
        "/srv/repository",
        "/srv/repository/kopia",
        "/srv/x/../repository",
        "/var/lib",
        "/var/lib/kopiwatch/locks",
        "/var/lib/docker/volumes",
        "C:\\data",
        "",
    ],
)
def test_refused_bind_swept_up_is_not_supported_and_by_name_a_problem(path):
    """Asking for everything skips what is refused; asking for it by name cannot be granted."""
    swept = cover([member("web", bind(path, "/x"), binds=("*",))], REFUSED)
    assert (states(swept), swept.problems) == ({"/x": "not-supported"}, ())
    assert reason(swept, "/x")
    named = cover([member("web", bind(path, "/x"), binds=("/x",))], REFUSED)
    assert [problem.label for problem in named.problems] == ["kopi.binds"]
    assert named.sources == ()


@pytest.mark.parametrize("path", ["/srv2", "/srv/repository2", "/device", "/home/me/data", "/runs"])
def test_bind_beside_a_refused_path_is_fine(path):
    """A path that merely begins alike is not refused."""
    found = cover([member("web", bind(path, "/x"), binds=("*",))], REFUSED)
    assert states(found) == {"/x": "protected"}


def test_volume_that_holds_the_repository_is_not_supported():
    """The backups are never put into themselves, not by a volume either."""
    own = RefusedPaths(("/var/lib/docker/volumes/repo/_data",))
    found = cover([member("ui", volume("repo"))], own)
    assert states(found) == {"/data": "not-supported"}
    assert [
        p.label for p in cover([member("ui", volume("repo"), include=("repo",))], own).problems
    ] == ["kopi.include"]


def test_file_of_the_host_is_protected_only_by_its_exact_name():
    """The host's clock is swept up by nobody."""
    mount = bind("/etc/localtime", "/etc/localtime")
    assert states(cover([member("a", mount, binds=("*",))])) == {"/etc/localtime": "opt-in"}
    assert states(cover([member("a", mount, binds=("/etc/localtime",))])) == {
        "/etc/localtime": "protected"
    }


def test_binds_without_a_match_are_a_problem_and_true_is_not():
    """A named destination must exist; "all there are" may be none."""
    assert cover([member("web", binds=("*",))]).problems == ()
    (problem,) = cover([member("web", bind("/srv/a", "/a"), binds=("/srv/a",))]).problems
    assert "did you mean '/a'?" in problem.suggestion


def test_member_that_mounts_a_parent_of_a_source_is_a_writer():
    """A folder above or below a protected one can change it."""
    found = cover(
        [
            member("a", bind("/srv/www", "/w", writable=False), binds=("/w",)),
            member("b", bind("/srv", "/s")),
            member("c", bind("/srv/www/x", "/x")),
            member("d", bind("/srv/wwwx", "/x")),
        ]
    )
    assert found.sources[0].writers == ("b", "c")


def test_anonymous_volumes_go_by_service_and_destination():
    """The identity outlives the volume's own name."""
    one = cover([member("shop-web-1", anonymous("a"), project="shop", service="web")])
    two = cover([member("shop-web-1", anonymous("b"), project="shop", service="web")])
    assert one.sources[0].path == two.sources[0].path == "volumes/web:%2Fdata"
    assert one.sources[0].anonymous


def test_anonymous_volumes_of_replicas_go_by_container():
    """Two replicas keep their volumes apart."""
    found = cover(
        [
            member(f"shop-web-{n}", anonymous(d), project="shop", service="web")
            for n, d in ((1, "a"), (2, "b"))
        ]
    )
    assert [s.path for s in found.sources] == [
        "volumes/shop-web-1:%2Fdata",
        "volumes/shop-web-2:%2Fdata",
    ]


def test_two_sources_of_one_place_are_a_problem():
    """What cannot be told apart in the tree is not backed up as if it could."""
    found = cover(
        [
            member("web-1", anonymous("a"), project="p", service="web"),
            member("web-2", anonymous("b"), project="p", service="web"),
            member("x", anonymous("c"), project="p", service="web-1"),
        ]
    )
    assert "would both be kept" in found.problems[0].reason


TEXT = (
    st.text(max_size=8) | st.text("/~%.:a", max_size=10) | st.text("ab", min_size=150, max_size=300)
)


@given(TEXT, TEXT)
def test_places_are_injective_components(one, other):
    """Different things get different places, and each place is one component that fits."""
    for place in (
        volume_place,
        lambda text: bind_place(clean(text)),
        lambda text: anonymous_place("a", text),
    ):
        component = place(one).split("/", 1)[1]
        assert component not in ("", ".", "..")
        assert "/" not in component
        assert len(component.encode("utf-8", "surrogatepass")) <= 255
    assert (volume_place(one) == volume_place(other)) == (one == other)
    assert (bind_place(clean(one)) == bind_place(clean(other))) == (clean(one) == clean(other))
    assert (anonymous_place("a", one) == anonymous_place("a", other)) == (one == other)
    assert (anonymous_place(one, "/x") == anonymous_place(other, "/x")) == (one == other)


@pytest.mark.parametrize(
    ("path", "place"),
    [("/srv/www", "binds/srv~www"), ("/a~b/%", "binds/a%7Eb~%25"), ("/a/b\n", "binds/a~b%0A")],
)
def test_bind_place_stays_readable(path, place):
    """An ordinary path is recognised at a glance."""
    assert bind_place(path) == place


PATTERNS = st.lists(
    st.sampled_from(["*", "/data", "db", "shop_db", "[z-a]", "[", "/x*", "nope", "/"]), max_size=3
).map(tuple)
MOUNTS = st.lists(
    st.one_of(
        st.builds(
            volume,
            st.sampled_from(["db", "shop_db", ""]),
            st.sampled_from(["/data", "/b", ""]),
            writable=st.booleans(),
        ),
        st.builds(anonymous, st.sampled_from("ab"), st.sampled_from(["/data", "/c"])),
        st.builds(
            bind,
            st.sampled_from(["/", "", "/srv", "/srv/a", "/dev/x", "x"]),
            st.sampled_from(["/x", "/y"]),
        ),
        st.builds(Mount, st.sampled_from(["tmpfs", "image", "other"]), st.just("/t")),
    ),
    max_size=4,
)
MEMBERS = st.lists(st.tuples(MOUNTS, PATTERNS, PATTERNS, PATTERNS), max_size=3)


@given(MEMBERS)
def test_every_mount_has_a_fate_whatever_is_asked(rows):
    """There is one line per mount, protected ones name their source, and order is no matter."""
    members = [
        member(f"m{n}", *mounts, project="shop", include=i, exclude=e, binds=b)
        for n, (mounts, i, e, b) in enumerate(rows)
    ]
    found = cover(members, REFUSED)
    assert cover(members[::-1], REFUSED) == found
    assert len(found.coverage) == sum(len(mounts) for mounts, *_ in rows)
    paths = {source.path for source in found.sources}
    for line in found.coverage:
        assert (line.state == "protected") == bool(line.source)
        assert line.source in paths or (line.reason and not line.source)
    assert all(set(source.writers) <= set(source.users) for source in found.sources)
