"""Hooks of members: their order, what a failure means, and that a post hook always follows."""

from __future__ import annotations

from datetime import timedelta

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.hook import END_SCRIPT, OUTPUT_BYTES, shown
from kopiwatch.backup.hook_debt import repay_hooks
from kopiwatch.backup.journal import Journal
from kopiwatch.backup.settle import bring_all_back
from kopiwatch.config import Secret
from kopiwatch.engine.port import ExecResult, Healthcheck
from kopiwatch.errors import EngineError, EngineUnreachable
from kopiwatch.kopia.failure import masker
from kopiwatch.testing.engine import volume_mount

pytestmark = pytest.mark.anyio

UP = ["running", "running"]


def hook(world, container: str, **labels: str) -> None:
    """Give a member hooks: ``pre="x"``, ``post_timeout="5s"`` and so on."""
    found = world.engine.all[container]
    for name, value in labels.items():
        kind, _, rest = name.partition("_")
        label = f"kopi.hook.{kind}.{(rest or 'command').replace('_', '-')}"
        found.row.labels[label] = value


def both(world) -> None:
    """A pre and a post hook on each of the two members."""
    for container in (world.db, world.web):
        hook(world, container, pre="pre", post="post")


def answer(world, container: str, **codes: int | None) -> None:
    """What the hook whose command is this word does: its exit code, None for one that hangs."""

    def handle(argv: tuple[str, ...], user: str) -> ExecResult | None:
        if END_SCRIPT in argv:
            return ExecResult(codes.get("end") or 0, "")
        code = codes.get(argv[-1], 0)
        return None if code is None else ExecResult(code, f"{argv[-1]} said\n")

    world.engine.all[container].handler = handle


def ran(world) -> list[str]:
    """The hooks that ran, in order: ``pre web``; a search for one that hangs is ``end web``."""
    return [
        f"{'end' if END_SCRIPT in each.argv else each.argv[-1]} {each.container}"
        for each in world.engine.execs
    ]


async def replay(world):
    await bring_all_back(world.engine, world.state.journals, world.time.clock)
    return await repay_hooks(world.engine, world.state.journals, world.time.clock)


async def test_hooks_run_around_the_window_in_the_order_of_stops_and_starts(world):
    """Dependents first before it, dependencies first after it; Kopia waits at its gate by then."""
    both(world)
    seen = {}

    def look(moment: str) -> None:
        seen.setdefault(moment, (list(world.program.steps), ran(world), world.states))

    world.engine.hook("exec", "web", lambda: look("pre"))
    world.engine.hook("stop", "web", lambda: look("stop"))
    world.engine.hook("exec", "db", lambda: look("post") if len(ran(world)) == 2 else None)
    result = await world.run()
    assert (result.verdict, result.warnings) == ("success", ())
    assert ran(world) == ["pre web", "pre db", "post db", "post web"]
    assert seen["pre"][0][-1] == "launch"
    assert seen["stop"][1] == ["pre web", "pre db"]
    assert seen["post"][2] == UP
    phases = [p.phase for p in result.phases]
    assert phases[1:8] == ["ready", "hooks-pre", "stop", "read", "start", "health", "hooks-post"]
    assert [(h.hook, h.target, h.exit_code, h.reason) for h in result.hooks] == [
        ("pre", "web", 0, ""),
        ("pre", "db", 0, ""),
        ("post", "db", 0, ""),
        ("post", "web", 0, ""),
    ]
    assert await world.journal() is None


async def test_hook_gets_its_user_timeout_command_and_variables(world):
    """As the labels say; a JSON array needs no shell."""
    hook(world, world.db, pre='["tool", "--x"]', pre_user="app", pre_timeout="7s", post="a 'b'")
    await world.run()
    pre, post = world.engine.execs
    assert (pre.argv, pre.user) == (("tool", "--x"), "app")
    assert (post.argv, post.user) == (("sh", "-c", "a 'b'"), "")
    assert {k: v for k, v in pre.env.items() if k != "KOPIWATCH_HOOK_ID"} == {
        "KOPIWATCH_HOOK": "pre",
        "KOPIWATCH_UNIT": "shop",
        "KOPIWATCH_RUN": "r1",
    }
    (call,) = [c for c in world.engine.calls if c.timeout == timedelta(seconds=7)]
    assert str(call) == "exec db"


