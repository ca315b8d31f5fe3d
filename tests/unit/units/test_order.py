"""Who is stopped, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from unit.units.build import bind, container, volume

from kopiwatch.units.container import Container, Mount
from kopiwatch.units.group import discover
from kopiwatch.units.order import Namespaces, stop_plan
from kopiwatch.units.setting import MemberSettings
from kopiwatch.units.unit import Member, Source, Unit, UnitSettings


def unit_of(*rows: Container) -> Unit:
    (unit,) = discover(rows).units
    return unit


def shop(name: str, *mounts: Mount, **fields) -> Container:
    """A member of the project shop that needs nobody, unless told otherwise."""
    fields.setdefault("depends", "")
    return container(name, *mounts, project="shop", **fields)


def named(plan, rows):
    by_id = {row.id: row.name for row in rows}
    return [[by_id[id_] for id_ in level] for level in plan.start_levels]


def plan_of(*rows: Container, outside=(), **options):
    everybody = [*rows, *outside]
    unit = next(unit for unit in discover(everybody).units if rows[0].id in _ids(unit))
    plan = stop_plan(unit, everybody, **options)
    return plan, named(plan, everybody)


def _ids(unit):
    return [member.container.id for member in unit.members]


def test_only_running_writers_and_their_dependents_are_held():
    """Readers, sleepers and bystanders are left alone."""
    rows = [
        shop("db", volume("v")),
        shop("app", depends="db:service_healthy:false"),
        shop("front", depends="app:service_started:true"),
        shop("reader", volume("v", writable=False)),
        shop("down", volume("v"), state="exited"),
        shop("aside"),
    ]
    plan, levels = plan_of(*rows)
    assert levels == [["db"], ["app"], ["front"]]
    assert plan.gates == {rows[1].id: (rows[0].id,)}
    assert plan.reasons[rows[0].id] == "writes to volumes/v"
    assert plan.problems == ()


def test_nobody_is_held_when_nobody_writes():
    """All mounts read-only, or all writers down: no window at all."""
    plan, levels = plan_of(
        shop("a", volume("v", writable=False)), shop("b", volume("v"), state="exited")
    )
    assert (levels, plan.held) == ([], ())


def test_volume_that_is_left_out_stops_nobody():
    """Only selected sources count."""
    _, levels = plan_of(shop("a", volume("v"), labels={"exclude": "v"}))
    assert levels == []


def test_members_without_order_share_a_level():
    """What does not depend on each other stops and starts in parallel."""
    _, levels = plan_of(shop("a", volume("v")), shop("b", volume("v")))
    assert levels == [["a", "b"]]


def test_network_peer_stops_first_and_starts_last_labelled_or_not():
    """Who lives in another's network cannot outlive it, whoever it is."""
    vpn = shop("vpn", volume("v"))
    peer = container("peer", enable=None, network_mode=f"container:{vpn.id}")
    peer_of_peer = container("tail", enable=None, network_mode="container:peer")
    plan, levels = plan_of(vpn, outside=[peer, peer_of_peer])
    assert levels == [["vpn"], ["peer"], ["tail"]]
    assert plan.reasons[peer.id] == "shares the network of vpn"


def test_stopped_peer_stays_stopped():
    """Only who runs is held."""
    vpn = shop("vpn", volume("v"))
    peer = container("peer", enable=None, network_mode=f"container:{vpn.id}", state="exited")
    assert plan_of(vpn, outside=[peer])[1] == [["vpn"]]


def test_process_memory_and_volume_peers_are_held_when_inspected():
    """What the list does not say counts where it is known; a reader of volumes only is ordered."""
    db = shop("db", volume("v"))
    others = [container(name, enable=None) for name in ("ipc", "pid", "from", "reader")]
    spaces = {
        others[0].id: Namespaces(ipc_mode="container:db"),
        others[1].id: Namespaces(pid_mode=f"container:{db.id[:12]}"),
        others[2].id: Namespaces(volumes_from=("db",)),
        others[3].id: Namespaces(volumes_from=("db:ro",)),
    }
    plan, levels = plan_of(db, outside=others, namespaces=spaces)
    assert [set(level) for level in levels] == [{"db"}, {"from", "ipc", "pid"}]
    assert any("reader is not of this unit" in line for line in plan.warnings)


def test_dependence_over_somebody_who_is_not_held_keeps_the_order():
    """A chain is a chain, even if its middle link keeps running."""
    rows = [
        shop("db", volume("v")),
        shop("middle", depends="db:service_started:false", enable=None),
        shop("app", volume("v"), depends="middle"),
    ]
    assert plan_of(*rows)[1] == [["db"], ["app"]]


def test_swarm_task_is_never_stopped():
    """Its replacement would be a second writer."""
    rows = [shop("task", volume("v"), labels={"com.docker.swarm.service.id": "x"})]
    plan, levels = plan_of(*rows)
    assert levels == []
    assert "Swarm" in plan.problems[0].reason
    assert not unit_of(*rows).valid


