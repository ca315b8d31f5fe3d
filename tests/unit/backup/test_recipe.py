"""What the recipe lists."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kopiwatch.backup.recipe import coverage_of
from kopiwatch.engine.port import HostMount
from kopiwatch.testing.engine import FakeEngine, volume_mount
from kopiwatch.units.container import Mount
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio


async def test_tmpfs_that_only_inspect_shows_is_listed_once(tmp_path):
    """``--tmpfs`` makes no row in Docker's list; ``--mount type=tmpfs`` does."""
    engine = FakeEngine()
    mounts = (volume_mount("data"), Mount("tmpfs", "/scratch"))
    seen = tuple(HostMount(m.kind, m.destination) for m in mounts)
    engine.add_container(
        "app",
        labels={"kopi.enable": "true"},
        mounts=mounts,
        details={"mounts": (*seen, HostMount("tmpfs", "/flag"))},
    )
    (unit,) = discover(await engine.containers()).units
    inspected = await engine.inspect("app")
    found = coverage_of(unit, (inspected,))
    assert [(line.destination, line.state) for line in found] == [
        ("/data", "protected"),
        ("/scratch", "not-supported"),
        ("/flag", "not-supported"),
    ]
    assert found[1].reason == found[2].reason != ""
    other = replace(inspected, mounts=())
    assert coverage_of(unit, (other,)) == unit.coverage
