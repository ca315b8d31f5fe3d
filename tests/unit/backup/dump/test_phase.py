"""The phase on fakes: what it asks for, what it refuses, and that nothing is stopped for it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from kopiwatch.backup.dump import phase as dump_phase
from kopiwatch.backup.dump.phase import Complaints, dump_bytes, sweep
from kopiwatch.engine.port import ExecResult
from kopiwatch.errors import ContainerGone, EngineError, EngineUnreachable
from kopiwatch.testing.engine import Streamed

pytestmark = pytest.mark.anyio
REDIS = b"REDIS0011 data \xff12345678"
PID = b"kopiwatch-pid 77\n"


class Server:
    """The member ``db`` as a Redis server that answers each dump with the next of ``answers``."""

    def __init__(self, world, *answers: Streamed, **labels: str) -> None:
        self.world = world
        self.answers = list(answers)
        self.argv: list[tuple[str, ...]] = []
        self.stdin: list[bytes] = []
        self.killed: list[tuple[str, ...]] = []
        world.program.trees["dumps"] = {"db.redis.rdb": REDIS}
        row = world.engine.all[world.db].row
        row.labels["kopi.dump"] = "redis"
        for name, value in labels.items():
            row.labels[f"kopi.{name.replace('__', '.')}"] = value
        world.engine.all[world.db].streamer = self.stream
        world.engine.all[world.db].handler = self.kill

    def stream(self, argv: tuple[str, ...], _user: str, stdin: bytes) -> Streamed:
        self.argv.append(argv)
        self.stdin.append(stdin)
        answer = self.answers.pop(0) if self.answers else Streamed((REDIS,), PID)
        if answer.exit_code or answer.error is not None or answer.exit_code is None:
            return answer
        return Streamed((*answer.out, argv[4].encode()), answer.err)

    def kill(self, argv, _user):
        self.killed.append(argv)
        return ExecResult(0, "")

    def left(self) -> list[str]:
        return [str(path) for path in self.world.state.staging.glob("*/dumps")]


async def test_dump_is_stored_with_the_volumes_and_staged_no_longer(world):
    server = Server(world)
    result = await world.run()
    assert result.verdict == "success"
    sources = {source.path: source for source in result.sources}
    assert sources["dumps/db.redis.rdb"].size == len(REDIS)
    assert "volumes/data" in sources
    phases = [time.phase for time in result.phases]
    assert phases.index("check") < phases.index("dumps") < phases.index("ready")
    assert server.left() == []
    assert any("dumped db (redis)" in text for action, text in world.said.events)


async def test_recipe_says_what_each_dump_is_and_how_it_is_fed_back(world):
    end = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"
    Server(world, Streamed((end,)), dump="postgres", dump__user="shop", dump__database="orders")
    world.program.trees["dumps"] = {"db.postgres.sql": end}
    assert (await world.run()).verdict == "success"
    recipe = json.loads((world.state.recipe("shop") / "unit.json").read_text())
    (dump,) = recipe["dumps"]
    assert dump["path"] == "dumps/db.postgres.sql"
    assert (dump["engine"], dump["member"], dump["service"]) == ("postgres", "db", "db")
    assert (dump["user"], dump["database"]) == ("shop", "orders")
    assert "psql" in dump["feed"]
    assert "dumps/db.postgres.sql" in recipe["expected"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Streamed((REDIS,), PID + b"oops\n", 3), "dump-failed"),
        (Streamed((), PID), "dump-empty"),
        (Streamed((b"REDIS",), PID), "dump-cut"),
        (Streamed((REDIS,), PID, None), "dump-timeout"),
        (Streamed((REDIS,), PID, error=EngineError("the connection was cut")), "dump-cut"),
        (Streamed((REDIS,), PID, error=ContainerGone("no such container")), "dump-cut"),
    ],
)
async def test_dump_that_is_not_whole_fails_the_run_and_stops_nobody(world, answer, reason):
    server = Server(world)
    assert (await world.run(run="r1")).verdict == "success"
    world.engine.calls.clear()
    server.answers.append(answer)
    result = await world.run(run="r2")
    assert (result.verdict, result.reason, result.failed_in) == ("failed", reason, "dumps")
    assert "the dump of db (redis)" in result.message
    assert result.hint
    assert result.before_window
    assert "kopiwatch-pid" not in result.tail
    assert world.engine.order("stop", "pause", "worker") == []
    assert server.left() == []
    assert [snapshot.complete for snapshot in world.repository.contents.snapshots] == [True]


async def test_dump_that_has_not_ended_is_ended_inside_the_member(world):
    server = Server(world, Streamed((REDIS,), PID, None), dump__timeout="10m")
    result = await world.run()
    assert result.reason == "dump-timeout"
    assert [argv[-1] for argv in server.killed] == ["77"]
    (call,) = [call for call in world.engine.calls if call.operation == "exec_stream"]
    assert call.timeout == timedelta(minutes=10)


async def test_docker_that_does_not_answer_is_no_fault_of_the_database(world):
    Server(world, Streamed((), PID, error=EngineUnreachable("no answer")))
    result = await world.run()
    assert (result.verdict, result.reason, result.exit_code) == ("failed", "engine-unreachable", 5)


async def test_server_that_starts_up_is_asked_once_more_and_only_then(world):
    loading = Streamed((), PID + b"LOADING Redis is loading the dataset in memory\n", 1)
    server = Server(world, loading)
    assert (await world.run(run="r1")).verdict == "success"
    assert len(server.argv) == 2
    assert dump_phase.STARTING_SECONDS in world.time.slept
    server.answers += [loading, loading]
    assert (await world.run(run="r2")).reason == "dump-failed"
    server.answers += [Streamed((), PID + b"NOAUTH\n", 1)]
    assert (await world.run(run="r3")).reason == "dump-failed"
    assert len(server.argv) == 5


@pytest.mark.parametrize("state", ["exited", "paused"])
async def test_database_that_does_not_run_fails_the_run(world, state):
    """Who is down before the run stays down, and cannot be dumped."""
    Server(world)
    world.engine.set_state(world.db, state)
    result = await world.run()
    assert (result.verdict, result.reason, result.failed_in) == (
        *("failed", "dump-not-running"),
        "check",
    )
    assert "take kopi.dump from db" in result.hint
    assert world.engine.state(world.db) == state


async def test_password_of_the_sidecar_goes_by_standard_input(world, monkeypatch):
    server = Server(world, dump__password_env="DB_PASSWORD")
    result = await world.run(run="r1")
    assert (result.reason, "DB_PASSWORD" in result.message) == ("dump-password", True)
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    assert (await world.run(run="r2")).verdict == "success"
    assert server.stdin == [b"hunter2\n"]
    assert "hunter2" not in "".join(server.argv[0])
    for file in world.state.path.rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes()


async def test_own_secrets_are_given_to_no_container(world, monkeypatch, tmp_path):
    """A label cannot ask for the repository's password."""
    secret = tmp_path / "repository"
    secret.write_text("precious")
    (tmp_path / "link").symlink_to(secret)
    monkeypatch.setenv("KOPIWATCH_PASSWORD_FILE", str(secret))
    server = Server(world, dump__password_file=str(tmp_path / "link"))
    result = await world.run()
    assert (result.reason, "secret of kopiwatch" in result.message) == ("dump-password", True)
    assert server.argv == []


