"""Hooks where kopiwatch runs: real programs around a run on the fakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

from kopiwatch.backup.host_hook import HostSide
from kopiwatch.backup.host_run import execute
from kopiwatch.backup.run import Run
from kopiwatch.clock import SYSTEM
from kopiwatch.config import HostHook, Secret
from kopiwatch.kopia.failure import masker
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio


class Scripts:
    """Programs in a folder, and a run with them as hooks. Each notes that it ran in ``log``."""

    def __init__(self, world, folder) -> None:
        self.world = world
        self.folder = folder
        self.log = folder / "log"
        self.hooks: dict[str, tuple[HostHook, ...]] = {}
        self.ran: Run | None = None

    def add(self, name: str, script: str = "", **options: object) -> None:
        path = self.folder / f"{name}-{len(self.hooks.get(name, ()))}"
        path.write_text(f"#!/bin/sh\necho {path.name} >> {self.log}\n{script}\n")
        path.chmod(0o755)
        self.hooks[name] = (*self.hooks.get(name, ()), HostHook((str(path),), **options))

    async def run(self):
        house = msgspec.structs.replace(
            await self.world.house(),
            clock=SYSTEM,
            mask=masker([Secret("hunter2")]),
            host_side=HostSide(self.hooks, {"KOPIWATCH_HOST": "testhost"}),
        )
        rows = await self.world.engine.containers()
        (unit,) = discover(rows).units
        self.ran = Run(house, unit, rows, "r1")
        return await execute(self.ran)

    @property
    def order(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def lives(pid: int) -> bool:
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def scripts(world, tmp_path) -> Scripts:
    return Scripts(world, tmp_path)


async def test_programs_run_around_the_run_and_are_told_of_it(scripts, monkeypatch):
    """By variables; none of ours that may hold a secret is among them."""
    monkeypatch.setenv("KOPIWATCH_PASSWORD", "hunter2")
    scripts.add("before_run", "env; pwd")
    scripts.add("after_run", "env")
    result = await scripts.run()
    assert (result.verdict, scripts.order) == ("success", ["before_run-0", "after_run-0"])
    before, after = (
        dict(line.partition("=")[::2] for line in hook.output.splitlines()) for hook in result.hooks
    )
    assert before["KOPIWATCH_HOOK"] == "before_run"
    assert (before["KOPIWATCH_UNIT"], before["KOPIWATCH_RUN"]) == ("shop", "r1")
    assert (after["KOPIWATCH_VERDICT"], after["KOPIWATCH_REASON"]) == ("success", "")
    assert after["KOPIWATCH_HOST"] == "testhost"
    assert float(after["KOPIWATCH_WINDOW_SECONDS"]) >= 0
    names = set(before) | set(after)
    assert "KOPIWATCH_PASSWORD" not in names
    assert {n for n in names if not n.startswith("KOPIWATCH_")} <= {
        *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PWD", "OLDPWD", "SHLVL", "_", "/")
    }


async def test_before_run_that_fails_touches_nothing(scripts, world):
    """Those after it do not run; after_run does, and knows."""
    scripts.add("before_run", "echo hunter2; exit 3")
    scripts.add("before_run")
    scripts.add("after_run", 'echo "$KOPIWATCH_VERDICT $KOPIWATCH_REASON"')
    result = await scripts.run()
    assert (result.verdict, result.reason, result.exit_code) == ("failed", "hook", 1)
    assert "before_run-0 failed with exit code 3" in result.message
    assert (result.tail, result.before_window) == ("***", True)
    assert scripts.order == ["before_run-0", "after_run-0"]
    assert result.hooks[-1].output == "failed hook\n"
    assert world.engine.order("stop", "worker") == []


async def test_before_run_that_may_fail_and_after_run_that_fails_are_warnings(scripts):
    """On record; the verdict stays."""
    scripts.add("before_run", "exit 1", on_error="continue")
    scripts.add("after_run", "exit 2")
    scripts.add("after_run")
    result = await scripts.run()
    assert (result.verdict, result.exit_code, len(scripts.order)) == ("success", 0, 3)
    assert [w.rpartition(" failed ")[2] for w in result.warnings] == [
        "with exit code 1",
        "with exit code 2",
    ]


async def test_after_run_runs_after_a_failed_run(scripts, world):
    """Whatever the verdict."""
    world.program.missing.add("volumes/data")
    scripts.add("after_run", 'echo "$KOPIWATCH_VERDICT"')
    result = await scripts.run()
    assert (result.verdict, result.hooks[0].output) == ("partial", "partial\n")


async def test_hook_of_another_unit_is_left_out(scripts):
    """units holds globs."""
    scripts.add("before_run", units=("blog*",))
    scripts.add("after_run", units=("sh*", "x"))
    await scripts.run()
    assert scripts.order == ["after_run-0"]


async def test_program_that_hangs_is_killed_with_what_it_started(scripts):
    """Its whole process group, at its timeout."""
    scripts.add("before_run", "sleep 30 & echo $!; wait", timeout=timedelta(seconds=0.5))
    result = await scripts.run()
    assert "did not end within 0.5 s and was killed" in result.message
    child = int(result.hooks[0].output)
    with anyio.fail_after(10):  # long before its 30 seconds; a kill takes a moment to arrive
        while lives(child):  # noqa: ASYNC110 - a process of others
            await anyio.sleep(0.01)


async def test_program_that_leaves_something_behind_is_not_waited_for(scripts):
    """It holds the output open, and lives on."""
    scripts.add("after_run", "sleep 4 & echo $!")
    began = anyio.current_time()
    result = await scripts.run()
    assert anyio.current_time() - began < 20
    assert (result.warnings, result.hooks[0].output.strip().isdigit()) == ((), True)


async def test_megabytes_of_anything_do_not_block(scripts):
    """The end is kept."""
    scripts.add("after_run", "head -c 3000000 /dev/urandom; echo; echo end")
    result = await scripts.run()
    assert result.hooks[0].output.endswith("\nend\n")
    assert len(result.hooks[0].output) < 9000


async def test_program_that_anybody_may_change_by_now_is_not_run(scripts):
    """It was sound when the configuration was read."""
    scripts.add("before_run")
    (scripts.folder / "before_run-0").chmod(0o777)
    result = await scripts.run()
    assert "others may write" in result.message
    assert scripts.order == []


async def test_program_of_another_machine_cannot_be_run(scripts):
    """No interpreter, no such format."""
    scripts.add("before_run")
    (scripts.folder / "before_run-0").write_text("#!/no/such/interpreter\n")
    result = await scripts.run()
    assert "could not be run: No such file or directory" in result.message


@pytest.mark.parametrize("moment", ["before", "go"])
async def test_cancelled_run_has_its_after_run(scripts, world, moment):
    """Once before_run has begun; what is at it is killed."""
    scripts.add("before_run", "sleep 60" if moment == "before" else "")
    scripts.add("after_run", 'echo "$KOPIWATCH_REASON"')
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            while not scripts.order:  # noqa: ASYNC110 - a program writes it
                await anyio.sleep(0.01)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            if moment == "before":
                tasks.start_soon(cancel)
            else:
                world.program.at("go", lambda _: scope.cancel() or True)
            await scripts.run()
    assert scope.cancelled_caught
    assert scripts.order == ["before_run-0", "after_run-0"]
    result = scripts.ran.result
    assert (result.verdict, result.reason) == ("failed", "cancelled")
    assert result.hooks[-1].output == "cancelled\n"
