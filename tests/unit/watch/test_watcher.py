"""The watcher on the fake Docker, with time that passes only when a test says so."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from support.manual_clock import NOON, ManualClock, settle

from kopiwatch.engine.port import Engine
from kopiwatch.errors import (
    ConfigError,
    EngineDenied,
    EngineError,
    EngineRefused,
    EngineUnreachable,
    StaleSocket,
)
from kopiwatch.task import unwrapped
from kopiwatch.testing.engine import FakeEngine
from kopiwatch.units.container import Container
from kopiwatch.units.label import ENABLE
from kopiwatch.watch.watcher import Sighting, Watcher

pytestmark = pytest.mark.anyio
LABELS = {ENABLE: "true"}
CUT = EngineUnreachable("cannot follow Docker's events: it closed the connection")


class World:
    """A watcher that runs on one fake daemon, and all that it did."""

    def __init__(self) -> None:
        self.time = ManualClock()
        self.docker = FakeEngine(clock=self.time.now)
        self.closed: list[FakeEngine] = []
        self.refusals: list[EngineError | ConfigError] = []
        self.away: EngineError | None = None
        self.sightings: list[Sighting] = []
        self.said: list[tuple[str, str, str]] = []
        self.changes = 0
        self.chance = 0.5
        self.inode: int | None = 7
        self.sinces: list[float | None] = []
        self.on_seen = self._nothing
        self.watcher = self.make(Path("/run/docker.sock"))

    def make(self, socket: Path | None) -> Watcher:
        return Watcher(
            self.connect,
            self.seen,
            changed=self.changed,
            listener=self,
            clock=self.time.clock,
            random=lambda: self.chance,
            relevant=lambda row: ENABLE in row.labels,
            socket=socket,
            inode=self.look_up,
        )

    async def look_up(self, path: Path) -> int | None:
        return self.inode

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Engine]:
        """A client of its own for each connection, on the same daemon."""
        if self.refusals:
            raise self.refusals.pop(0)
        if self.away is not None:
            raise self.away
        client = Client(self)
        async with client:
            yield client
        self.closed.append(client)

    async def seen(self, engine: Engine, sighting: Sighting) -> None:
        await self.on_seen(engine, sighting)
        self.sightings.append(sighting)

    async def _nothing(self, engine: Engine, sighting: Sighting) -> None:
        pass

    def changed(self) -> None:
        self.changes += 1
        assert self.watcher.facts is not None

    def say(self, action: str, message: str, **facts: object) -> None:
        self.said.append((action, str(facts.get("level", "info")), message))

    def levels(self, action: str) -> list[str]:
        return [level for said, level, _ in self.said if said == action]

    @property
    def reasons(self) -> list[str]:
        return [sighting.reason for sighting in self.sightings]

    @property
    def lists(self) -> int:
        return len(self.docker.order("containers"))

    @property
    def names(self) -> set[str]:
        return {row.name for row in self.sightings[-1].rows}

    def old(self, name: str) -> str:
        """A container of which no event is remembered any more."""
        made = self.docker.add_container(name, labels=LABELS)
        self.docker.events_told.restart()
        return made

    def untold(self, action: str, *args: object, **keywords: object) -> object:
        """Do something to the host whose events are lost on the way."""
        followers, self.docker.events_told.followers = self.docker.events_told.followers, []
        try:
            return getattr(self.docker, action)(*args, **keywords)
        finally:
            self.docker.events_told.followers = followers

    async def truth(self) -> list[Container]:
        return [replace(row, status="") for row in await self.docker.containers()]

    async def sees_the_truth(self) -> bool:
        return [replace(r, status="") for r in self.sightings[-1].rows] == await self.truth()


class Client(FakeEngine):
    """A client of the world's daemon: everything is done there, and since is remembered."""

    def __init__(self, world: World) -> None:
        self.__dict__ = {**world.docker.__dict__, "closed": False}
        self._world = world

    def events(self, *, since):
        passed = None if since is None else (since - NOON).total_seconds()
        self._world.sinces.append(passed)
        return super().events(since=since)


@pytest.fixture
async def world() -> World:
    return World()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.watcher.run)
            await settle()
            yield
            tasks.cancel_scope.cancel()


