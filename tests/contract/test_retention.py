"""Retention is Kopia's own, on the same histories: what the real program says is what we say.

``kopia snapshot list --json`` tells why it would keep each snapshot of a source by the source's
policy. Many sources share one repository and few launches: each launch makes a snapshot of many.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import msgspec
import pytest
from support.kopia import find_kopia

from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.retention import fates
from kopiwatch.units.retention import Retention

pytestmark = pytest.mark.timeout(180)

USER = "kopiwatch@harbour"
LATER = datetime(2030, 1, 1, tzinfo=UTC)
NONE = Retention(0, 0, 0, 0, 0, 0)
KEYS = {name: f"keep{name.title()}" for name in NONE.numbers}


class Real:
    """A repository with many sources, driven by few launches of the real Kopia."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.launches = 0
        (folder / "disk").mkdir()
        self.call(
            *("repository", "create", "filesystem", f"--path={folder}/disk"),
            *("--override-username=kopiwatch", "--override-hostname=harbour"),
            "--format-block-key-derivation-algorithm=pbkdf2-sha256-600000",
        )

    def call(self, *arguments: str, stdin: str = "", zone: str = "UTC") -> str:
        self.launches += 1
        common = [
            *(f"--config-file={self.folder}/config", f"--log-dir={self.folder}/logs"),
            *("--no-auto-maintenance", "--log-level=error"),
        ]
        done = subprocess.run(
            [find_kopia(), *common, *arguments],
            input=stdin,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "TZ": zone,
                "KOPIA_PASSWORD": "x",
                "KOPIA_CHECK_FOR_UPDATES": "false",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def source(self, name: str) -> str:
        path = self.folder / "mnt" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "f").write_text(name)
        return str(path)

    def snapshot(self, at: datetime, names, *more: str) -> None:
        start, end = (f"{t:%Y-%m-%d %H:%M:%S} UTC" for t in (at, at + timedelta(seconds=1)))
        sources = [self.source(name) for name in names]
        override = [f"--start-time={start}", f"--end-time={end}"]
        self.call("snapshot", "create", *sources, *override, "--tags=kopiwatch-run:r", *more)

    def keep_all(self) -> None:
        """As the product does: Kopia itself never prunes."""
        self.rules({"": NONE})

    def rules(self, rules) -> None:
        policies = {
            f"{USER}:{self.source(name)}" if name else USER: {
                "noParent": True,
                "retention": {KEYS[key]: number for key, number in rule.numbers.items()},
            }
            for name, rule in rules.items()
        }
        self.call("policy", "import", stdin=json.dumps(policies))

    def kept(self, zone: str = "UTC") -> dict[str, list[tuple[Snapshot, tuple[str, ...]]]]:
        """By source, oldest first: each snapshot, and why Kopia would keep it."""
        found = {}
        for row in json.loads(self.call("snapshot", "list", "--json", zone=zone)):
            name = row["source"]["path"].rpartition("/")[2]
            why = tuple(row.get("retentionReason", ()))
            found.setdefault(name, []).append((msgspec.convert(row, Snapshot), why))
        return found


@pytest.fixture
def real(tmp_path):
    made = Real(tmp_path)
    made.keep_all()
    return made


def ours(rows, rule, zone=UTC, shift=timedelta(0)):
    """Our reasons for the same rows, but for the one that Kopia does not know."""
    moved = [
        msgspec.structs.replace(s, start_time=s.start_time + shift, end_time=s.end_time + shift)
        for s, _ in rows
    ]
    told = fates(moved, rule, zone=zone, now=LATER)
    by_id = {f.snapshot.id: tuple(k for k in f.kept if k != "last-good") for f in told}
    return [by_id[snapshot.id] for snapshot, _ in rows]


def spans(rng: random.Random, newest: datetime, number: int) -> list[datetime]:
    """Times before ``newest``: most of them close together, some years apart, some at edges."""
    times = {newest}
    hours = (1, 24, 24 * 30, 24 * 400, 24 * 366 * 5)
    while len(times) < number:
        back = timedelta(hours=rng.choice(hours)) * rng.random()
        at = (newest - back).replace(microsecond=0)
        edge = rng.choice((None, None, "day", "month", "year"))
        if edge is not None:
            at = at.replace(hour=0, minute=0, second=0)
            at = at.replace(day=1) if edge != "day" else at
            at = at.replace(month=1) if edge == "year" else at
            at -= timedelta(seconds=rng.choice((0, 1)))
        times.add(at)
    return sorted(times)


def rule_of(rng: random.Random, *, weeks_or_months: bool) -> Retention:
    """Numbers from 0 on, at least one of them larger; not both of weeks and months if told so."""
    while True:
        numbers = {name: rng.choice((0, 0, 1, 2, 3, 5, 24, 48)) for name in NONE.numbers}
        if weeks_or_months:
            numbers[rng.choice(("weekly", "monthly"))] = 0
        rule = Retention(**numbers)
        if not rule.empty:
            return rule