def test_kopiwatch_never_stops_itself():
    """Sharing a network with a member that must stop is a problem, not a stop."""
    vpn = shop("vpn", volume("v"))
    own = container("kopiwatch", enable=None, network_mode=f"container:{vpn.id}")
    plan = stop_plan(unit_of(vpn), [vpn, own], self_id=own.id)
    assert own.id not in plan.held
    assert "kopiwatch itself" in plan.problems[0].reason


def test_writer_that_is_paused_already_stays_so():
    """It writes nothing, and it was not us who paused it."""
    plan, _ = plan_of(shop("a", volume("v"), state="paused"))
    assert (plan.held, plan.problems, plan.reading) == ((), (), "pause")


def test_paused_peer_of_somebody_who_stops_forbids_the_run_but_not_the_unit():
    """It would be cut off, and stopped it could not be brought back as it was."""
    plan, _ = plan_of(shop("a", volume("v")), shop("b", network_mode="container:a", state="paused"))
    assert plan.problems == plan.passing != ()


def test_foreign_writer_makes_the_source_hot():
    """Somebody outside who writes on is said, by volume and by path."""
    rows = [shop("a", volume("v"), bind("/srv/x", "/x"), labels={"binds": "true"})]
    foreign = [
        container("f1", volume("v"), enable=None),
        container("f2", bind("/srv", "/s"), enable=None),
        container("f3", volume("v", writable=False), enable=None),
        container("f4", volume("v"), enable=None, state="exited"),
        container("f5", bind("/", "/host"), enable=None),
        container("f6", bind("/var/lib/docker/volumes", "/v"), enable=None),
        container("f7", bind("/var/lib/docker/volumes/v/_data", "/v"), enable=None),
    ]
    plan, _ = plan_of(*rows, outside=foreign)
    assert plan.foreign_writers == ("f1", "f2", "f7")
    assert sum("hot" in line for line in plan.warnings) == 3


def test_outsider_that_depends_on_a_held_member_is_shown():
    """It runs on while what it needs is down."""
    plan, _ = plan_of(
        shop("db", volume("v")),
        outside=[shop("tool", depends="db:service_started:false", enable=None)],
    )
    assert any("tool is not of this unit" in line for line in plan.warnings)


def test_after_orders_members_by_service_or_container():
    """The label adds what Compose does not know."""
    _, levels = plan_of(
        shop("shop-a-1", volume("v"), service="a", labels={"after": "b,shop-c-1"}),
        shop("shop-b-1", volume("v"), service="b"),
        shop("shop-c-1", volume("v"), service="c"),
    )
    assert levels == [["shop-b-1", "shop-c-1"], ["shop-a-1"]]


def test_after_an_unknown_name_is_a_problem_with_the_nearest():
    """A name that nobody has is a slip."""
    plan, _ = plan_of(shop("app", volume("v"), labels={"after": "databas"}), shop("database"))
    assert [(p.label, p.suggestion) for p in plan.problems] == [
        ("kopi.after", "did you mean 'database'?")
    ]


def test_cycle_is_a_problem_that_shows_the_ring():
    """There is no order to be had, and the ring is named."""
    plan, _ = plan_of(
        shop("a", volume("v"), depends="b"),
        shop("b", depends="c"),
        shop("c", depends="a:service_started:true"),
    )
    (problem,) = plan.problems
    assert problem.reason == "needs itself: a → b → c → a"


def test_malformed_dependency_is_a_warning():
    """What Compose wrote and we do not understand is said."""
    plan, levels = plan_of(
        shop("db", volume("v")), shop("app", volume("v"), depends="db:service_odd:false,,x:y:z:w")
    )
    assert levels == [["db"], ["app"]]
    assert sum("not understood" in line for line in plan.warnings) == 3


def test_order_of_creation_counts_where_nothing_else_is_told():
    """Compose 1.29 writes no dependencies; the same second is the same level."""
    rows = [
        shop("db", volume("v"), depends=None, created=10),
        shop("cache", volume("v"), depends=None, created=10),
        shop("app", volume("v"), depends=None, created=20),
        shop("side", volume("v"), depends=None, created=30),
    ]
    plan, levels = plan_of(*rows)
    assert [sorted(level) for level in levels] == [["cache", "db"], ["app"], ["side"]]
    assert any("Compose 1.29" in line for line in plan.warnings)


def test_order_of_creation_yields_to_what_is_known():
    """A label contradicts the order of creation, and wins without a cycle."""
    plan, levels = plan_of(
        shop("a", volume("v"), depends=None, created=10, labels={"after": "b"}),
        shop("b", volume("v"), depends=None, created=20),
    )
    assert (levels, plan.problems) == ([["b"], ["a"]], ())