async def test_first_list_comes_after_the_subscription_and_two_seconds_of_events(world):
    world.docker.add_container("db", labels=LABELS)
    await world.time.pass_by(100)
    async with running(world):
        assert world.docker.order() == ["info", "events", "containers"]
        assert world.sinces == [98]
        assert (world.reasons, world.names) == (["connect"], {"db"})
        facts = world.watcher.facts
        assert (facts.connected, facts.trouble, facts.reconnects) == (True, "", 0)
        assert facts.last_resync == world.time.now()


async def test_event_between_subscription_and_list_is_listed_again(world):
    """What starts while the list is made may be missing in it."""

    async def meanwhile() -> None:
        world.docker.hook("containers", "*", lambda: None)
        world.docker.add_container("late", labels=LABELS)

    world.docker.hook("containers", "*", meanwhile)
    async with running(world):
        await world.time.pass_by(2)
        assert world.lists == 2
        assert "late" in world.names


async def test_unknown_daemon_time_asks_for_events_from_now_on(world, monkeypatch):
    monkeypatch.setattr(FakeEngine, "system_time", lambda self: None)
    async with running(world):
        assert world.sinces == [None]
        assert world.watcher.facts.connected


async def test_what_happens_before_a_stream_without_since_tells_is_seen_by_one_more_list(
    world, monkeypatch
):
    """Docker sends its headers a moment before it follows its own events."""
    monkeypatch.setattr(FakeEngine, "system_time", lambda self: None)
    async with running(world):
        world.docker.add_container("unheard")
        await world.time.pass_by(2)
        assert (world.lists, world.names) == (2, {"unheard"})
        await world.time.pass_by(60)
        assert world.lists == 2


async def test_burst_of_300_events_makes_one_list(world):
    async with running(world):
        for number in range(300):
            world.docker.add_container(f"c{number}", labels=LABELS, state="created")
        await world.time.pass_by(1.9)
        assert world.lists == 1
        await world.time.pass_by(0.2)
        assert (world.lists, world.reasons) == (2, ["connect", "event"])
        assert len(world.sightings[-1].rows) == 300
        assert world.watcher.facts.events == {"create": 300}
        await world.time.pass_by(60)
        assert world.lists == 2


async def test_gaps_of_a_second_do_not_split_a_burst(world):
    async with running(world):
        for number in range(5):
            world.docker.add_container(f"c{number}", labels=LABELS)
            await world.time.pass_by(0.97)
        assert world.lists == 1
        await world.time.pass_by(2)
        assert world.lists == 2


async def test_endless_events_are_listed_every_ten_seconds(world):
    async with running(world):
        db = world.docker.add_container("db", labels=LABELS)
        for number in range(60):
            world.docker.rename(db, f"db{number}")
            await world.time.pass_by(1)
        assert world.lists == 1 + 6


async def test_unlabelled_containers_do_not_cause_lists(world):
    async with running(world):
        for number in range(20):
            world.docker.add_container(f"c{number}")
            await world.time.pass_by(3)
        assert world.lists == 1


@pytest.mark.parametrize(("chance", "due"), [(0.0, 270), (0.5, 300), (1.0, 330)])
async def test_full_list_comes_every_five_minutes_give_or_take_a_tenth(world, chance, due):
    world.chance = chance
    async with running(world):
        await world.time.pass_by(due - 1)
        assert world.lists == 1
        await world.time.pass_by(2)
        assert world.lists == 2
        await world.time.pass_by(due)
        assert world.lists == 3
        assert world.watcher.facts.resyncs == {"connect": 1, "interval": 2}


async def test_events_do_not_postpone_the_regular_list(world):
    async with running(world):
        for number in range(8):
            world.docker.add_container(f"c{number}", labels=LABELS)
            await world.time.pass_by(50)
        assert world.watcher.facts.resyncs["interval"] == 1


async def test_equal_list_is_not_passed_on_but_moves_last_resync(world):
    db = world.old("db")
    async with running(world):
        found = world.docker.find(db, "look")
        found.row = replace(found.row, status="Up 5 minutes")
        await world.time.pass_by(301)
        assert (world.lists, world.reasons) == (2, ["connect"])
        assert world.watcher.facts.last_resync == NOON + timedelta(seconds=300)
        assert world.watcher.facts.drift == 0


async def test_change_of_an_unlabelled_container_is_passed_on_but_is_no_drift(world):
    async with running(world):
        world.docker.add_container("other")
        await world.time.pass_by(310)
        assert world.reasons == ["connect", "interval"]
        assert world.watcher.facts.drift == 0