async def test_time_of_hooks_is_no_downtime(world):
    """It is before the first stop and after the last start."""
    both(world)

    async def slow() -> None:
        world.time.passed += 100

    for name in ("db", "web"):
        world.engine.hook("exec", name, slow)
    result = await world.run()
    assert result.window < 60
    times = {p.phase: p.seconds for p in result.phases}
    assert (times["hooks-pre"], times["hooks-post"]) == (200, 200)
    assert [h.seconds for h in result.hooks] == [100] * 4


async def test_pre_hook_that_fails_stops_nobody_and_is_undone(world):
    """The post hooks of those that began run, of the failed one too, and of nobody else."""
    both(world)
    other = world.member("api", "v", depends="web:service_started:false")
    hook(world, other, post="post")
    answer(world, world.web, pre=3)
    result = await world.run()
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "hook", "hooks-pre")
    assert result.message == "the pre hook in web failed with exit code 3"
    assert result.tail == "pre said"
    assert ran(world) == ["pre web", "post web"]
    assert world.engine.order("stop", "start") == []
    assert result.before_window
    assert world.repository.contents.snapshots == []
    assert await world.journal() is None


async def test_pre_hook_that_may_fail_is_a_warning(world):
    """on-error=continue: the run goes on, its post hook runs."""
    both(world)
    hook(world, world.web, pre_on_error="continue")
    answer(world, world.web, pre=3)
    result = await world.run()
    assert result.verdict == "success"
    assert result.warnings == ("the pre hook in web failed with exit code 3",)
    assert ran(world) == ["pre web", "pre db", "post db", "post web"]


async def test_post_hook_that_fails_makes_the_run_partial(world):
    """The others run; what was stored is no good point, but a good parent."""
    both(world)
    answer(world, world.db, post=1)
    result = await world.run()
    assert (result.verdict, result.reason, result.exit_code) == ("partial", "hook", 1)
    assert result.message == "the post hook in db failed with exit code 1"
    assert result.tail == "post said"
    assert ran(world)[-1] == "post web"
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "hook"
    assert await world.journal() is None
    await world.run(run="r2")
    assert "--force-hash=100" not in world.program.argv


async def test_post_hook_that_may_fail_is_a_warning(world):
    """Its label says so."""
    both(world)
    hook(world, world.db, post_on_error="continue")
    answer(world, world.db, post=1)
    result = await world.run()
    assert (result.verdict, len(result.warnings)) == ("success", 1)


@pytest.mark.parametrize("end", [0, 3])
async def test_pre_hook_that_hangs_is_killed_and_undone(world, end):
    """At its timeout; where it cannot be killed, that is said."""
    both(world)
    hook(world, world.web, pre_timeout="9s")
    answer(world, world.web, pre=None, end=end)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "hook")
    assert "did not end within 9 s" in result.message
    assert ("may still run" in result.message) == bool(end)
    assert ran(world) == ["pre web", "end web", "post web"]
    assert result.hooks[0].reason == "timeout"


@pytest.mark.parametrize(
    ("command", "output", "words"),
    [
        ("x", 'exec: "sh": executable file not found', "there is no sh in the container"),
        ('["x"]', 'exec: "x": executable file not found', "the container cannot execute 'x'"),
        ("x", "unable to find user app: no matching entries", "there is no user 'app'"),
        ("x", "sh: x: not found", "failed with exit code 126"),
    ],
)
async def test_hook_that_cannot_be_started_says_why(world, command, output, words):
    """Docker tells it as an exit code and in the output."""
    hook(world, world.db, pre=command, pre_user="app")
    world.engine.all[world.db].handler = lambda argv, user: ExecResult(126, output)
    result = await world.run()
    assert words in result.message
    assert ("JSON array" in result.hint) == ("no sh" in words)


