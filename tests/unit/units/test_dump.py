"""What the labels of a dump say, where they contradict each other, and where a dump lies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kopiwatch.units.dump import DumpSettings, places
from kopiwatch.units.group import discover
from kopiwatch.units.parse import parse

from .build import container, volume


def asked(name: str, engine="postgres", number="", **fields):
    labels = {"com.docker.compose.container-number": number} if number else {}
    return container(name, labels=labels, **fields), DumpSettings(engine)


def settings(**labels: str):
    given = {f"kopi.{name.replace('__', '.')}": value for name, value in labels.items()}
    return parse(container("db", labels=given))


def test_labels_become_settings():
    found = settings(
        dump="postgres",
        dump__user="shop",
        dump__database="orders",
        dump__timeout="10m",
        dump__password_env="DB_PASSWORD",
    )
    assert found.problems == ()
    assert found.settings.dump == DumpSettings(
        "postgres",
        user="shop",
        database="orders",
        timeout=timedelta(minutes=10),
        password_env="DB_PASSWORD",
    )
    assert settings().settings.dump is None
    assert settings(dump="sqlite:/data/a:b.db").settings.dump == DumpSettings(
        "sqlite", path="/data/a:b.db"
    )
    command = settings(dump="command", dump__command="etcdctl get --prefix ''").settings.dump
    assert command is not None
    assert command.command == ("sh", "-c", "etcdctl get --prefix ''")


@pytest.mark.parametrize(
    ("labels", "label", "words"),
    [
        ({"dump__user": "x"}, "kopi.dump.user", "nothing is dumped"),
        ({"dump": "command"}, "kopi.dump", "which command"),
        ({"dump": "redis", "dump__command": "x"}, "kopi.dump.command", "not run"),
        ({"dump": "redis", "dump__database": "0"}, "kopi.dump.database", "no meaning"),
        ({"dump": "sqlite:/a", "dump__user": "x"}, "kopi.dump.user", "no meaning"),
        (
            {"dump": "mysql", "dump__password_env": "A", "dump__password_file": "/b"},
            "kopi.dump.password_env",
            "keep one",
        ),
        (
            {"dump": "mysql", "dump__password_env": "KOPIWATCH_PASSWORD"},
            "kopi.dump.password_env",
            "given to no container",
        ),
    ],
)
def test_labels_that_do_not_fit_together_are_a_problem(labels, label, words):
    """A dump that would not be what somebody asked for disables the unit."""
    (problem,) = settings(**labels).problems
    assert problem.label == label
    assert words in f"{problem.reason} {problem.suggestion}"


def test_dump_is_a_source_that_nobody_writes_to():
    db = container("db", volume("data"), labels={"kopi.dump": "redis", "kopi.exclude": "data"})
    (unit,) = discover([db]).units
    assert unit.problems == ()
    assert unit.warnings == ()
    (source,) = unit.sources
    assert (source.kind, source.path) == ("dump", "dumps/db.redis.rdb")
    assert (source.users, source.writers) == (("db",), ())


def test_service_names_the_dump_so_that_a_new_container_keeps_its_place():
    one = asked("shop-db-1", project="shop", service="db", number="1")
    assert list(places([one]).values()) == ["dumps/db.postgres.sql"]
    two = asked("shop-db-2", project="shop", service="db", number="2")
    assert sorted(places([one, two]).values()) == [
        "dumps/db-1.postgres.sql",
        "dumps/db-2.postgres.sql",
    ]
    other = asked("blog-db-1", project="blog", service="db", number="1")
    assert sorted(places([one, other]).values()) == [
        "dumps/blog-db-1.postgres.sql",
        "dumps/shop-db-1.postgres.sql",
    ]
    assert list(places([asked("alone", "sqlite")]).values()) == ["dumps/alone.sqlite.db"]


def test_no_two_dumps_share_a_place():
    """A container may be called like a service."""
    service = asked("shop-db-1", project="shop", service="db", number="1")
    named = asked("db")
    assert len(set(places([service, named]).values())) == 2