def test_same_history_is_kept_for_the_same_reasons(real):
    """30 histories of up to 35 snapshots, each with a policy of its own, 45 launches."""
    rng = random.Random(20261124)
    times = spans(rng, datetime(2026, 3, 31, 22, 30, tzinfo=UTC), 36)
    rules = {f"s{n:02}": rule_of(rng, weeks_or_months=True) for n in range(28)}
    rules |= {"defaults": msgspec.structs.replace(Retention(), monthly=0), "last": NONE}
    rules["last"] = msgspec.structs.replace(NONE, latest=2)
    for at in times:
        chosen = [name for name in rules if rng.random() < 0.7]
        if chosen:
            real.snapshot(at, chosen)
    big = real.folder / "mnt" / "s00" / "big"
    big.write_bytes(rng.randbytes(1_500_000))
    late = times[-1] + timedelta(minutes=1)
    real.snapshot(late, ["s00"], "--upload-limit-mb=1")
    real.rules(rules)
    found = real.kept()
    assert set(found) == set(rules)
    lost = [snapshot for snapshot, _ in found["s00"] if snapshot.incomplete]
    assert [snapshot.start_time for snapshot in lost] == [late], "one that Kopia does not count"
    for name, rule in rules.items():
        rows = [row for row in found[name] if not row[0].incomplete]
        assert ours(rows, rule) == [why for _, why in rows], f"{name}: {rule}"
    reasons = {why for rows in found.values() for _, kept in rows for why in kept}
    assert {why.partition("-")[0] for why in reasons} >= set(NONE.numbers)
    assert any(not why for rows in found.values() for _, why in rows), "something goes"
    assert real.launches <= 45


def test_default_numbers_are_kopias_own(real):
    """Its defaults, on histories in which weeks and months cannot be confused."""
    rng = random.Random(7)
    times = spans(rng, datetime(2026, 12, 20, 9, tzinfo=UTC), 24)
    times = [at for at in times if at.isocalendar().week > 12 and at.year == 2026]
    for at in times:
        real.snapshot(at, ["defaults", "given"])
    shown = json.loads(real.call("policy", "show", "(global)", "--json"))["retention"]
    assert {name: shown[key] for name, key in KEYS.items()} == Retention().numbers
    real.rules({"defaults": Retention(), "given": Retention(1, 3, 2, 9, 9, 1)})
    found = real.kept()
    for name, rule in (("defaults", Retention()), ("given", Retention(1, 3, 2, 9, 9, 1))):
        assert ours(found[name], rule) == [why for _, why in found[name]]


EDGES = [
    *("2026-01-01 12:00", "2026-01-04 20:30", "2026-01-04 23:30", "2026-01-05 00:30"),
    *("2026-01-05 22:30", "2026-01-14 12:00", "2026-01-20 12:00"),
]


def test_kopia_counts_days_in_utc_and_weeks_where_its_process_is(real):
    """The fact that makes us count in one zone, the unit's; told with the zone moved into UTC."""
    times = [datetime.fromisoformat(f"{text}:00+00:00") for text in EDGES]
    days, weeks = Retention(0, 0, 30, 0, 0, 0), Retention(0, 0, 0, 30, 0, 0)
    for at in times:
        real.snapshot(at, ["days", "weeks"])
    real.rules({"days": days, "weeks": weeks})
    here, there = real.kept(), real.kept("Asia/Kolkata")
    assert here["days"] == there["days"], "days are UTC's"
    assert here["weeks"] != there["weeks"], "weeks are not"
    kolkata = ZoneInfo("Asia/Kolkata")
    assert ours(there["weeks"], weeks, kolkata) == [why for _, why in there["weeks"]]
    zone = timezone(timedelta(hours=5, minutes=30))
    back = -timedelta(hours=5, minutes=30)
    for name, rule in (("days", days), ("weeks", weeks)):
        assert ours(here[name], rule, zone, back) == [why for _, why in here[name]]


@pytest.mark.parametrize(
    ("rule", "days"),
    [
        (msgspec.structs.replace(NONE, monthly=3), ("2026-03-02", "2026-04-30", "2026-05-31")),
        (msgspec.structs.replace(NONE, annual=2), ("2022-02-28", "2024-02-29")),
    ],
)
def test_month_that_is_too_short_runs_over(real, rule, days):
    """Three months before the 31st of May is the 3rd of March, and what is older goes."""
    for day in days:
        hour = 13 if day == days[0] else 12
        real.snapshot(datetime.fromisoformat(f"{day}T{hour}:00:00+00:00"), ["shop"])
    real.rules({"shop": rule})
    rows = real.kept()["shop"]
    assert rows[0][1] == ()
    assert ours(rows, rule) == [why for _, why in rows]


def test_kopia_confuses_a_week_with_the_month_of_its_number(real):
    """The first week of 2026 goes because January was counted; we keep it."""
    times = [datetime.fromisoformat(f"2026-01-{day}T12:00:00+00:00") for day in ("01", "14", "20")]
    for at in times:
        real.snapshot(at, ["shop"])
    rule = Retention(0, 0, 0, 4, 24, 0)
    real.rules({"shop": rule})
    rows = real.kept()["shop"]
    assert [why for _, why in rows] == [(), ("weekly-2",), ("weekly-1", "monthly-1")]
    assert ours(rows, rule) == [("weekly-3",), ("weekly-2",), ("weekly-1", "monthly-1")]


def test_kopia_counts_what_is_pinned_as_bad_and_we_do_not(real):
    """A run that was no success takes the slot in Kopia; here the good one stays."""
    for day in (1, 2):
        real.snapshot(datetime(2026, 5, day, 12, tzinfo=UTC), ["shop"])
    rule = Retention(1, 0, 0, 0, 0, 0)
    real.rules({"shop": rule})
    (_, (last, _)) = real.kept()["shop"]
    real.call("snapshot", "pin", last.id, "--add=kopiwatch-bad-unreadable")
    rows = real.kept()["shop"]
    assert [why for _, why in rows] == [(), ("latest-1",)]
    assert ours(rows, rule) == [("latest-1",), ("bad-1", "recent")]