@pytest.mark.parametrize("state", ["exited", "paused"])
async def test_hooks_of_a_member_that_does_not_run_are_left_out_and_said(world, state):
    """There is nothing to be put to rest, and nobody to do it."""
    idle = world.member("idle", "v", state=state)
    hook(world, idle, pre="pre", post="post")
    late = world.engine.add_container(
        "late",
        labels=dict(world.engine.all[idle].row.labels)
        | {"com.docker.compose.service": "late", "kopi.hook.post.command": "post"},
        state="exited",
    )
    world.engine.all[late].row.labels.pop("kopi.hook.pre.command")
    result = await world.run()
    assert ran(world) == []
    told = "it is paused" if state == "paused" else "it is not running"
    assert f"the pre hook in idle was not run: {told}" in result.warnings
    assert "the post hook in late was not run: it is not running" in result.warnings


async def test_hooks_run_where_nobody_is_stopped(world):
    """Around the read, in a unit that is left to write, and in one that cannot."""
    both(world)
    for container in (world.db, world.web):
        world.engine.all[container].row.labels["kopi.mode"] = "live"
    result = await world.run()
    assert (result.verdict, result.window) == ("success", 0.0)
    assert ran(world) == ["pre web", "pre db", "post db", "post web"]
    mounts = (volume_mount("static", "/data", writable=False),)
    reader = world.engine.add_container("r", labels={"kopi.enable": "true"}, mounts=mounts)
    hook(world, reader, pre="pre", post="post")
    await world.run("r", run="r2")
    assert ran(world)[4:] == ["pre r", "post r"]


async def test_post_hook_runs_after_a_failed_window(world):
    """Stop, read or start: whoever runs again gets its post hook."""
    both(world)
    world.program.exits("go", errors="ERROR error: no")
    result = await world.run()
    assert result.verdict == "failed"
    assert ran(world) == ["pre web", "pre db", "post db", "post web"]
    assert await world.journal() is None


async def test_post_hook_after_a_failed_window_waits_for_health(world):
    """Nobody has seen it healthy, and a hook that comes too early fails."""
    check = Healthcheck(("check",))
    sick = world.member("sick", "v", healthcheck=check, healthy_after=3)
    hook(world, sick, pre="pre", post="post")
    world.program.exits("go", errors="ERROR error: no")
    probes = {}
    world.engine.all[sick].handler = lambda argv, user: (
        probes.update({argv[-1]: world.engine.all[sick].probes}) or ExecResult(0, "")
    )
    await world.run()
    assert probes["post"] == 3


async def test_post_hook_of_a_member_that_does_not_start_stays_owed(world):
    """Whoever brings the member back runs it."""
    both(world)
    world.engine.fail("start", "db", EngineError("port is in use"), times=4)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "start")
    assert ran(world) == ["pre web", "pre db", "post web"]
    assert "the post hook in db was not run: it is not running" in result.message
    journal = await world.journal()
    assert ([m.name for m in journal.members], [h.name for h in journal.hooks]) == (["db"], ["db"])
    (repaid,) = await replay(world)
    assert ran(world)[3:] == ["end db", "post db"]
    assert repaid.good
    assert await world.journal() is None


async def test_post_hook_runs_in_the_successor_of_its_member(world):
    """Recreated meanwhile: what the pre hook left in its volume is still there."""
    both(world)

    def recreate(_):
        world.engine.remove(world.db)
        world.member("db", "data", state="created")
        return False

    world.program.at("go", recreate)
    await world.run()
    assert ran(world) == ["pre web", "pre db", "post db", "post web"]


async def test_post_hook_of_a_member_that_is_gone_is_said_and_owed_by_nobody(world):
    """There is no container to run it in."""
    both(world)
    world.program.at("go", lambda _: world.engine.remove(world.db) and False)
    result = await world.run()
    assert "the post hook in db was not run: somebody removed it" in result.message
    assert await world.journal() is None