def test_owner_of_a_network_that_is_gone_is_a_warning():
    """A stranded peer is worth a word."""
    plan, _ = plan_of(shop("a", volume("v"), network_mode=f"container:{'f' * 64}"))
    assert any("does not exist any more" in line for line in plan.warnings)


NAMES = ["a", "b", "c", "d", "e"]
REFERENCES = st.sampled_from([*NAMES, "ghost", "", *(container(name).id for name in NAMES)])


SWARM, WORKER = {"com.docker.swarm.service.id": "x"}, {"kopi.worker": "1"}


@st.composite
def hosts(draw):
    rows, members, spaces = [], [], {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1)):
        depends = draw(
            st.none()
            | st.lists(
                st.sampled_from([*NAMES, "a:service_healthy:true", ":", "x:y:z:w"]), max_size=2
            ).map(",".join)
        )
        mode = draw(st.just("") | REFERENCES.map(lambda reference: f"container:{reference}"))
        row = container(
            name, volume("v", writable=draw(st.booleans())),
            project=draw(st.sampled_from(["p", "", "q"])), depends=depends,
            created=draw(st.none() | st.integers(0, 3)), network_mode=mode,
            state=draw(st.sampled_from(["running", "exited", "paused", "restarting"])),
            labels=draw(st.sampled_from([{}, {}, {}, SWARM, WORKER])),
        )  # fmt: skip
        rows.append(row)
        if not row.worker and draw(st.booleans()):
            after = tuple(draw(st.lists(st.sampled_from([*NAMES, "ghost"]), max_size=2)))
            how = draw(st.sampled_from(["stop", "stop", "pause", "live"]))
            members.append(Member(row, MemberSettings(after=after, mode=how)))
        if draw(st.booleans()):
            shared = draw(
                st.lists(REFERENCES.map(lambda r: f"{r}:ro" if r == "a" else r), max_size=2)
            )
            spaces[row.id] = Namespaces(
                pid_mode=f"container:{draw(REFERENCES)}", volumes_from=tuple(shared)
            )
    unit = Unit(
        "u",
        "label",
        tuple(members),
        UnitSettings(),
        sources=(Source("volumes/v", "volume", volume="v"),),
    )
    return unit, rows, spaces


@given(hosts())
def test_plan_never_raises_and_keeps_every_order(host):
    """Each id at most once, only who runs, starts are the stops reversed, needs come first.

    And every writer is stopped, frozen, or live by its own word.
    """
    unit, rows, spaces = host
    plan = stop_plan(unit, rows, spaces)
    assert stop_plan(unit, rows[::-1], spaces) == plan
    down = [[id_ for id_ in level if id_ not in plan.pauses] for level in plan.start_levels]
    assert [level for level in down if level] == [list(level) for level in plan.stop_levels[::-1]]
    stopped = [id_ for level in plan.stop_levels for id_ in level]
    flat = [*stopped, *plan.pauses]
    assert flat == list(plan.held)
    assert len(flat) == len(set(flat)) == len(plan.reasons)
    by_id = {row.id: row for row in rows}
    assert all(by_id[id_].running for id_ in flat)
    assert not any(by_id[id_].swarm_task for id_ in stopped)
    assert all(all(level) for level in (plan.start_levels, plan.stop_levels))
    writing = [m for m in unit.members if m.container.running and m.container.mounts[0].writable]
    assert not flat or writing
    if plan.problems:
        return
    for member in writing:
        frozen = member.container.state == "paused"
        places = (member.container.id in flat, member.container.id in plan.live, frozen)
        assert sum(places) == 1, places
        weakest = plan.reading
        assert weakest == "live" or member.container.id not in plan.live
        assert weakest != "stop" or member.container.id in stopped
    position = {id_: n for n, level in enumerate(plan.start_levels) for id_ in level}
    by_name = {row.name: row for row in rows}
    for id_ in flat:
        row = by_id[id_]
        owner = row.network_mode.removeprefix("container:")
        owner_id = owner if owner in by_id else by_name[owner].id if owner in by_name else ""
        if owner_id in position:
            assert position[owner_id] < position[id_]
        assert all(position[needed] < position[id_] for needed in plan.gates.get(id_, ()))
    for row in rows:
        owner = row.network_mode.removeprefix("container:")
        owner_id = owner if owner in by_id else by_name[owner].id if owner in by_name else ""
        if owner_id in stopped and row.running and not row.worker:
            assert row.id in stopped


def test_sequence_holds_all_members_in_the_order_of_starts():
    """Also those whom nobody stops; nothing is warned of for their sake."""
    rows = [
        shop("web", depends="app:service_started:false"),
        shop("app", volume("v", writable=False), depends="db:service_started:false"),
        shop("db", state="exited"),
    ]
    plan, levels = plan_of(*rows)
    names = {row.id: row.name for row in rows}
    assert ([names[id_] for id_ in plan.sequence], levels) == (["db", "app", "web"], [])
    assert plan.warnings == ()
