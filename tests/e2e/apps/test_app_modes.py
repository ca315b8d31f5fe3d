"""Real applications under load, stopped or frozen while they are read, and restored."""

from __future__ import annotations

import pytest
from support.apps.live import Live
from support.apps.lmdb import Lmdb
from support.apps.mariadb import MariaDb
from support.apps.postgres import Postgres
from support.apps.redis import Redis
from support.apps.sqlite import Sqlite

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
        (Lmdb, "stop", "worker"),
        (Lmdb, "pause", "namespace"),
    ],
)
def test_app_is_restored_whole_from_each_run(case, site_with, scope, tmp_path):
    """Its own check finds nothing, and all it had acknowledged is there: in a first run, and in
    one that read only what had changed since.
    """
    application, mode, access = case
    live = Live(site_with(access), scope, application(), {"kopi.mode": mode})
    first = live.backup()
    live.wait_for_more(20)
    second = live.backup()
    assert len(live.acknowledged(second.read_at)) > len(live.acknowledged(first.read_at))
    for backup in (second, first):
        live.prove(backup, live.restored(backup, tmp_path / backup.run))
