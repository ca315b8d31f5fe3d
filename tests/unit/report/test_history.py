"""The history: runs in, records out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kopiwatch.backup.result import MemberResult, Phase, PhaseTime, RunResult, SourceResult
from kopiwatch.clock import Clock
from kopiwatch.errors import HistoryError
from kopiwatch.report.board import LastRun, Totals
from kopiwatch.report.history import History
from kopiwatch.report.history_record import PhaseRow, UnitRecord, UnitSeen, last_run

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CLOCK = Clock(now=lambda: NOON)
HOUR = timedelta(hours=1)


@pytest.fixture
async def history(tmp_path):
    opened = await History.open(tmp_path, clock=CLOCK)
    assert (opened.fresh, opened.set_aside) == (True, None)
    async with opened.history as history:
        yield history


def result(run: str = "r1", verdict: str = "success", *, hour: int = 0, **more: object):
    began = NOON + hour * HOUR
    given = {
        "unit": "shop",
        "ended": began + timedelta(seconds=70),
        "reason": "" if verdict == "success" else "start",
        "snapshot": "k1",
        "window": 2.5,
        "phases": (PhaseTime("check", began, 1.0), PhaseTime("stop", began, 2.5)),
        "sources": (
            SourceResult("recipe", 10, 1),
            SourceResult("volumes/db", 990, 9, failed=1, ignored=2, reason="unreadable"),
        ),
        "members": (MemberResult("db", "started", True),),
    } | more
    return RunResult(run=run, verdict=verdict, began=began, **given)


async def record(history: History, *results: RunResult) -> UnitRecord:
    """Begin and finish these runs; the record of unit shop afterwards."""
    for each in results:
        await history.begin(each.run, each.unit, "schedule", each.began, each.began)
        await history.finish(each, trigger="schedule", due=each.began, data_at=each.began)
    return (await history.units())["shop"]


async def test_run_comes_back_as_it_was_reported(history):
    """The line, the phases and the whole result."""
    done = result()
    await record(history, done)
    detail = await history.run("r1")
    assert detail is not None
    assert detail.result == done
    assert detail.phases == (PhaseRow("check", NOON, 1.0), PhaseRow("stop", NOON, 2.5))
    (row,) = await history.runs()
    assert row == detail.row
    assert (row.verdict, row.window, row.size, row.files) == ("success", 2.5, 1000, 10)
    assert (row.trigger, row.due, row.data_at) == ("schedule", NOON, NOON)
    assert (row.phase, row.seconds) == ("stop", 70.0)


async def test_record_of_a_unit_adds_its_runs_up(history):
    """Newest success, newest run, failures since, totals."""
    known = await record(
        history, result("r1"), result("r2", "partial", hour=1), result("r3", "failed", hour=2)
    )
    assert known.last_success == NOON
    assert known.last_run == last_run(result("r3", "failed", hour=2), "schedule")
    assert known.last_run is not None
    assert known.last_run.phases == {"check": 1.0, "stop": 2.5}
    assert (known.last_run.fatal, known.last_run.ignored) == (1, 2)
    assert (known.last_run.expected, known.last_run.stored) == (2, 1)
    assert known.consecutive_failures == 2
    assert known.totals == Totals(runs=3, failures=2, downtime=7.5)
    assert (known.first_seen, known.served, known.running) == (NOON, NOON + 2 * HOUR, "")
    again = await record(history, result("r4", hour=3))
    assert (again.consecutive_failures, again.last_success) == (0, NOON + 3 * HOUR)


async def test_open_run_shows_where_it_is(history):
    """And what it has gone through, with lengths as far as they are known."""
    await history.begin("r1", "shop", "retry", None, NOON)
    assert await history.phase("r1", "check", NOON)
    assert await history.phase("r1", "stop", NOON + timedelta(seconds=1.5))
    known = (await history.units())["shop"]
    assert (known.running, known.running_since, known.running_phase) == ("r1", NOON, "stop")
    assert (known.last_run, known.served, known.totals) == (None, None, Totals())
    detail = await history.run("r1")
    assert detail is not None
    assert [(p.phase, p.seconds) for p in detail.phases] == [("check", 1.5), ("stop", None)]
    assert (detail.row.verdict, detail.row.ended, detail.result) == ("running", None, None)


async def test_phase_of_a_run_that_is_not_open_is_not_recorded(history):
    """Its begin could not be written, or it has ended."""
    assert not await history.phase("r1", "check", NOON)
    await record(history, result())
    assert not await history.phase("r1", "check", NOON)
    detail = await history.run("r1")
    assert detail is not None
    assert [phase.phase for phase in detail.phases] == ["check", "stop"]


async def test_whatever_is_written_again_counts_once(history):
    """Who is not sure whether the disk took it may repeat it."""
    for _ in range(2):
        known = await record(history, result("r1"), result("r2", "failed", hour=1))
    assert known.totals == Totals(runs=2, failures=1, downtime=5.0)
    assert known.consecutive_failures == 1
    assert len(await history.runs()) == 2


async def test_finish_without_a_begin_is_recorded_all_the_same(history):
    """The disk was full when it began."""
    await history.finish(result(), trigger="catch-up", due=NOON, data_at=None)
    known = (await history.units())["shop"]
    assert (known.last_success, known.served, known.totals.runs) == (NOON, NOON, 1)


async def test_data_time_is_kept_of_successes_only(history):
    """What fell short is no data to speak of."""
    await history.finish(result("r1", "partial"), trigger="command", due=None, data_at=NOON)
    (row,) = await history.runs()
    assert row.data_at is None
    assert (await history.units())["shop"].last_success is None


async def test_newest_success_is_the_one_recorded_last(history):
    """A clock that ran ahead once does not hide what comes after."""
    known = await record(history, result("ahead", hour=10_000), result("now", hour=1))
    assert known.last_success == NOON + HOUR
    assert known.last_run is not None
    assert known.last_run.run == "now"


async def test_skipped_run_is_no_run_of_its_unit(history):
    """It is on record, and counts nowhere."""
    skipped = result("r2", "skipped", hour=1, reason="busy", window=0.0)
    known = await record(history, result("r1"), skipped)
    assert known.totals == Totals(runs=1, failures=0, downtime=2.5)
    assert (known.consecutive_failures, known.last_run and known.last_run.run) == (0, "r1")
    assert [row.verdict for row in await history.runs()] == ["success", "skipped"]
    assert await history.runs(failed=True) == ()


async def test_skipped_run_of_an_unknown_unit_makes_no_unit(history):
    """Its containers may be gone for good."""
    await history.finish(result("r1", "skipped"), trigger="command", due=None, data_at=None)
    assert await history.units() == {}
    assert await history.names() == ("shop",)


async def test_run_that_turns_out_skipped_leaves_no_gap(history):
    """Interrupted, thought dead, and yet reported."""
    await history.begin("r1", "shop", "command", None, NOON)
    await history.interrupted(())
    await record(history, result("r2", "failed", hour=1))
    skipped = result("r1", "skipped")
    await history.finish(skipped, trigger="command", due=None, data_at=None)
    known = (await history.units())["shop"]
    assert (known.totals.runs, known.consecutive_failures) == (1, 1)


async def test_interrupted_runs_are_failures_with_a_last_sign_of_life(history):
    """Those that live are left alone."""
    await history.begin("dead", "shop", "schedule", NOON, NOON)
    await history.phase("dead", "read", NOON + timedelta(seconds=5))
    await history.begin("alive", "zoo", "schedule", NOON, NOON)
    assert await history.interrupted({"alive"}) == ("dead",)
    assert await history.interrupted({"alive"}) == ()
    known = await history.units()
    assert known["shop"].last_run == LastRun(
        run="dead",
        verdict="failed",
        began=NOON,
        ended=NOON + timedelta(seconds=5),
        reason="interrupted",
        message="its process ended in phase read without a verdict; it was last heard of at "
        "2026-01-02 12:00:05Z",
        trigger="schedule",
    )
    assert (known["shop"].consecutive_failures, known["shop"].running) == (1, "")
    assert known["zoo"].running == "alive"


async def test_unit_is_first_seen_once_and_last_seen_again(history):
    """What its labels said is there when its containers are not."""
    shop = UnitSeen("shop", "compose", "@daily", "Europe/Berlin", "pause", "26h")
    await history.seen((shop,), NOON)
    await history.seen((shop,), NOON + HOUR)
    assert await history.units() == {
        "shop": UnitRecord(
            unit="shop",
            first_seen=NOON,
            last_seen=NOON + HOUR,
            kind="compose",
            schedule="@daily",
            timezone="Europe/Berlin",
            mode="pause",
            max_age="26h",
        )
    }
    changed = msgspec.structs.replace(shop, schedule="off")
    await history.seen((changed,), NOON + HOUR + timedelta(seconds=1))
    assert (await history.units())["shop"].schedule == "off"


async def test_unchanged_units_are_not_written_every_time(history, tmp_path):
    """Once in five minutes, and when the clock was set back."""
    other = await History.read_only(tmp_path)
    shop = UnitSeen("shop")
    await history.seen((shop,), NOON)
    before = await other.version()
    await history.seen((shop,), NOON + timedelta(minutes=4))
    assert await other.version() == before
    assert (await history.units())["shop"].last_seen == NOON
    await history.seen((shop,), NOON + timedelta(minutes=5))
    assert await other.version() != before
    await history.seen((shop,), NOON - 5 * HOUR)
    assert (await other.units())["shop"].last_seen == NOON - 5 * HOUR
    await other.close()


async def test_unit_that_vanishes_and_comes_back_keeps_everything(history):
    """Since when it is gone is when that was first noticed."""
    await record(history, result())
    await history.seen((UnitSeen("shop"),), NOON)
    await history.gone(("shop", "unknown"), NOON + HOUR)
    await history.gone(("shop",), NOON + 2 * HOUR)
    assert (await history.units())["shop"].gone_since == NOON + HOUR
    await history.seen((UnitSeen("shop"),), NOON + 2 * HOUR)
    back = (await history.units())["shop"]
    assert (back.gone_since, back.first_seen, back.totals.runs) == (None, NOON, 1)
    assert set(await history.units()) == {"shop"}


async def test_forgotten_unit_that_is_seen_again_begins_anew(history):
    """No run, no success, no due time of its former life; they stay on record."""
    await record(history, result("r1"), result("r2", "failed", hour=1))
    await history.gone(("shop",), NOON + HOUR)
    assert await history.forget("shop", NOON + 2 * HOUR)
    assert not await history.forget("shop", NOON + 2 * HOUR)
    assert not await history.forget("unknown", NOON)
    assert await history.units() == {}
    await history.seen((UnitSeen("shop"),), NOON + 3 * HOUR)
    fresh = UnitRecord("shop", first_seen=NOON + 3 * HOUR, last_seen=NOON + 3 * HOUR)
    assert (await history.units())["shop"] == fresh
    known = await record(history, result("r3", "failed", hour=4))
    assert (known.totals.runs, known.consecutive_failures, known.last_success) == (1, 1, None)
    assert [row.run for row in await history.runs()] == ["r1", "r2", "r3"]


async def test_run_of_a_forgotten_unit_brings_it_back(history):
    """Nobody backs up what is not there."""
    await history.seen((UnitSeen("shop"),), NOON)
    await history.forget("shop", NOON)
    await history.begin("r1", "shop", "command", None, NOON + HOUR)
    assert (await history.units())["shop"].first_seen == NOON + HOUR


async def test_run_that_ends_after_its_unit_was_forgotten_belongs_to_the_old_life(history):
    """It is on record, and the unit stays forgotten."""
    await history.begin("r1", "shop", "command", None, NOON)
    await history.forget("shop", NOON)
    await history.finish(result(), trigger="command", due=None, data_at=NOON)
    assert await history.units() == {}
    await history.seen((UnitSeen("shop"),), NOON + HOUR)
    assert (await history.units())["shop"].last_success is None


async def test_skipped_due_time_is_served_and_shown(history):
    """With its reason, at the time when it was decided; served never moves back."""
    await history.seen((UnitSeen("shop"),), NOON)
    await history.skip("shop", NOON, "docker-away", NOON + HOUR)
    await history.skip("shop", NOON, "docker-away", NOON + HOUR)
    await history.skip("shop", NOON - HOUR, "busy", NOON + 2 * HOUR)
    assert (await history.units())["shop"].served == NOON
    await history.served("shop", NOON + 9 * HOUR)
    assert (await history.units())["shop"].served == NOON + 9 * HOUR
    rows = await history.runs()
    assert [(r.run, r.verdict, r.reason, r.due, r.began) for r in rows] == [
        ("", "skipped", "docker-away", NOON, NOON + HOUR),
        ("", "skipped", "busy", NOON - HOUR, NOON + 2 * HOUR),
    ]


async def test_runs_are_chosen_by_unit_verdict_time_and_number(history):
    """The newest of those that fit, the oldest of them first."""
    zoo = result("z1", "failed", hour=2, unit="zoo")
    await record(
        history, result("r0"), result("r1", "failed", hour=1), zoo, result("r3", "partial", hour=3)
    )
    await history.skip("shop", NOON, "busy", NOON + 4 * HOUR)

    async def chosen(**how: object) -> list[str]:
        return [row.run for row in await history.runs(**how)]

    assert await chosen() == ["r0", "r1", "z1", "r3", ""]
    assert await chosen(last=2) == ["r3", ""]
    assert await chosen(unit="zoo") == ["z1"]
    assert await chosen(failed=True) == ["r1", "z1", "r3"]
    assert await chosen(failed=True, unit="shop", last=1) == ["r3"]
    assert await chosen(since=NOON + HOUR) == ["r1", "z1", "r3", ""]
    assert await chosen(since=NOON + 5 * HOUR) == []
    assert await history.run("nope") is None


async def test_stats_tell_rates_windows_and_lengths(history):
    """Windows of runs that had one, lengths of runs that came to an end."""
    await history.begin("dead", "shop", "command", None, NOON)
    await history.interrupted(())
    await record(
        history,
        result("r1", hour=1, window=2.0),
        result("r2", "failed", hour=2, window=0.0, ended=NOON + 3 * HOUR),
        result("r3", hour=3, window=4.0, sources=(SourceResult("recipe", 7, 1),)),
        result("r4", "skipped", hour=4),
        result("z1", unit="zoo", hour=5, window=0.0),
    )
    shop, zoo = await history.stats()
    assert (shop.unit, shop.runs, shop.failures, shop.success_rate) == ("shop", 4, 2, 0.5)
    assert (shop.window_mean, shop.window_max, shop.size) == (3.0, 4.0, 7)
    assert (shop.seconds_mean, shop.seconds_max) == ((70 + 3600 + 70) / 3, 3600.0)
    assert (zoo.window_mean, zoo.success_rate) == (None, 1.0)
    assert [s.unit for s in await history.stats(unit="zoo")] == ["zoo"]
    (late,) = await history.stats(unit="shop", since=NOON + 3 * HOUR)
    assert (late.runs, late.failures) == (1, 0)


async def test_version_changes_when_somebody_else_writes(history, tmp_path):
    """And not by what one reads or writes oneself."""
    other = await History.read_only(tmp_path)
    mine, theirs = await history.version(), await other.version()
    await record(history, result())
    assert await history.version() == mine
    assert await other.version() != theirs
    assert await other.version() == await other.version()
    await other.close()


async def test_missing_history_reads_as_empty_and_is_not_made(tmp_path):
    """Commands that only read create nothing."""
    async with await History.read_only(tmp_path) as history:
        assert await history.units() == {}
        assert await history.runs() == ()
        assert await history.run("r1") is None
        assert (await history.stats(), await history.names(), await history.version()) == (
            (),
            (),
            0,
        )
        with pytest.raises(HistoryError, match="not open for writing"):
            await history.served("shop", NOON)
    assert list(tmp_path.iterdir()) == []


async def test_who_only_reads_cannot_write(history, tmp_path):
    """SQLite itself refuses it."""
    async with await History.read_only(tmp_path) as other:
        with pytest.raises(HistoryError, match="readonly"):
            await other.begin("r1", "shop", "command", None, NOON)


async def test_closed_history_is_not_an_empty_one(history):
    """Closing twice is good, asking is not."""
    await history.close()
    await history.close()
    with pytest.raises(HistoryError, match="closed"):
        await history.units()
    with pytest.raises(HistoryError, match="not open"):
        await history.served("shop", NOON)


async def test_writes_survive_cancellation(history, tmp_path):
    """A signal does not lose a verdict that waits for another write to end."""

    async def finish(run: str) -> None:
        await history.finish(result(run), trigger="command", due=None, data_at=NOON)

    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(finish, f"r{number}")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            other.execute("ROLLBACK")
    assert len(await history.runs()) == 3


async def test_texts_that_no_encoding_can_say_are_kept_in_other_words(history):
    """A file name may hold any bytes; the record of its run must not fail for that."""
    odd = result(
        message="\udcff\0x", tail="\udcff", sources=(SourceResult("volumes/\udcff", 1, 1),)
    )
    await record(history, odd)
    detail = await history.run("r1")
    assert detail is not None
    assert detail.result is not None
    assert detail.row.message == "\\udcff\0x"
    assert detail.result.sources[0].path == "volumes/\\udcff"


async def test_times_of_other_zones_come_back_in_utc(history):
    """The same moment."""
    east = NOON.astimezone(datetime.fromisoformat("2026-01-01T00:00+05:30").tzinfo)
    await history.begin("r1", "shop", "command", east, east)
    (row,) = await history.runs()
    assert (row.began.isoformat(), row.due) == ("2026-01-02T12:00:00+00:00", NOON)


times = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(0, 2**50)
lengths = st.floats(0, 1e9)
texts = st.text(max_size=20)
results = st.builds(
    RunResult,
    run=st.text(min_size=1, max_size=20),
    unit=texts,
    verdict=st.sampled_from(["success", "partial", "failed", "skipped"]),
    began=times,
    ended=times,
    reason=texts,
    message=texts,
    hint=texts,
    tail=texts,
    snapshot=texts,
    window=lengths,
    phases=st.lists(
        st.builds(PhaseTime, st.sampled_from(Phase.__args__), times, lengths), max_size=4
    ).map(tuple),
    sources=st.lists(
        st.builds(SourceResult, texts, counts, counts, counts, counts, texts), max_size=4
    ).map(tuple),
    members=st.lists(
        st.builds(
            MemberResult,
            texts,
            st.sampled_from(["started", "gone", "failed"]),
            st.none() | st.booleans(),
            texts,
        ),
        max_size=3,
    ).map(tuple),
    warnings=st.lists(texts, max_size=3).map(tuple),
    exit_code=st.integers(0, 255),
    data_at=st.none() | times,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(done=results)
async def test_every_result_comes_back_whole(history, done):
    """Whatever it holds."""
    await history.finish(done, trigger="command", due=None, data_at=done.data_at)
    detail = await history.run(done.run)
    assert detail is not None
    assert detail.result == done
    assert (detail.row.began, detail.row.ended) == (done.began, done.ended)
    assert (detail.row.window, detail.row.size, detail.row.files) == (
        done.window,
        done.size,
        done.files,
    )
    assert [(p.phase, p.began, p.seconds) for p in detail.phases] == [
        (p.phase, p.began, p.seconds) for p in done.phases
    ]


plans = st.lists(
    st.tuples(
        st.sampled_from(["shop", "zoo"]), st.sampled_from(["success", "failed", "skipped", "dead"])
    ),
    max_size=12,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=plans)
async def test_records_agree_with_counting_by_hand(tmp_path_factory, plan):
    """Sums, newest success and failures since, whatever the order of runs."""
    opened = await History.open(tmp_path_factory.mktemp("history"), clock=CLOCK)
    async with opened.history as history:
        for hour, (unit, verdict) in enumerate(plan):
            run = f"r{hour}"
            if verdict == "dead":
                await history.begin(run, unit, "schedule", None, NOON + hour * HOUR)
                await history.interrupted(())
            else:
                done = result(run, verdict, hour=hour, unit=unit, window=1.0)
                await history.finish(done, trigger="schedule", due=None, data_at=done.began)
        known = await history.units()
    for unit in ("shop", "zoo"):
        mine = [(h, v) for h, (u, v) in enumerate(plan) if u == unit and v != "skipped"]
        if not mine:
            assert unit not in known
            continue
        good = [h for h, v in mine if v == "success"]
        found = known[unit]
        assert found.last_success == (NOON + good[-1] * HOUR if good else None)
        assert found.consecutive_failures == sum(h > (good[-1] if good else -1) for h, _ in mine)
        assert (found.totals.runs, found.totals.failures) == (len(mine), len(mine) - len(good))
        assert found.last_run is not None
        assert found.last_run.run == f"r{mine[-1][0]}"
