"""The sidecar's main process: wires the loops, owns the task group and the shutdown order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from kopiwatch import __version__, wiring
from kopiwatch.backup.state import StateFolder
from kopiwatch.clock import SYSTEM, Clock
from kopiwatch.config import Config, Listen
from kopiwatch.daemon.boards import make_board
from kopiwatch.daemon.control import Control
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.executor import Executor
from kopiwatch.daemon.job import Job
from kopiwatch.daemon.leaving import grace_of, leave
from kopiwatch.daemon.message import BackupOrder
from kopiwatch.daemon.planner import Planner
from kopiwatch.daemon.reload import Reloader
from kopiwatch.daemon.sight import Sight
from kopiwatch.daemon.submit import submit
from kopiwatch.engine.own import MOUNTINFO, container_id
from kopiwatch.errors import BusyError, ConfigError, HistoryError, KopiwatchError
from kopiwatch.kopia.lock import FileLock, holder
from kopiwatch.report.board import Board
from kopiwatch.report.exposition import Exposition
from kopiwatch.report.history import History
from kopiwatch.report.lag import watch_lag
from kopiwatch.report.log import Log
from kopiwatch.report.web import Web
from kopiwatch.task import unwrapped
from kopiwatch.watch.watcher import Watcher

PORT = 9187
SHOW_PAUSE_SECONDS = 0.25
"""Changes that come close together are shown once."""
TICK_SECONDS = 5.0


async def run_daemon(
    config: Config,
    *,
    reload: Callable[[], Config],
    clock: Clock = SYSTEM,
    random: Callable[[], float],
) -> int:
    """Watch and back up until a signal asks to leave; returns the exit code.

    ``reload`` reads the configuration anew. Raises ConfigError for whatever is wrong at the start,
    BusyError if another daemon uses the same state folder, StaleSocket when only a restart helps.
    """
    log = Log(config.log_format, config.log_level)
    try:
        async with _opened(config, log, clock, random) as desk:
            daemon = Daemon(desk, reload, random)
            return await daemon.run()
    finally:
        await anyio.to_thread.run_sync(log.close)


@asynccontextmanager
async def _opened(
    config: Config, log: Log, clock: Clock, random: Callable[[], float]
) -> AsyncIterator[Desk]:
    """The state folder, ours alone, and the history in it."""
    state = StateFolder(config.state_dir)
    identity = await anyio.to_thread.run_sync(state.open)
    lock = FileLock(state.locks / "daemon.lock", command="run")
    try:
        await lock.acquire()
    except BusyError as error:
        raise BusyError(
            f"another kopiwatch daemon uses the state folder {state.path}: {error.message}",
            hint="one daemon per state folder; give each instance a KOPIWATCH_STATE_DIR of its own",
        ) from error
    try:
        try:
            opened = await History.open(state.path, clock=clock)
        except HistoryError as error:
            raise ConfigError(
                f"the history in the state folder cannot be used: {error.message}", hint=error.hint
            ) from error
        desk = Desk(
            config,
            state,
            identity,
            opened.history,
            fresh=opened.fresh or opened.set_aside is not None,
            listener=log,
            clock=clock,
            random=random,
        )
        try:
            log.say("start", f"kopiwatch {__version__} starts", state=str(state.path))
            if opened.set_aside is not None:
                log.say(
                    "history",
                    f"the history was damaged; it is kept as {opened.set_aside} and rebuilt from "
                    "the repository",
                    level="error",
                )
            await desk.ledger.refresh()
            yield desk
        finally:
            with anyio.CancelScope(shield=True):
                await desk.ledger.close()
    finally:
        lock.release()


class Daemon:
    """All loops around one desk. :meth:`run` once."""

    def __init__(
        self, desk: Desk, reload: Callable[[], Config], random: Callable[[], float]
    ) -> None:
        self.desk = desk
        self.executor = Executor(desk)
        self.sight = Sight(desk)
        self.planner = Planner(desk)
        self.exposition = Exposition(clock=desk.clock)
        config = desk.config
        self.web = Web(
            self.exposition,
            listen=config.listen or Listen(_usual_host(), PORT),
            user=config.metrics_user,
            password=config.metrics_password,
            token=config.metrics_token,
            cert=config.tls_cert,
            key=config.tls_key,
            ready=self._unready,
        )
        self.watcher = Watcher(
            lambda: wiring.engine(desk.config),
            self.sight.seen,
            changed=self._watched,
            listener=desk.listener,
            clock=desk.clock,
            random=random,
            relevant=self.sight.relevant,
            socket=_mounted_socket(config.docker_url),
        )
        self.control = Control(desk.state.path, board=self.board, submit=self._submit)
        self.reloader = Reloader(desk, reload, self.web.reload_tls, self.sight.look_again)
        self._signals = 0
        self._leave = anyio.Event()
        self._hurry = anyio.Event()

    def _unready(self) -> str:
        """Why /metrics cannot be trusted yet; empty if it can."""
        return self.desk.unready or ("" if self.exposition.seeded else "not shown yet")

    async def run(self) -> int:
        """Serve, watch, plan and work until a signal; then leave in order."""
        desk = self.desk
        with unwrapped():
            async with AsyncExitStack() as stack:
                # A signal that comes from now on is one for us to handle.
                tasks = await stack.enter_async_context(anyio.create_task_group())
                await tasks.start(self._heed_signals)
                bound = await stack.enter_async_context(self.web.serving())
                await stack.enter_async_context(self.control.serving())
                desk.listener.say("listen", f"metrics on {bound}")
                for loop in (
                    self._publish,
                    self._tick,
                    self.watcher.run,
                    self.planner.run,
                    self.executor.phases.run,
                    self._measure_lag,
                ):
                    tasks.start_soon(loop)
                working = anyio.Event()
                tasks.start_soon(self._work, working)
                await self._leave.wait()
                with anyio.CancelScope(shield=True):
                    await leave(desk, self.executor, working, self._hurry, await grace_of(desk))
                    desk.jobs.close()
                    self.exposition.update(self.board())
                await self._say_farewell()
                tasks.cancel_scope.cancel()
        return 0

    async def _say_farewell(self) -> None:
        left = await self.executor.count_owed()
        down = "; ".join(f"{unit}: {', '.join(names)}" for unit, names in left.items())
        if down:
            self.desk.listener.say("stop", f"kopiwatch leaves. STILL DOWN: {down}", level="error")
        else:
            self.desk.listener.say("stop", "kopiwatch has left; nothing is down because of it")

    async def _work(self, ended: anyio.Event) -> None:
        try:
            await self.executor.run()
        finally:
            ended.set()

    def board(self) -> Board:
        """Everything as it is now."""
        return make_board(self.desk, self.watcher.facts, self.planner)

    def _watched(self) -> None:
        """The watcher's facts changed."""
        connected = self.watcher.facts.connected
        if connected != self.desk.connected:
            self.desk.connected = connected
            if connected:
                self.executor.docker_is_back()
            self.desk.work.ring()
        self.desk.changed()

    async def _submit(self, order: BackupOrder) -> Job:
        job = await submit(self.desk, order)
        self.executor.hasten()
        return job

    async def _measure_lag(self) -> None:
        await watch_lag(self.exposition.lagged, self.desk.clock)

    async def _publish(self) -> None:
        """Hand a new board to the exporter after each change."""
        while True:
            await self.desk.show.wait()
            self.exposition.update(self.board())
            await self.desk.clock.sleep(SHOW_PAUSE_SECONDS)

    async def _tick(self) -> None:
        """What has no event: other processes' writes, a changed file, units that expire."""
        while True:
            await self.desk.clock.sleep(TICK_SECONDS)
            await self._look_at_the_lock()
            if await self.desk.ledger.refresh():
                self.desk.plan.ring()
            await self.reloader.look()
            await self.sight.expire()

    async def _look_at_the_lock(self) -> None:
        """Whether somebody holds the run lock: a run of ours, or another process."""
        desk = self.desk
        try:
            lock = await anyio.to_thread.run_sync(holder, desk.state.run_lock)
        except KopiwatchError as error:
            desk.say_once("lock", error)
            return
        desk.said_well("lock")
        held = desk.running is not None or lock is not None
        if held != desk.lock_held:
            desk.lock_held = held
            desk.changed()

    async def _heed_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        with anyio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self.desk.listener.say("reload", "SIGHUP: reading the configuration again")
                    await self.reloader.now()
                    continue
                first = not self._leave.is_set()
                words = "leaving; what is down comes back first" if first else "leaving at once"
                self.desk.listener.say("stop", f"{number.name}: {words}")
                self.desk.stopping = True
                self.desk.work.ring()
                (self._leave if first else self._hurry).set()


def _in_container() -> bool:
    return container_id(MOUNTINFO.read_text(errors="replace")) is not None


def _usual_host() -> str:
    """All addresses in a container, whose network is its own; loopback on a host."""
    return "0.0.0.0" if _in_container() else "127.0.0.1"  # noqa: S104 - its own network


def _mounted_socket(url: str) -> Path | None:
    """Docker's socket as a mount of ours, which can outlive the daemon behind it; else None."""
    path = url.removeprefix("unix://")
    return Path(path) if path != url and _in_container() else None