async def test_room_for_the_dump_is_looked_at_first(world, monkeypatch):
    """By the size of the last one."""
    server = Server(world)
    await world.run(run="r1")
    monkeypatch.setattr(dump_phase, "GROWTH", 1e15)
    result = await world.run(run="r2")
    assert (result.reason, result.failed_in) == ("dump-space", "check")
    assert "need about" in result.message
    assert len(server.argv) == 1


async def test_sizes_of_the_last_dumps_come_from_the_repository(world):
    Server(world)
    await world.run()
    (snapshot,) = world.repository.contents.snapshots
    assert await dump_bytes(world.repository, snapshot) == {"dumps/db.redis.rdb": len(REDIS)}
    assert await dump_bytes(world.repository, None) == {}


async def test_dump_that_no_label_asks_for_any_more_has_vanished(world):
    """Until somebody accepts it."""
    Server(world)
    await world.run(run="r1")
    del world.engine.all[world.db].row.labels["kopi.dump"]
    result = await world.run(run="r2")
    assert (result.verdict, result.reason) == ("partial", "source-vanished")
    assert "dumps/db.redis.rdb has vanished" in result.message
    assert "no label asks for it" in result.message


def test_sweep_removes_what_killed_runs_left_and_nothing_else(tmp_path):
    for name in ("shop/dumps", "shop/recipe", "blog/dumps"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    sweep(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "shop/recipe"
    ]


def test_pid_is_read_from_the_first_line_in_whatever_pieces_it_comes():
    for step in (1, 5, 100):
        complaints = Complaints()
        said = PID + b"more " * 2000
        for at in range(0, len(said), step):
            complaints.add(said[at : at + step])
        assert complaints.pid == 77
    complaints = Complaints()
    complaints.add(b"sh: not found\nkopiwatch-pid 1\n")
    assert complaints.pid is None
    assert complaints.text.startswith("sh: not found")


async def test_password_that_a_client_repeats_is_shown_to_nobody(world, monkeypatch):
    """What a client says goes into the log, the notification and the history."""
    monkeypatch.setenv("DB_PASSWORD", "hunter2-secret")
    server = Server(world, dump__password_env="DB_PASSWORD")
    said = PID + b"cannot log in as app:hunter2-secret@db\x1b[0m\n"
    server.answers.append(Streamed((), said, 1))
    result = await world.run()
    assert result.reason == "dump-failed"
    assert "app:***@db" in result.message
    assert "hunter2" not in result.tail + result.message
    assert "\x1b" not in result.tail + result.message
