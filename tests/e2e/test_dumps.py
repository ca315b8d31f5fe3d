"""Dumps of databases that are scripts: they behave, or fail in each way that there is."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support import docker
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(180)

END = "printf -- '--\\n-- PostgreSQL database cluster dump complete\\n--\\n\\n'"
GOOD = f'echo "CREATE TABLE t; -- $PGPASSWORD"; cat /data/rows; {END}'


class Database:
    """A container of unit ``app`` whose ``pg_dumpall`` is a script, with 2 MiB in a volume."""

    def __init__(self, site, scope, folder: Path) -> None:
        self.site = site
        self.scope = scope
        self.folder = folder
        folder.mkdir()
        self.write(GOOD)
        scope.volume("data")
        self.rows = Path(docker.inspect(scope.full("data"))["Mountpoint"]) / "rows"
        self.rows.write_bytes(b"INSERT;\n" * (1 << 18))
        self.id = ""

    def write(self, script: str) -> None:
        """What the database does when it is asked for a dump."""
        program = self.folder / "pg_dumpall"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def start(self, *options: str, **labels: str) -> str:
        """Start it. Returns its id."""
        own = {
            "kopi.enable": "true",
            "kopi.unit": "app",
            "kopi.instance": self.site.instance,
            "kopi.dump": "postgres",
            "kopi.exclude": "/data",
        }
        self.id = self.scope.run(
            "db",
            script=IDLE,
            labels=own | {f"kopi.{n.replace('__', '.')}": v for n, v in labels.items()},
            volumes=["data:/data"],
            options=(
                *("--env=PATH=/db:/bin", "--env=POSTGRES_PASSWORD=hunter2-secret"),
                *(f"--volume={self.folder}:/db:ro", *options),
            ),
        )
        return self.id

    @property
    def name(self) -> str:
        return f"dumps/{self.scope.full('db')}.postgres.sql"

    def back_up(self) -> dict[str, Any]:
        """The only run of a backup."""
        (run,) = self.site.json_any("backup", "app")["runs"]
        return run

    def points(self) -> list[str]:
        return [point["state"] for point in self.site.json("points", "app")["points"]]

    def processes(self) -> str:
        return docker.call("top", self.id)

    def untouched(self, started: str) -> bool:
        """Nobody stopped it, and nothing is left in the staging folder."""
        left = list((self.site.state / "staging").glob("*/dumps"))
        return (docker.inspect(self.id)["State"]["StartedAt"], left) == (started, [])

    @property
    def started(self) -> str:
        return docker.inspect(self.id)["State"]["StartedAt"]


@pytest.fixture
def database(site, scope, tmp_path):
    return Database(site, scope, tmp_path / "db")


@pytest.fixture
def local(local_site, scope, tmp_path):
    return Database(local_site, scope, tmp_path / "db")


def test_dump_alone_is_a_restore_point_without_downtime(database, tmp_path):
    """What the client printed comes back, byte by byte; the recipe says how to feed it back."""
    database.start()
    started = database.started
    run = database.back_up()
    assert (run["verdict"], run["window"]) == ("success", 0)
    assert "dumps" in [phase["phase"] for phase in run["phases"]]
    assert [source["path"] for source in run["sources"]] == ["recipe", database.name]
    assert database.untouched(started)
    database.site.ok("restore", "app", "--to", str(tmp_path / "out"))
    content = (tmp_path / "out" / database.name).read_bytes()
    assert content.startswith(b"CREATE TABLE t; -- hunter2-secret\nINSERT;\n")
    assert content.endswith(b"cluster dump complete\n--\n\n")
    recipe = json.loads((tmp_path / "out/recipe/unit.json").read_bytes())
    (dump,) = recipe["dumps"]
    assert (dump["path"], dump["engine"]) == (database.name, "postgres")
    assert "psql" in dump["feed"]
    assert database.name in recipe["expected"]
    shown = database.site.ok("units", "app")
    assert database.name in shown


def test_volume_and_dump_are_kept_side_by_side(local):
    """The mode is as before: the member is stopped for its volume."""
    local.start(exclude="!none")
    started = local.started
    run = local.back_up()
    assert run["verdict"] == "success"
    paths = [source["path"] for source in run["sources"]]
    assert paths == ["recipe", local.name, f"volumes/{local.scope.full('data')}"]
    assert local.started != started


FAILURES = [
    ("echo lost; echo 'FATAL: no such role' >&2; exit 7", "dump-failed", "no such role"),
    ("exit 0", "dump-empty", "printed nothing"),
    ("cat /data/rows", "dump-cut", "not whole"),
    (f"{GOOD}; kill -9 $$", "dump-failed", "137"),
    (f"{GOOD}; kill -9 $PPID", "dump-failed", "137"),
    ("while :; do echo more; sleep 0.1; done", "dump-timeout", "kopi.dump.timeout"),
]


@pytest.mark.parametrize(("script", "reason", "words"), FAILURES, ids=range(len(FAILURES)))
def test_dump_that_is_not_whole_fails_the_run_before_anybody_stops(local, script, reason, words):
    """The last good point stays the latest, and nothing of the dump runs on."""
    local.start(exclude="!none", dump__timeout="5s")
    assert local.back_up()["verdict"] == "success"
    started = local.started
    local.write(script)
    run = local.back_up()
    assert (run["verdict"], run["reason"], run["exit_code"]) == ("failed", reason, 1)
    assert run["phases"][-2]["phase"] == "dumps"
    assert words in run["message"]
    assert local.scope.full("db") in run["message"]
    assert run["hint"]
    assert local.untouched(started)
    assert local.points() == ["complete"]
    assert "pg_dumpall" not in local.processes()
    local.write(GOOD)
    assert local.back_up()["verdict"] == "success"


def test_database_that_stops_in_the_middle_fails_the_run(local):
    """Docker ends the command with the container."""
    local.start()
    local.back_up()
    local.write("while :; do echo more; sleep 0.1; done")
    running = local.site.start("backup", "app", "--json")
    wait_until(lambda: "pg_dumpall" in local.processes(), "the dump runs")
    docker.call("stop", "-t", "1", local.id)
    out, _ = running.communicate(timeout=60)
    (run,) = json.loads(out)["runs"]
    assert (run["verdict"], run["reason"]) in [("failed", "dump-failed"), ("failed", "dump-cut")]
    assert docker.state(local.id) == "exited"
    again = local.back_up()
    assert (again["verdict"], again["reason"]) == ("failed", "dump-not-running")
    assert "start it" in again["hint"]
    assert local.points() == ["complete"]


def test_interrupted_dump_is_ended_inside_the_member(local):
    """A signal takes the client with it, and what was staged."""
    local.start()
    started = local.started
    local.write("while :; do echo more; sleep 0.1; done")
    running = local.site.start("backup", "app")
    wait_until(lambda: "pg_dumpall" in local.processes(), "the dump runs")
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    wait_until(lambda: "pg_dumpall" not in local.processes(), "the dump is ended")
    assert local.untouched(started)


def test_killed_run_leaves_no_dump_for_long(local):
    """Whatever changes something next sweeps it away; here with another unit's name."""
    local.start()
    local.write("cat /data/rows; while :; do echo more; sleep 0.1; done")
    running = local.site.start("backup", "app")
    staged = local.site.state / "staging/app/dumps"
    wait_until(lambda: any(f.stat().st_size for f in staged.glob(".*")), "something is staged")
    mode = next(staged.glob(".*")).stat().st_mode & 0o777
    running.kill()
    running.communicate(timeout=60)
    assert (mode, staged.exists()) == (0o600, True)
    local.site.run("backup", "nobody")
    local.write(GOOD)
    assert local.back_up()["verdict"] == "success"
    assert not staged.exists()


