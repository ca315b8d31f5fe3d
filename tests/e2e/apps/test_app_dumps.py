"""Real databases, dumped under load while nobody is held, and fed to an empty server."""

from __future__ import annotations

import json

import pytest
from support import docker
from support.apps.application import PASSWORD, execute
from support.apps.live import UNIT, Live
from support.apps.lmdb import Lmdb
from support.apps.mariadb import MariaDb
from support.apps.postgres import Postgres
from support.apps.redis import Redis
from support.apps.sqlite import Sqlite
from support.site import wait_until

pytestmark = pytest.mark.timeout(300)
OTHER = "another-password"
BIG = (
    "create table big as select n, repeat(md5(n::text), 60) as text "
    "from generate_series(1, 50000) n"
)
"""About 100 MB of dump, which take a while."""


def labels(site, application) -> dict[str, str]:
    """Its dump alone is backed up, so nobody is held."""
    return {
        "kopi.enable": "true",
        "kopi.unit": UNIT,
        "kopi.instance": site.instance,
        "kopi.exclude": "/data",
        **application.dump,
    }


@pytest.mark.parametrize(
    ("application", "access"),
    [
        (Postgres, "worker"),
        (MariaDb, "namespace"),
        (Redis, "worker"),
        (Sqlite, "namespace"),
        (Lmdb, "worker"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_dump_under_load_fills_an_empty_server(application, access, site_with, scope, tmp_path):
    """Nobody is held, and what was acknowledged before the dump is in it."""
    site = site_with(access)
    live = Live(site, scope, application(), labels(site, application))
    began = docker.inspect(live.container)["State"]["StartedAt"]
    backup = live.backup()
    assert backup.window == 0
    assert docker.inspect(live.container)["State"]["StartedAt"] == began
    restored = live.restored_from_dump(backup, tmp_path / "out")
    live.application.prove(restored)
    live.prove_numbers(backup.dumped_at, restored)


@pytest.mark.parametrize(
    ("application", "change"),
    [
        (
            Postgres,
            f"psql --username=postgres --command=\"alter role postgres password '{OTHER}'\"",
        ),
        (
            MariaDb,
            (
                'mariadb --password="$MARIADB_ROOT_PASSWORD" '
                f"--execute=\"alter user root@localhost identified by '{OTHER}'\""
            ),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_dump_with_a_wrong_password_fails_and_does_not_tell_it(
    application, change, site_with, scope
):
    """The sentence names the container and what the server said; the right one then succeeds."""
    site = site_with("namespace")
    server = application()

    def start(name: str, **more: str) -> str:
        return server.start(
            scope,
            name,
            data="data",
            labels=labels(site, application) | more,
            options=("--env", "LOCAL_AUTH=scram-sha-256"),
        )

    container = start("db")
    execute(container, f"export PGPASSWORD={PASSWORD}; {change}")
    failed = site.run("backup", UNIT, "--json")
    assert failed.returncode == 1, failed
    (run,) = json.loads(failed.stdout)["runs"]
    assert run["verdict"] == "failed"
    assert scope.full("db") in run["message"]
    told = failed.stdout + failed.stderr + site.ok("history", "--unit", UNIT, "--json")
    assert PASSWORD not in told
    assert OTHER not in told
    assert docker.state(container) == "running"
    docker.call("rm", "--force", container)
    site.extra["SHOP_PASSWORD"] = OTHER
    again = start("db-again", **{"kopi.dump.password_env": "SHOP_PASSWORD"})
    if application is MariaDb:  # its start sets the password that its environment has
        execute(again, change)
    (run,) = site.json("backup", UNIT)["runs"]
    assert (run["verdict"], run["message"]) == ("success", "")


def test_dump_that_is_cut_off_fails_and_leaves_the_last_point_alone(site_with, scope):
    """The server is killed in the middle of its dump."""
    site = site_with("worker")
    postgres = Postgres()
    container = postgres.start(scope, "db", data="data", labels=labels(site, Postgres))
    execute(container, f"psql --username=postgres --command='{BIG}'")
    (good,) = site.json("backup", UNIT)["runs"]
    assert good["verdict"] == "success"
    staged = site.state / "staging" / UNIT / "dumps"
    run = site.start("backup", UNIT, "--json")
    wait_until(
        lambda: sum(file.stat().st_size for file in staged.glob("*")) > 1 << 20, "it is dumped"
    )
    docker.call("kill", container)
    said, complaints = run.communicate(timeout=120)
    assert run.returncode == 1, complaints
    (newest,) = json.loads(said)["runs"]
    assert newest["verdict"] == "failed"
    assert scope.full("db") in newest["message"]
    assert not any(staged.glob("*"))
    complete = [p for p in site.json("points", UNIT)["points"] if p["state"] == "complete"]
    assert [point["run"] for point in complete] == [good["run"]]
