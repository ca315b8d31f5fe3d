"""The state machine: hypothesis draws a world and a history, and the oracle judges it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from support.machine.oracle import MODES, MemberSpec
from support.machine.trouble import (
    DISK_FAULTS,
    ENGINE_FAULTS,
    REPOSITORY_FAULTS,
    STOP_FAULTS,
    WORKER_FAULTS,
    Death,
    Fault,
    Happening,
    Moment,
    Port,
    Trouble,
)
from support.machine.world import World

HAPPENINGS = (
    *("start", "stop", "crash", "start-and-stop", "start-and-stop", "stop-and-start"),
    *("remove", "recreate", "recreate-unstarted", "recreate-unstarted"),
    *("dockerd", "repository", "disk", "disk-lost", "editor"),
)
"""The last one only while a process works."""
TURNS = {
    "replay": 30,
    "settle": 16,
    "check": 50,
    "ready": 28,
    "stop": 30,
    "read": 16,
    "start": 30,
    "watch": 60,
    "health": 20,
    "flush": 12,
    "verify": 16,
    "report": 8,
}
"""How many turns of the loop a phase takes, more or less: where something can come in between."""
CALLS = ("stop", "start", "inspect", "containers", "remove_worker", "workers", "worker", "exec")
METHODS = ("snapshots", "pin", "outline", "check_policy", "worker_files", "status")


def member(name: str, unit: str, needs: str) -> st.SearchStrategy[MemberSpec]:
    """One container. Most run, and most are well."""
    return st.builds(
        MemberSpec,
        name=st.just(name),
        unit=st.just(unit),
        state=st.sampled_from(("running", "running", "running", "exited")),
        loops=st.sampled_from((False, False, False, True)),
        policy=st.sampled_from(("no", "always", "unless-stopped", "on-failure")),
        health=st.sampled_from(("none", "none", "good", "good", "bad", "sick")),
        stop_seconds=st.sampled_from((0.2, 0.2, 3.0, 9.5)),
        needs=st.sampled_from(("", needs)) if needs else st.just(""),
        mode=st.sampled_from(MODES),
    )


MEMBERS = st.tuples(
    member("db", "shop", ""),
    st.none() | member("app", "shop", "db:service_started:false"),
    st.none() | member("web", "shop", "db:service_healthy:false,app:service_started:false"),
    st.none() | member("solo", "solo", ""),
).map(lambda given: [spec for spec in given if spec is not None])


def fault(port: Port, whats: tuple[str, ...], hows: tuple[str, ...]) -> st.SearchStrategy[Fault]:
    """A call of one port goes wrong."""
    return st.builds(
        Fault,
        port=st.just(port),
        what=st.sampled_from(whats),
        nth=st.integers(1, 4),
        how=st.sampled_from(hows),
        times=st.sampled_from((1, 1, 1, 2, 9)),
    )


def any_call(port: Port, hows: tuple[str, ...], most: int) -> st.SearchStrategy[Fault]:
    """The so-manieth call of a port goes wrong, whatever it is."""
    return st.builds(
        Fault,
        port=st.just(port),
        what=st.just("*"),
        nth=st.integers(1, most),
        how=st.sampled_from(hows),
        times=st.just(1),
    )


WORDS = st.sampled_from([(step, how) for step, hows in WORKER_FAULTS.items() for how in hows])
FAULTS = st.one_of(
    fault("docker", CALLS, ENGINE_FAULTS),
    fault("docker", ("stop",), STOP_FAULTS),
    any_call("docker", ENGINE_FAULTS, 60),
    fault("kopia", METHODS, REPOSITORY_FAULTS),
    any_call("kopia", REPOSITORY_FAULTS, 12),
    WORDS.map(lambda word: Fault("worker", word[0], 1, word[1])),
    st.sampled_from(WORKER_FAULTS["flush"]).map(lambda how: Fault("worker", "flush", 1, how)),
    WORDS.map(lambda word: Fault("worker", word[0], 1, word[1])),
    st.builds(
        Fault, st.just("disk"), st.sampled_from(DISK_FAULTS), st.integers(1, 6), st.just("")
    ).map(lambda f: Fault(f.port, f.what, f.nth, f.what)),
)
MOMENTS = st.sampled_from((*TURNS, "ready", "stop", "read", "read", "start")).flatmap(
    lambda phase: st.builds(Moment, st.just(phase), st.integers(0, TURNS[phase]))
)
EVENTS = st.builds(Happening, MOMENTS, st.sampled_from(HAPPENINGS), st.integers(0, 3))
LINGERS = st.sampled_from((0.0, 0.5, 3.0, 1e9))
DEATHS = st.builds(Death, MOMENTS, LINGERS, st.booleans())
DOWN = st.builds(Moment, st.sampled_from(("stop", "stop", "read", "start")), st.integers(2, 30))
DEATHS_DOWN = st.builds(Death, DOWN, LINGERS)


def several(what: st.SearchStrategy, least: int, most: int) -> st.SearchStrategy:
    return st.lists(what, min_size=least, max_size=most).map(tuple)


TROUBLES = st.one_of(
    st.builds(Trouble, faults=several(FAULTS, 0, 3)),
    st.builds(Trouble, faults=several(FAULTS, 1, 2), happenings=several(EVENTS, 1, 2)),
    st.builds(Trouble, happenings=several(EVENTS, 1, 3)),
    st.builds(Trouble, signal=MOMENTS, faults=several(FAULTS, 0, 2)),
    st.builds(Trouble, death=DEATHS),
    st.builds(Trouble, death=DEATHS_DOWN),
    st.builds(Trouble, death=DEATHS_DOWN, happenings=several(EVENTS, 1, 2)),
    st.builds(Trouble, death=DEATHS, faults=several(FAULTS, 1, 2)),
    st.builds(Trouble, death=DEATHS, happenings=several(EVENTS, 1, 2)),
    st.builds(Trouble, death=DEATHS, faults=several(FAULTS, 0, 1), signal=MOMENTS),
)
"""What goes wrong in one process: nothing, one thing, or several at once."""


class Machine(RuleBasedStateMachine):
    """A world, and a history of kopiwatch's processes in it.

    Each rule runs whole processes, on event loops of their own, so that the machine itself is
    synchronous. ``counted`` is told the world at the end of each history.
    """

    counted: Callable[[World], None] = staticmethod(lambda _: None)

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(members=MEMBERS)
    def begin(self, members: list[MemberSpec]) -> None:
        self.world = World(members).__enter__()

    @property
    def _world(self) -> World:
        assert self.world is not None
        return self.world

    @rule(
        before=st.lists(st.sampled_from(HAPPENINGS[:-1]), max_size=1),
        slot=st.integers(0, 3),
        pause=st.sampled_from((0.0, 0.0, 1.0, 15.0, 3600.0)),
        trouble=TROUBLES,
        work=st.sampled_from(("shop", "shop", "shop", "solo", "settle", "replay")),
    )
    def process(
        self, before: list[str], slot: int, pause: float, trouble: Trouble, work: str
    ) -> None:
        """Something may happen while nobody works; then kopiwatch does."""
        world = self._world
        for what in before:
            world.others.do(what, slot)
            world.fired[f"somebody {what}"] += 1
        world.time.advance(world.time.passed + pause)
        if work == "solo" and all(slot.spec.unit != "solo" for slot in world.oracle.slots):
            work = "shop"
        world.process(work, trouble)

    def check_invariants(self, *given: object, **named: object) -> None:
        super().check_invariants(*given, **named)
        if self.world is not None:
            assert self.world.oracle.wrong == []

    def teardown(self) -> None:
        if self.world is None:
            return
        with self.world as world:
            if not world.oracle.wrong:
                world.recover()
                world.healthy_again()
            type(self).counted(world)
            assert world.oracle.wrong == []


class Figures:
    """What a number of histories was made of."""

    def __init__(self) -> None:
        self.histories = 0
        self.runs = 0
        self.processes = 0
        self.verdicts: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()

    def count(self, world: World) -> None:
        self.histories += 1
        self.runs += world.runs
        self.processes += world.processes
        self.fired.update(world.fired)
        verdicts = Counter(result.verdict for result in world.oracle.results.values())
        self.verdicts.update(verdicts)
        self.verdicts["died"] += world.runs - len(world.oracle.results)