async def test_regular_list_that_shows_the_untold_counts_as_drift(world):
    async with running(world):
        world.untold("add_container", "ghost", labels=LABELS)
        await world.time.pass_by(301)
        assert world.names == {"ghost"}
        await world.time.pass_by(3)
        assert world.watcher.facts.drift == 1
        assert world.said[-1][:2] == ("drift", "warning")
        assert "ghost" in world.said[-1][2]
        await world.time.pass_by(700)
        assert world.watcher.facts.drift == 1


async def test_event_that_comes_just_after_the_regular_list_is_no_drift(world):
    async with running(world):
        world.untold("add_container", "late", labels=LABELS)
        await world.time.pass_by(300)
        assert world.names == {"late"}
        await world.time.pass_by(0.5)
        world.docker.tell("start", world.docker.find("late", "look").row)
        await world.time.pass_by(100)
        assert world.watcher.facts.drift == 0


@pytest.mark.parametrize("moment", ["before", "during"])
async def test_event_of_which_the_regular_list_comes_first_is_no_drift(world, moment):
    """The list was due anyway while the event waited for quiet, or came while it was made."""
    async with running(world):
        await world.time.pass_by(299.5)
        if moment == "before":
            world.docker.add_container("db", labels=LABELS)
        else:
            make = world.docker.add_container
            world.docker.hook("containers", "*", lambda: make("db", labels=LABELS) and None)
        await world.time.pass_by(0.6)
        world.docker.hook("containers", "*", lambda: None)
        assert world.names == {"db"}
        assert world.watcher.facts.resyncs == {"connect": 1, "interval": 1}
        await world.time.pass_by(100)
        assert world.watcher.facts.drift == 0


async def test_pausing_is_no_drift(world):
    """No event is asked for it, and it changes nothing that events tell."""
    db = world.old("db")
    async with running(world):
        world.docker.set_state(db, "paused")
        await world.time.pass_by(310)
        assert world.sightings[-1].rows[0].state == "paused"
        assert world.watcher.facts.drift == 0


@pytest.mark.parametrize(
    "error", [EngineUnreachable("no"), EngineDenied("no (403)"), EngineError("client too old: 400")]
)
async def test_failed_list_changes_nothing_and_leads_to_a_new_client(world, error):
    world.old("db")
    async with running(world):
        world.docker.fail("containers", "*", error)
        await world.time.pass_by(300)
        facts = world.watcher.facts
        assert (facts.connected, facts.trouble, facts.failed_lists) == (False, error.message, 1)
        assert facts.since_trouble == world.time.now()
        assert (world.reasons, world.names) == (["connect"], {"db"})
        await world.time.pass_by(1)
        facts = world.watcher.facts
        assert (facts.connected, facts.trouble, facts.since_trouble) == (True, "", None)
        assert (facts.reconnects, world.reasons) == (1, ["connect", "connect"])
        assert len(world.closed) == 1
        assert world.levels("docker-trouble") == ["warning"]


async def test_failed_first_list_is_no_sighting(world):
    world.docker.fail("containers", "*", EngineUnreachable("no"), times=2)
    async with running(world):
        assert (world.sightings, world.watcher.facts.connected) == ([], False)
        await world.time.pass_by(2)
        assert world.reasons == ["connect"]


async def test_reconnect_resumes_with_the_last_event_and_counts_it_once(world):
    async with running(world):
        await world.time.pass_by(70)
        world.docker.add_container("db", labels=LABELS, state="created")
        await world.time.pass_by(5)
        world.docker.cut_events(CUT)
        await world.time.pass_by(1)
        assert world.sinces == [-2, 70]
        facts = world.watcher.facts
        assert (facts.events, facts.reconnects, facts.connected) == ({"create": 1}, 1, True)
        assert world.lists == 3
        await world.time.pass_by(100)
        assert world.lists == 3


async def test_event_during_a_reconnect_is_told_afterwards(world):
    async with running(world):
        db = world.docker.add_container("db", labels=LABELS)
        await world.time.pass_by(5)
        world.docker.cut_events(CUT)
        await settle()
        world.docker.rename(db, "new")
        await world.time.pass_by(3)
        assert world.watcher.facts.events == {"create": 1, "start": 1, "rename": 1}
        assert world.names == {"new"}


