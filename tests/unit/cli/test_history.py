"""``kopiwatch history`` on a history of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import pytest
from click.testing import CliRunner, Result

from kopiwatch.backup.result import MemberResult, PhaseTime, RunResult, SourceResult
from kopiwatch.cli.history import read_since
from kopiwatch.cli.main import main
from kopiwatch.clock import Clock
from kopiwatch.errors import UsageError
from kopiwatch.kopia.record import BAD_PIN
from kopiwatch.report.history import History
from kopiwatch.testing.kopia_fake import FakeKopia, Rule

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """A state folder with a history, and an environment without Docker."""
    folder = tmp_path / "state"
    (tmp_path / "disk").mkdir()
    kopia = FakeKopia(tmp_path / "fake")
    monkeypatch.setenv("KOPIWATCH_STATE_DIR", str(folder))
    monkeypatch.setenv("KOPIWATCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KOPIWATCH_REPOSITORY", f"filesystem:{tmp_path}/disk")
    monkeypatch.setenv("KOPIWATCH_PASSWORD", SECRET)
    monkeypatch.setenv("KOPIWATCH_HOSTNAME", "harbour")
    monkeypatch.setenv("KOPIWATCH_KOPIA", str(kopia.path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    return folder


def result(run: str, verdict: str = "success", *, hour: int = 0, unit: str = "shop") -> RunResult:
    began = NOON + hour * HOUR
    good = verdict == "success"
    return RunResult(
        run,
        unit,
        verdict,
        began,
        began + timedelta(seconds=70),
        reason="" if good else "health",
        message="" if good else "runs again, but is not healthy: web",
        hint="" if good else "look at its log",
        tail="" if good else "the last line",
        snapshot="k1",
        window=2.5,
        phases=(PhaseTime("check", began, 0.25), PhaseTime("stop", began, 2.5)),
        sources=(SourceResult("volumes/db", 2048, 7),),
        members=(MemberResult("web", "started", good),),
        warnings=("nobody watches /srv",),
    )


def fill(folder: Path, *results: RunResult, begun: str = "") -> None:
    async def work() -> None:
        opened = await History.open(folder, clock=Clock(now=lambda: NOON))
        async with opened.history as history:
            for each in results:
                await history.finish(each, trigger="schedule", due=each.began, data_at=each.began)
            if begun:
                await history.begin(begun, "shop", "command", None, NOON + 9 * HOUR)

    folder.mkdir(exist_ok=True)
    anyio.run(work)


def call(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["history", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    assert SECRET not in done.output
    return done


def lines(done: Result) -> list[list[str]]:
    return [line.split() for line in done.stdout.splitlines()]


def test_table_tells_each_run_on_a_line(state):
    """The newest last; what went wrong stands at the end."""
    fill(state, result("r1"), result("r2", "failed", hour=1))
    title, first, second = call().stdout.splitlines()
    assert title.split() == [
        *("TIME", "UNIT", "RUN", "VERDICT", "TRIGGER", "WINDOW", "TOOK", "FILES", "SIZE", "WHY")
    ]
    assert first.split() == [
        *("2026-01-02", "12:00:00Z", "shop", "r1", "success", "schedule"),
        *("2.5", "s", "70.0", "s", "7", "2.0", "KiB"),
    ]
    assert second.endswith("health: runs again, but is not healthy: web")


def test_options_choose_the_runs(state):
    """Unit, verdict, number and time."""
    zoo = result("z1", hour=2, unit="zoo")
    fill(state, result("r1"), result("r2", "failed", hour=1), zoo)

    def runs(*arguments: str) -> list[str]:
        return [row["run"] for row in json.loads(call(*arguments, "--json").stdout)["runs"]]

    assert runs() == ["r1", "r2", "z1"]
    assert runs("--unit", "zoo") == ["z1"]
    assert runs("--failed") == ["r2"]
    assert runs("--last", "1") == ["z1"]
    assert runs("--since", "2026-01-02T13:00Z") == ["r2", "z1"]
    assert runs("--since", "1s") == []


def test_table_shows_twenty_runs_or_all_since_a_time(state):
    """Whoever names a time wants all of it."""
    fill(state, *(result(f"r{number}", hour=number) for number in range(25)))
    assert len(json.loads(call("--json").stdout)["runs"]) == 20
    assert len(json.loads(call("--json", "--since", "2026-01-01").stdout)["runs"]) == 25


def test_window_of_a_run_is_told_by_its_phases(state):
    """So that a user sees where the downtime went; what was before or after it does not count."""
    began = NOON
    told = {"check": 3.0, "stop": 0.5, "read": 1.25, "start": 0.25, "health": 0.4, "verify": 2.0}
    phases = tuple(PhaseTime(name, began, length) for name, length in told.items())
    fill(state, msgspec.structs.replace(result("r1"), phases=phases))
    assert (
        "window: 2.5 s (stop 500 ms, read 1.2 s, start 250 ms, health 400 ms, between them 100 ms)"
        in call("r1").stdout
    )


def test_one_run_is_told_in_full(state):
    """Phases, sources, members, what to do, what the program said last."""
    fill(state, result("r1", "failed"))
    text = call("r1").stdout
    for words in (
        "run r1 of unit shop: failed",
        "why: health: runs again, but is not healthy: web",
        "hint: look at its log",
        "began: 2026-01-02 12:00:00Z",
        "ended: 2026-01-02 12:01:10Z, after 70.0 s",
        "window: 2.5 s",
        "warning: nobody watches /srv",
        "| the last line",
    ):
        assert words in text
    table = [line.split() for line in text.splitlines()]
    assert ["stop", "2026-01-02", "12:00:00Z", "2.5", "s"] in table
    assert ["volumes/db", "7", "2.0", "KiB", "0", "0"] in table
    assert ["web", "started", "NOT", "HEALTHY"] in table
    document = json.loads(call("r1", "--json").stdout)["run"]
    assert document["row"]["verdict"] == "failed"
    assert document["result"]["members"] == [
        {"name": "web", "state": "started", "healthy": False, "detail": ""}
    ]


@pytest.mark.parametrize(
    ("run", "hint"),
    [
        ("20260102T120000Z-ffffff", "did you mean '20260102T120000Z-fffff0'?"),
        ("fffff0", "did you mean '20260102T120000Z-fffff0'?"),
        ("shop", "that is a unit: `kopiwatch history --unit shop`"),
        ("?", "`kopiwatch history` lists them"),
    ],
)
def test_unknown_run_is_an_error_with_the_nearest(state, run, hint):
    """Exit code 2."""
    fill(state, result("20260102T120000Z-fffff0"))
    assert f"hint: {hint}" in call(run, code=2).stderr


def test_unknown_unit_is_an_error_with_the_nearest(state):
    """As everywhere; with --json a document."""
    fill(state, result("r1"))
    assert "did you mean 'shop'? units: shop" in call("--unit", "shpo", code=2).stderr
    error = json.loads(call("--unit", "shpo", "--json", code=2).stdout)
    assert error["error"] == "unknown-unit"


@pytest.mark.parametrize(
    "options",
    [
        ("--rebuild", "r1"),
        ("--rebuild", "--failed"),
        ("r1", "--last", "3"),
        ("r1", "--stats"),
        ("--stats", "--failed"),
        ("--since", "yesterday"),
        ("--since", "7"),
        ("--last", "0"),
    ],
)
def test_options_that_make_no_sense_are_refused(state, options):
    """Instead of being ignored."""
    call(*options, code=2)


def test_stats_are_a_line_per_unit(state):
    """Shares are never rounded up to all is well."""
    zoo = (result(f"z{n}", "failed" if n == 7 else "success", unit="zoo") for n in range(30))
    fill(state, result("r1"), *zoo)
    _, shop, zoo_line = lines(call("--stats"))
    assert shop[:4] == ["shop", "1", "0", "100.0"]
    assert zoo_line[:4] == ["zoo", "30", "1", "96.6"]
    (document,) = json.loads(call("--stats", "--unit", "shop", "--json").stdout)["stats"]
    assert (document["runs"], document["window_max"], document["size"]) == (1, 2.5, 2048)


def test_no_history_yet_is_said_and_none_is_made(state):
    """Reading creates nothing, not even the folder."""
    done = call()
    assert done.stdout == ""
    assert "there is no run on record yet" in done.stderr
    assert json.loads(call("--json").stdout) == {"runs": []}
    assert not state.exists()


def test_no_run_that_fits_is_no_empty_history(state):
    """The words differ."""
    fill(state, result("r1"))
    assert "no run fits" in call("--failed").stderr


def test_run_whose_process_died_is_said_to_be_dead(state):
    """Nobody holds the run lock."""
    fill(state, begun="r9")
    done = call()
    assert "running" in done.stdout
    assert "the process of r9 died" in done.stderr


def test_damaged_history_is_an_error_that_names_the_way_out(state):
    """Never an empty table."""
    fill(state, result("r1"))
    (state / "history.db").write_bytes(b"garbage" * 1000)
    assert "--rebuild" in call(code=1).stderr
    assert json.loads(call("--json", code=1).stdout)["error"] == "history-damaged"


def snapshot(hour: int, run: str, *, host: str = "harbour", pins: tuple[str, ...] = ()) -> dict:
    at = (NOON + hour * HOUR).isoformat()
    summary = {"size": 2048, "files": 7, "numFailed": 0}
    return {
        "id": f"k{hour}",
        "source": {"host": host, "userName": "kopiwatch", "path": "/mnt/shop"},
        "startTime": at,
        "endTime": at,
        "rootEntry": {"name": "", "type": "d", "obj": "kx", "summ": summary},
        "tags": {"tag:kopiwatch-run": run},
        "pins": list(pins),
    }


def stored(tmp_path: Path, *snapshots: dict) -> None:
    """A repository that is connected and holds these snapshots."""
    kopia = FakeKopia(tmp_path / "fake")
    done = CliRunner().invoke(main, ["repo", "create"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    kopia.tell(Rule(match="snapshot list", stdout=json.dumps(snapshots)))


def test_rebuild_adds_what_the_repository_knows(state, tmp_path):
    """Without Docker; and says what it did."""
    stored(
        tmp_path,
        snapshot(1, "r1"),
        snapshot(2, "r2", pins=(f"{BAD_PIN}start",)),
        snapshot(3, "x", host="elsewhere"),
    )
    done = call("--rebuild")
    assert done.stdout.splitlines() == [
        "2 runs added from the repository, 0 completed, 0 known already",
        "units that were not known before: shop",
    ]
    _, first, second = lines(call())
    assert first[2:6] == ["shop", "r1", "success", "rebuilt"]
    assert second[2:6] == ["shop", "r2", "failed", "rebuilt"]
    document = json.loads(call("--rebuild", "--json").stdout)
    assert document["rebuilt"]["known"] == 2
    assert (document["fresh"], document["set_aside"]) == (False, None)


def test_rebuild_sets_a_damaged_history_aside(state, tmp_path):
    """And says where it is."""
    stored(tmp_path, snapshot(1, "r1"))
    (state / "history.db").write_bytes(b"garbage")
    done = call("--rebuild")
    (aside,) = state.glob("history.db.corrupt-*")
    assert f"it is set aside as {aside}" in done.stderr
    assert aside.read_bytes() == b"garbage"
    assert "r1" in call().stdout


def test_rebuild_says_when_all_points_are_of_other_hosts(state, tmp_path):
    """The usual reason is a name that changed."""
    stored(tmp_path, snapshot(1, "r1", host="elsewhere"))
    assert "host elsewhere, instance default" in call("--rebuild").stderr


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", NOON - timedelta(days=7)),
        ("90s", NOON - timedelta(seconds=90)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_a_length_of_time(text, moment):
    """Without a zone it is UTC."""
    assert read_since(text, NOON) == moment


@pytest.mark.parametrize(
    "text", ["", "x", "7", "-7d", "2026-13-01", "36500d", "0001-01-01T00:00+14:00"]
)
def test_since_that_is_neither_is_refused(text):
    """Also what no calendar holds."""
    with pytest.raises(UsageError, match="neither"):
        read_since(text, datetime(50, 1, 1, tzinfo=UTC))