async def test_post_hook_that_docker_fumbles_stays_owed_and_keeps_no_other_waiting(world):
    """An answer of 500 for one container is no reason to leave the next in its maintenance mode."""
    both(world)

    def fumble():
        if world.said.events[-1] == ("hook", "shop: the post hook in db"):
            raise EngineError("cannot inspect container db: Docker answered 500")

    world.engine.hook("inspect", "db", fumble)
    result = await world.run()
    assert ran(world) == ["pre web", "pre db", "post web"]
    assert (result.verdict, result.reason) == ("partial", "hook")
    assert "Docker answered 500" in result.message
    world.engine.hook("inspect", "db", lambda: None)
    (repaid,) = await replay(world)
    assert repaid.good
    assert ran(world)[3:] == ["end db", "post db"]


async def test_post_hook_while_docker_is_away_stays_owed(world):
    """The next command that changes something runs it."""
    both(world)
    away = EngineUnreachable("Docker is away")
    world.engine.hook(
        "exec", "db", lambda: world.engine.fail("exec", "db", away) if len(ran(world)) > 1 else None
    )
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "hook")
    assert [h.name for h in (await world.journal()).hooks] == ["db"]
    refused = await world.run(run="r2")
    assert "still owes the post hook of db" in refused.message
    world.engine.hook("exec", "db", lambda: None)
    await replay(world)
    assert await world.journal() is None


async def test_docker_that_goes_away_in_a_pre_hook_is_a_failure_that_is_undone(world):
    """The hook may have begun, so its post hook is owed."""
    both(world)
    world.engine.fail("exec", "web", EngineUnreachable("Docker is away"))
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "engine-unreachable")
    assert result.hooks[0].reason == "failed"
    assert ran(world) == ["post web"]


async def test_run_without_a_journal_begins_no_hook(world):
    """Nobody would know that the post hook is owed."""
    both(world)
    written = world.state.journals.write

    async def refuse(journal: Journal, *, early: bool = False) -> None:
        if journal.hooks:
            assert early
            raise EngineError("no room")
        await written(journal, early=early)

    world.state.journals.write = refuse
    result = await world.run()
    assert result.verdict == "failed"
    assert "pre web" not in ran(world)
    assert world.engine.order("stop") == []


@pytest.mark.parametrize("moment", ["pre", "launch", "go", "flush"])
async def test_cancelled_run_runs_the_post_hooks_of_what_began(world, moment):
    """A pre hook that is at it is ended first; nothing is owed afterwards."""
    both(world)
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            if moment == "pre" and not scope.cancel_called:
                scope.cancel()
                await anyio.sleep(60)

        def leave(_):
            scope.cancel()
            return moment != "flush"

        world.engine.hook("exec", "web", cancel)
        if moment != "pre":
            world.program.at(moment, leave)
        await world.run()
    assert scope.cancelled_caught
    assert world.states == UP
    expected = {
        "pre": ["end web", "post web"],
        "launch": [],
        "go": ["pre web", "pre db", "post db", "post web"],
        "flush": ["pre web", "pre db", "post db", "post web"],
    }
    assert ran(world) == expected[moment]
    assert await world.journal() is None


@pytest.mark.parametrize(
    ("moment", "left"),
    [("pre", ["web"]), ("second", ["db", "web"]), ("go", ["db", "web"]), ("post", ["db", "web"])],
)
async def test_run_that_died_leaves_its_post_hooks_to_the_replay(world, moment, left):
    """In a pre hook, in the window, in a post hook: what its journal says is run, once."""
    both(world)
    journals = []

    async def note() -> None:
        journals.append(await world.state.journals.read("shop"))

    async def keep(turn: int, wanted: str) -> None:
        if moment == wanted and len(ran(world)) == turn:
            await note()

    world.engine.hook("exec", "web", lambda: keep(0, "pre"))
    world.engine.hook(
        "exec", "db", lambda: keep(1, "second") if len(ran(world)) == 1 else keep(2, "post")
    )
    world.engine.hook("stop", "db", lambda: note() if moment == "go" else None)
    await world.run()
    (journal,) = journals
    assert [h.name for h in journal.hooks] == left
    # As if it had died there.
    world.engine.execs.clear()
    await world.state.journals.write(journal)
    (repaid,) = await replay(world)
    runs = [f"{what} {name}" for name in left for what in ("end", "post")]
    assert ran(world) == runs
    assert repaid.good
    assert "r1 left post hooks to run" in str(repaid)
    journal = await world.journal()
    assert (journal.members, journal.hooks, journal.judged) == ((), (), False)
    assert await replay(world) == ()


