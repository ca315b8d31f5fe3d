"""Real applications under load, on a file system with reflinks, by each way to a short window."""

from __future__ import annotations

import pytest
from support.apps.live import Live
from support.apps.lmdb import Lmdb
from support.apps.mariadb import MariaDb
from support.apps.postgres import Postgres
from support.apps.redis import Redis
from support.apps.sqlite import Sqlite
from support.filesystem import mounted

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    "case",
    [
        (Postgres, "hot", "stop", "worker"),
        (Postgres, "clone", "pause", "namespace"),
        (MariaDb, "clone", "stop", "worker"),
        (Redis, "copy", "pause", "worker"),
        (Sqlite, "hot", "pause", "namespace"),
        (Lmdb, "clone", "pause", "worker"),
    ],
    ids=lambda case: "-".join((case[0].name, *case[1:])),
)
def test_app_is_restored_whole_by_each_strategy(case, site_with, scope, tmp_path):
    """What is read ahead of the window, or in the place of the data, is what the data was in it."""
    application, strategy, mode, access = case
    site = site_with(access)
    with mounted("xfs", tmp_path / "fs", 8192) as disk:
        for name in ("data", "stage"):
            (disk / name).mkdir()
        site.extra["KOPIWATCH_STAGE_PATHS"] = str(disk / "stage")
        labels = {"kopi.mode": mode, "kopi.strategy": strategy, "kopi.binds": "/data"}
        live = Live(site, scope, application(), labels, data=disk / "data")
        first = live.backup()
        live.wait_for_more(20)
        second = live.backup()
        for backup in (second, first):
            assert backup.document["strategy"] == strategy
            live.prove(backup, live.restored(backup, tmp_path / backup.run))
        assert not any(path.is_file() for path in (disk / "stage").rglob("*"))
        scope.end()