async def test_oversized_event_is_passed_over_by_a_reconnect_without_since(world):
    world.docker.oversized.add("big")
    async with running(world):
        await world.time.pass_by(70)
        world.docker.add_container("db", labels=LABELS, state="created")
        await world.time.pass_by(5)
        world.docker.add_container("big", labels=LABELS, state="created")
        await world.time.pass_by(1)
        facts = world.watcher.facts
        assert (facts.oversized, facts.connected, facts.reconnects) == (1, True, 1)
        assert world.names == {"db", "big"}
        assert world.levels("event-oversized") == ["warning"]
        world.docker.add_container("after", labels=LABELS, state="created")
        await world.time.pass_by(5)
        world.docker.cut_events(CUT)
        await world.time.pass_by(3)
        assert world.sinces == [-2, None, 76]
        assert world.watcher.facts.oversized == 1
        assert world.watcher.facts.connected


async def test_connection_right_after_an_oversized_event_does_not_ask_for_it_again(world):
    """The resume point of before would make Docker tell the same event for ever."""
    world.docker.oversized.add("big")
    async with running(world):
        world.docker.add_container("db", labels=LABELS)
        await world.time.pass_by(20)
        world.docker.add_container("big", labels=LABELS, state="created")
        await world.time.pass_by(20)
        world.docker.cut_events(CUT)
        await world.time.pass_by(20)
        assert world.watcher.facts.oversized == 1
        assert world.sinces == [-2, None, world.sinces[2]]
        assert world.sinces[2] is not None
        assert world.sinces[2] > 20


async def test_container_with_oversized_events_in_a_crash_loop_is_said_once(world):
    world.docker.oversized.add("big")
    big = world.docker.add_container("big", labels=LABELS)
    async with running(world):
        for _ in range(60):
            world.docker.set_state(big, "exited")
            world.docker.set_state(big, "running")
            await world.time.pass_by(4)
        assert world.watcher.facts.oversized > 5
        assert world.levels("event-oversized").count("warning") == 1
        await world.time.pass_by(60)
        assert world.watcher.facts.connected
        assert await world.sees_the_truth()


@pytest.mark.parametrize("error", [None, CUT])
async def test_stream_that_ends_after_a_minute_is_routine(world, error):
    async with running(world):
        await world.time.pass_by(61)
        world.docker.cut_events(error)
        await world.time.pass_by(1)
        assert world.watcher.facts.connected
        assert {level for _, level, _ in world.said[1:]} == {"debug"}
        assert world.reasons == ["connect", "connect"]


@pytest.mark.parametrize("error", [None, CUT])
async def test_stream_that_ends_early_is_said_and_so_is_its_return(world, error):
    async with running(world):
        await world.time.pass_by(10)
        world.docker.cut_events(error)
        await settle()
        assert not world.watcher.facts.connected
        assert world.watcher.facts.trouble
        await world.time.pass_by(1)
        assert world.levels("docker-trouble") == ["warning"]
        assert world.levels("docker-back") == ["info"]


async def test_silent_stream_is_made_anew_and_its_list_is_idle(world):
    world.old("db")
    async with running(world):
        await world.time.pass_by(599.5)
        world.docker.cut_events()
        await world.time.pass_by(1)
        facts = world.watcher.facts
        assert facts.resyncs == {"connect": 1, "interval": 1, "idle": 1}
        assert (facts.connected, world.reasons) == (True, ["connect"])
        assert {level for _, level, _ in world.said[1:]} == {"debug"}


async def test_error_of_an_earlier_connection_does_not_hide_a_silent_end(world):
    async with running(world):
        await world.time.pass_by(61)
        world.docker.cut_events(CUT)
        await world.time.pass_by(601)
        world.docker.cut_events()
        await world.time.pass_by(1)
        assert world.watcher.facts.resyncs["idle"] == 1


async def test_dead_connection_is_found_out_by_its_silence(world):
    """A router forgot the connection: no event, no error, until the idle time is over."""
    async with running(world):
        await world.time.pass_by(599)
        world.untold("add_container", "ghost", labels=LABELS)
        world.docker.cut_events()
        await world.time.pass_by(4)
        assert world.names == {"ghost"}


async def test_waiting_between_tries_doubles_to_thirty_seconds(world):
    world.away = EngineUnreachable("cannot ask: there is no such socket")
    async with running(world):
        await world.time.pass_by(120)
        assert world.time.slept[:9] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


async def test_short_lived_connections_do_not_reset_the_waiting(world):
    async with running(world):
        for _ in range(4):
            world.docker.cut_events(CUT)
            await world.time.pass_by(20)
        waits = [seconds for seconds in world.time.slept if seconds < 20]
        assert waits[:4] == [0.25, 0.5, 1, 2]
        await world.time.pass_by(31)
        world.docker.cut_events(CUT)
        await settle()
        assert world.time.slept[-1] == 0.25