def test_collapsed_dump_is_refused_until_it_is_accepted(local):
    """A dump of an empty database ends well, too."""
    local.start()
    assert local.back_up()["verdict"] == "success"
    local.rows.write_bytes(b"")
    run = local.back_up()
    assert (run["verdict"], run["reason"]) == ("partial", "source-collapsed")
    assert local.name in run["message"]
    assert local.points() == ["complete", "bad"]
    local.site.ok("accept", "app", local.name)
    assert local.back_up()["verdict"] == "success"


def test_password_of_the_sidecar_comes_by_standard_input(local, tmp_path):
    """It is in no argument and in nothing that Docker tells of the exec."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret-of-the-sidecar\n")
    local.start(dump__password_file=str(secret))
    local.write(f'cat /proc/*/cmdline; echo "and: $PGPASSWORD"; sleep 2; {END}')
    running = local.site.start("backup", "app")
    wait_until(lambda: "pg_dumpall" in local.processes(), "the dump runs")
    seen = local.processes() + json.dumps(docker.inspect(local.id))
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "s3cret" not in seen + out + err
    local.site.ok("restore", "app", "--to", str(tmp_path / "out"))
    content = (tmp_path / "out" / local.name).read_text()
    assert content.count("s3cret") == 1
    assert "and: s3cret-of-the-sidecar\n" in content


@pytest.mark.parametrize("way", ["variable", "file", "missing", "own"])
def test_password_that_cannot_be_had_fails_the_run_with_the_way_out(local, way):
    """And the repository's own password is given to nobody."""
    label = {
        "variable": {"dump__password_env": "NO_SUCH_VARIABLE"},
        "file": {"dump__password_file": "/no/such/file"},
        "missing": {"dump__password_file": "relative"},
        "own": {"dump__password_file": str(local.site.state / "state.json")},
    }[way]
    local.start(**label)
    run = local.back_up()
    assert (run["verdict"], run["reason"]) == ("failed", "dump-password")
    assert next(iter(label.values())) in run["message"]


def test_command_of_ones_own_is_a_dump(local, tmp_path):
    """A JSON array is run as it is, beside a shell that only marks its end."""
    local.start(dump="command", dump__command='["cat", "/data/rows"]')
    assert local.back_up()["verdict"] == "success"
    local.site.ok("restore", "app", "--to", str(tmp_path / "out"))
    name = local.name.replace("postgres.sql", "command.dump")
    assert (tmp_path / "out" / name).read_bytes() == local.rows.read_bytes()