async def test_replay_of_a_hook_that_fails_says_so_and_does_not_try_again(world):
    """It ran, and nobody knows what trying it for ever would do."""
    both(world)
    answer(world, world.db, post=2)
    journal = await journal_in_a_post_hook(world)
    await world.state.journals.write(journal)
    (repaid,) = await replay(world)
    assert not repaid.good
    assert "the post hook in db failed with exit code 2, web: done" in str(repaid)
    assert (await world.journal()).hooks == ()


async def test_replay_of_hooks_can_be_interrupted_and_forgets_nothing(world):
    """What was not done stays owed; what was at it is ended."""
    both(world)
    journal = await journal_in_a_post_hook(world)
    await world.state.journals.write(journal)
    world.engine.execs.clear()
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            if ran(world)[-1] == "end web" and not scope.cancel_called:
                scope.cancel()
                await anyio.sleep(60)

        world.engine.hook("exec", "web", cancel)
        await replay(world)
    assert scope.cancelled_caught
    assert [h.name for h in (await world.journal()).hooks] == ["web"]
    world.engine.hook("exec", "web", lambda: None)
    await replay(world)
    assert ran(world)[-1] == "post web"


async def journal_in_a_post_hook(world) -> Journal:
    """The journal as it stands while the first post hook runs."""
    seen = []

    async def note() -> None:
        if len(ran(world)) == 2:
            seen.append(await world.state.journals.read("shop"))

    world.engine.hook("exec", "db", note)
    await world.run()
    return seen[0]


async def test_replay_that_cannot_start_the_member_keeps_its_hook(world):
    """It is tried again with the start."""
    both(world)
    world.engine.fail("start", "db", EngineError("port is in use"), times=8)
    await world.run()
    (repaid,) = await replay(world)
    assert (repaid.good, repaid.owed) == (False, ("db",))
    assert "STILL TO RUN: db" in str(repaid)
    assert "post db" not in ran(world)
    await replay(world)
    assert ran(world)[-1] == "post db"
    assert await world.journal() is None


async def test_journal_of_an_older_version_is_read(world):
    """It knows no hooks, and owes none."""
    path = world.state.journals.folder / "shop.json"
    path.write_text(
        '{"unit":"shop","run":"r0","since":"2026-01-01T00:00:00Z","source":"s","members":[]}'
    )
    assert (await world.journal()).hooks == ()


async def test_output_holds_no_secret_of_ours_and_no_control_characters(world):
    """It goes into the history, and to terminals."""
    house = await world.house()
    masked = msgspec.structs.replace(house, mask=masker([Secret("hunter2")]))

    async def give() -> object:
        return masked

    world.house = give
    hook(world, world.db, pre="x")
    printed = "password=hunter2\x1b[31m\x00\n"
    world.engine.all[world.db].handler = lambda argv, user: ExecResult(1, printed)
    result = await world.run()
    assert "hunter2" not in msgspec.json.encode(result).decode()
    assert result.hooks[0].output == "password=***\ufffd[31m\ufffd\n"


@given(st.text(max_size=40), st.integers(0, 9000))
def test_output_that_was_cut_begins_with_a_whole_line(text, padding):
    """The rest of a secret may stand at its beginning."""
    output = f"ecret\n{text}" + "x" * padding
    cut = len(output.encode("utf-8", "replace")) >= OUTPUT_BYTES
    assert shown(output, str).startswith("ecret") != cut