async def test_full_jitter_waits_anything_down_to_nothing(world):
    world.away = EngineUnreachable("no")
    world.chance = 1.0
    async with running(world):
        await world.time.pass_by(100)
        assert world.time.slept[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_docker_absent_at_start_is_said_once_and_then_now_and_then(world):
    world.away = EngineUnreachable("cannot ask: there is no such socket")
    async with running(world):
        await world.time.pass_by(290)
        assert world.levels("docker-trouble").count("warning") == 1
        assert world.watcher.facts.trouble == "cannot ask: there is no such socket"
        assert world.watcher.facts.since_trouble == NOON
        await world.time.pass_by(3600 - 290)
        assert 11 <= world.levels("docker-trouble").count("warning") <= 12
        world.away = None
        await world.time.pass_by(30)
        assert world.watcher.facts.connected
        (back,) = [message for action, _, message in world.said if action == "docker-back"]
        assert "60 min" in back
        assert world.watcher.facts.reconnects == 0


async def test_flapping_docker_is_said_once_in_five_minutes(world):
    async with running(world):
        for _ in range(15):
            world.docker.cut_events(CUT)
            await world.time.pass_by(18)
        assert world.levels("docker-trouble").count("warning") == 1
        assert world.levels("docker-back").count("info") == 1


async def test_configuration_error_is_raised(world):
    world.refusals.append(ConfigError("the Docker address is not an address"))
    with pytest.raises(ConfigError):
        await world.watcher.run()


REFUSED = EngineRefused("cannot ask: nobody listens there")


async def test_socket_that_refuses_for_five_minutes_is_stale(world):
    async with running(world):
        await world.time.pass_by(61)
    world.away = REFUSED

    async def wait() -> None:
        async with running(world):
            await world.time.pass_by(299)
            assert not world.watcher.facts.connected
            await world.time.pass_by(31)
            pytest.fail("it should have ended")

    with pytest.raises(StaleSocket) as caught:
        await wait()
    assert caught.value.exit_code == 5
    assert "folder" in caught.value.hint


@pytest.mark.parametrize("what", ["other inode", "missing file", "other error", "off"])
async def test_socket_is_not_stale_when(world, what):
    world.away = REFUSED
    if what == "off":
        world.watcher = world.make(None)
    async with running(world):
        for step in range(20):
            if what == "other inode":
                world.inode = step
            if what == "missing file":
                world.inode = None if step % 5 == 4 else 7
            if what == "other error":
                world.away = EngineUnreachable("no such socket") if step % 5 == 4 else REFUSED
            await world.time.pass_by(31)
        assert not world.watcher.facts.connected


async def test_daemon_that_answers_in_between_is_not_stale(world):
    world.away = REFUSED
    async with running(world):
        await world.time.pass_by(280)
        world.away = None
        await world.time.pass_by(31)
        world.away = REFUSED
        world.docker.cut_events()
        await world.time.pass_by(280)
        assert not world.watcher.facts.connected


@pytest.mark.parametrize("error", [ValueError("bug"), EngineError("bug"), EngineUnreachable("no")])
async def test_failure_of_the_one_who_is_told_is_raised_and_not_retried(world, error):
    async def fail(engine: Engine, sighting: Sighting) -> None:
        raise error

    world.on_seen = fail
    with pytest.raises(type(error)) as caught:
        await world.watcher.run()
    assert caught.value is error
    assert world.docker.events_told.followers == []


async def test_reader_goes_on_while_the_list_is_being_worked_on(world):
    """A reader that waits would slow down every container operation of the host."""
    hold = anyio.Event()

    async def slow(engine: Engine, sighting: Sighting) -> None:
        await hold.wait()

    world.on_seen = slow
    async with running(world):
        for number in range(2000):
            world.docker.add_container(f"c{number}", labels=LABELS, state="created")
        await world.time.pass_by(20)
        assert world.watcher.facts.events == {"create": 2000}
        assert (world.lists, world.sightings) == (1, [])
        hold.set()
        await world.time.pass_by(1)
        assert world.lists == 2
        assert len(world.sightings[-1].rows) == 2000


async def test_nudge_lists_at_once(world):
    async with running(world):
        world.docker.add_container("other")
        world.watcher.nudge()
        await settle()
        assert (world.lists, world.names) == (2, {"other"})
        await world.time.pass_by(60)
        assert world.lists == 2


async def test_nudge_without_a_connection_is_harmless(world):
    world.away = EngineUnreachable("no")
    async with running(world):
        world.watcher.nudge()
        await world.time.pass_by(20)
        world.away = None
        await world.time.pass_by(30)
        assert world.lists == 1


async def test_every_change_of_the_facts_is_announced(world):
    async with running(world):
        db = world.docker.add_container("db", labels=LABELS)
        await settle()
        before = world.changes
        world.docker.rename(db, "new")
        await settle()
        assert world.changes == before + 1
        assert world.watcher.facts.events["rename"] == 1
        world.docker.cut_events(CUT)
        await settle()
        assert world.changes > before + 1


async def test_facts_are_values(world):
    async with running(world):
        before = world.watcher.facts
        world.docker.add_container("db", labels=LABELS)
        await world.time.pass_by(3)
        assert (before.events, before.resyncs) == ({}, {"connect": 1})


async def test_each_connection_has_a_client_of_its_own_that_is_closed(world):
    async with running(world):
        for _ in range(20):
            world.docker.cut_events(CUT)
            await world.time.pass_by(31)
        assert len(world.closed) == 20
        assert len({id(client) for client in world.closed}) == 20
        assert all(client.closed for client in world.closed)
        assert len(world.docker.events_told.followers) == 1
        assert world.watcher.facts.reconnects == 20


async def test_cancelling_leaves_nothing_behind(world):
    async with running(world):
        await world.time.pass_by(1)
    assert world.docker.events_told.followers == []


async def test_daemon_that_restarts_tells_nothing_of_before_and_is_seen_as_it_is(world):
    db = world.docker.add_container("db", labels=LABELS)
    async with running(world):
        await world.time.pass_by(100)
        world.away = EngineRefused("nobody listens")
        world.docker.events_told.restart()
        world.untold("set_state", db, "exited")
        world.docker.events_told.restart()
        await world.time.pass_by(20)
        assert world.sightings[-1].rows[0].state == "running"
        world.away = None
        await world.time.pass_by(30)
        assert world.sightings[-1].rows[0].state == "exited"


@pytest.mark.parametrize("seed", range(12))
async def test_after_any_chaos_the_last_sighting_is_the_truth(world, seed):
    """Containers come, go and change while everything that can fail does; then it is quiet."""
    dice = random.Random(seed)
    docker = world.docker
    docker.oversized.add("c3")

    def disturb() -> None:
        names = [each.row.name for each in docker.all.values()]
        match dice.randrange(12):
            case 0 | 1 | 2:
                name = f"c{dice.randrange(12)}"
                if name not in names:
                    docker.add_container(name, labels=LABELS if dice.random() < 0.8 else {})
            case 3 | 4 if names:
                state = dice.choice(["running", "exited", "paused", "restarting"])
                docker.set_state(dice.choice(names), state)
            case 5 if names:
                docker.remove(dice.choice(names))
            case 6 if names:
                docker.rename(dice.choice(names), f"r{dice.randrange(10**9)}")
            case 7:
                docker.cut_events(dice.choice([None, CUT]))
            case 8:
                docker.fail(dice.choice(["containers", "events", "info"]), "*", CUT)
            case 9:
                world.away = dice.choice([CUT, REFUSED, None, None])
            case 10 if names:
                world.untold("set_state", dice.choice(names), dice.choice(["running", "exited"]))
            case _:
                docker.events_told.restart()

    world.watcher = world.make(None)
    async with running(world):
        for _ in range(400):
            disturb()
            world.chance = dice.random()
            await world.time.pass_by(dice.choice([0, 0.1, 1, 3, 20]))
        world.away, docker._failures[:] = None, []
        await world.time.pass_by(331 + 30 + 30)
        assert world.watcher.facts.connected
        assert await world.sees_the_truth()


async def test_news_is_passed_on_before_the_facts_of_its_list_change(world):
    """Whoever shows each change and then pauses shows the news at once."""
    async with running(world):
        world.docker.add_container("db", labels=LABELS)
        await settle()
        told, at_seen = world.changes, []

        async def seen(engine: Engine, sighting: Sighting) -> None:
            at_seen.append(world.changes)

        world.on_seen = seen
        await world.time.pass_by(3)
        assert (at_seen, world.changes) == ([told], told + 1)
