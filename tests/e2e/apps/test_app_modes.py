"""Real applications under load, stopped or frozen while they are read, and restored."""

from __future__ import annotations

import pytest
from support.apps.live import Live
from support.apps.lmdb import Lmdb
from support.apps.mariadb import MariaDb
from support.apps.postgres import Postgres
from support.apps.redis import Redis
from support.apps.sqlite import Sqlite

MEMORY = ("--opt", "type=tmpfs", "--opt", "device=tmpfs")
"""A volume on which a page that was mapped once never changes a file's time again."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    "case",
    [
        (Postgres, "stop", "worker"),
        (Postgres, "pause", "namespace"),
        (MariaDb, "stop", "namespace"),
        (MariaDb, "pause", "worker"),
        (Redis, "stop", "worker"),
        (Redis, "pause", "namespace"),
        (Sqlite, "stop", "namespace"),
        (Sqlite, "pause", "worker"),
        (Lmdb, "stop", "namespace"),
        (Lmdb, "pause", "worker"),
    ],
    ids=lambda case: f"{case[0].name}-{case[1]}-{case[2]}",
)
def test_app_is_restored_whole_from_each_run(case, site_with, scope, tmp_path):
    """Its own check finds nothing, and all it had acknowledged is there: in a first run, and in
    one that read only what had changed since.
    """
    application, mode, access = case
    if case == (Lmdb, "pause", "worker"):
        scope.volume("data", *MEMORY)
    live = Live(site_with(access), scope, application(), {"kopi.mode": mode})
    first = live.backup()
    live.wait_for_more(20)
    second = live.backup()
    assert len(live.acknowledged(second.read_at)) > len(live.acknowledged(first.read_at))
    for backup in (second, first):
        live.prove(backup, live.restored(backup, tmp_path / backup.run))
