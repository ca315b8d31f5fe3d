"""The worker: mounts in front of it, Kopia behind a gate, one JSON object per line on its streams.

It runs in a container of its own or in a private mount namespace, for one run of one unit. It is
started by the path of its folder (``python3 -I -S worker``), imports the standard library only,
and holds nothing secret outside the folder ``base``, which is a tmpfs.

Orders on standard input (``do``) and what it says on standard output (``say``):

===============  ==================================================================================
``set-up``       write ``files`` (base64) below ``base``; probe that each folder of ``probe`` can be
                 written, each path of ``expect`` is there, and none of ``sources`` shows a folder
                 of ``probe`` or that of the lock; take the Kopia lock. Says ``set-up`` with the
                 paths of ``expect`` that lie in memory (``volatile``)
``sync``         write what the kernel still holds of the file systems of ``paths``. Says ``synced``
``survey``       walk the ``sources`` (``path``, ``name``): write the lists of what Kopia does not
                 keep below ``into``, count what changed ``since``. Says ``surveyed`` with a
                 ``result``, before or after whatever else is ordered meanwhile
``files``        read small files of Docker's host for the recipe, see ``host_files.py``. Says
                 ``files`` with what it found as ``result``
``probe-stage``  try which ``sources`` can be cloned into which ``stages``. Says ``probed``
``pre-stage``    copy the sources into a stage while everything runs. Says ``pre-staged``
``stage``        in the window: bring the stage up to date. Says ``staged``
``unstage``      delete what is in ``stages``. Says ``unstaged``
``launch``       start Kopia (``argv``, ``env``). Says ``ready`` when Kopia waits at the gate
``go``           open the gate; with a ``path``, Kopia reads that in the source's place. Says
                 ``read`` when Kopia has read everything and waits again
``flush``        let Kopia write the rest and the manifest. Says ``exit`` when it has ended, with
                 its code, its output and the end of its errors
``kill``         SIGKILL for Kopia and all it started. Says ``exit`` when it is confirmed gone, or
                 with ``remains`` after 5 s, when a disk that hangs holds it in the kernel: it never
                 runs again, and the Kopia lock is let go. What is staged stays, and is watched
===============  ==================================================================================

The orders of the stage and their answers (field ``result``) are in :mod:`kopiwatch.worker.staging`.

The worker itself never touches a source: a child does, and may hang there for good (``stuck``).

Says ``error`` with a ``reason`` (``protocol``, ``probe``, ``missing``, ``no-data``, ``own``,
``stuck``, ``busy``, ``sync``, ``attributes``, ``launch``) when an order cannot be carried out, and
``alive`` every minute, because proxies cut quiet streams. End of input is an order, too: whoever
held the other end is gone, so Kopia is killed and the worker leaves. That makes it a dead man's
switch.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import functools
import json
import os
import selectors
import signal
import time

from kopiwatch.worker.child import STUCK, Child, in_child
from kopiwatch.worker.host_files import read_files
from kopiwatch.worker.kopia_process import Kopia
from kopiwatch.worker.probe import probe_stages
from kopiwatch.worker.sources import look_at, refuse_own, sync_filesystems
from kopiwatch.worker.speech import READ_BYTES, Refused, say
from kopiwatch.worker.staging import Staging, sweep_all
from kopiwatch.worker.survey import survey

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

PROTOCOL = 3
HEARTBEAT_SECONDS = 60.0
LOCK_WAIT_SECONDS = 30.0
CHILD_SECONDS = 30.0
SYNC_SECONDS = 600.0
SILENT_SECONDS = 60.0
"""A walk may take hours where there are many files; one that shows no life for so long is stuck."""
PROBE_SECONDS = 60.0
SWEEP_SECONDS = 600.0
FILES_SECONDS = 10.0
KILLED_SECONDS = 5.0


def write_private(path: str, content: bytes) -> None:
    """Write a file that only we can read."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def probe_folder(folder: str) -> None:
    """Write, sync and remove a file: the only proof that this process may write here."""
    path = os.path.join(folder, f".kopiwatch-probe-{os.getpid()}-{time.time_ns()}")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, b"kopiwatch")
            os.fsync(handle)
        finally:
            os.close(handle)
            os.unlink(path)
    except OSError as error:
        raise Refused("probe", f"cannot write to {folder}: {error.strerror}") from error


def take_lock(path: str, owner: str) -> int:
    """Take the Kopia lock and leave our name in it; Kopia inherits the descriptor.

    Returns the descriptor. The lock lives as long as any process holds a copy of it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > give_up:
                holder = os.pread(handle, 4096, 0).decode(errors="replace")
                os.close(handle)
                raise Refused("busy", holder) from error
            time.sleep(0.05)
    os.ftruncate(handle, 0)
    os.pwrite(handle, owner.encode(), 0)
    return handle


class Errand:
    """Work under way in a child: the word to say at its end, and when it is given up.

    That is when it has shown no life for so many seconds.
    """

    def __init__(self, child: Child, word: str, what: str, seconds: float) -> None:
        self.child = child
        self.word = word
        self.what = what
        self.seconds = seconds
        self.lives()

    def lives(self) -> None:
        """It has just shown life."""
        self.give_up_at = time.monotonic() + self.seconds


class Worker:
    """Takes orders until the input ends."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, self.on_order)
        self.pending = b""
        self.base = ""
        self.lock = -1
        self.kopia: Kopia | None = None
        self.errands: list[Errand] = []
        self.leaving = False
        self.reads_stage = False
        self.staging = Staging(self.selector, lambda: self.lock, self.stop_reader)

    def run(self) -> None:
        """Serve orders; on the way out Kopia is dead."""
        os.set_blocking(0, False)
        say("hello", protocol=PROTOCOL, pid=os.getpid())
        next_beat = time.monotonic() + HEARTBEAT_SECONDS
        while not self.leaving:
            ends = [self.staging.give_up_at, *(errand.give_up_at for errand in self.errands)]
            next_turn = min(next_beat, *ends)
            ready = self.selector.select(max(0.0, next_turn - time.monotonic()))
            # The gate's words first: Kopia may say "after" and end within one turn of this loop.
            for key, _ in sorted(ready, key=lambda item: item[0].data == self.on_end):
                # What was done for one may have ended another, whose descriptor is gone then.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)
            now = time.monotonic()
            self.end_errands([errand for errand in self.errands if now >= errand.give_up_at])
            self.staging.look_at_clock()
            if now >= next_beat:
                say("alive")
                next_beat = now + HEARTBEAT_SECONDS
        self.end_errands(self.errands, say_so=False)
        if self.kopia is not None:
            self.end_kopia(self.kopia)

    def on_order(self, _: object) -> None:
        """Read what came in and carry out each whole line."""
        try:
            block = os.read(0, READ_BYTES)
        except BlockingIOError:
            return
        if not block:
            self.leaving = True
            return
        self.pending += block
        while b"\n" in self.pending:
            line, self.pending = self.pending.split(b"\n", 1)
            try:
                self.obey(line)
            except Refused as refusal:
                say("error", reason=refusal.reason, text=refusal.text)
            except KeyError as error:
                say("error", reason="protocol", text=f"an order lacks {error}")
            except OSError as error:
                say("error", reason="system", text=str(error))

    def obey(self, line: bytes) -> None:
        """Carry out one order."""
        try:
            order = json.loads(line)
            what = order["do"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused("protocol", f"not an order: {type(error).__name__}") from error
        if what == "set-up":
            self.set_up(order)
        elif what == "launch":
            self.launch(order)
        elif what == "sync":
            work = functools.partial(sync_filesystems, order["paths"])
            self.begin_errand("synced", "writing back the sources", SYNC_SECONDS, work)
        elif what == "survey":
            walk = functools.partial(survey, order["sources"], order["since"], order["into"])
            self.begin_errand("surveyed", "walking the sources", SILENT_SECONDS, walk)
        elif what == "probe-stage":
            paths = [source["path"] for source in order["sources"]]
            probe = functools.partial(probe_stages, order["stages"], paths)
            self.begin_errand("probed", "probing the stage", PROBE_SECONDS, probe)
        elif what in ("pre-stage", "stage"):
            self.staging.make(order)
        elif what == "unstage":
            sweep = functools.partial(sweep_all, order["stages"])
            self.staging.end()
            self.begin_errand("unstaged", "deleting the stage", SWEEP_SECONDS, sweep)
        elif what == "files":
            keys = ("roots", "own", "locks", "paths", "folders", "limits")
            read = functools.partial(read_files, **{key: order[key] for key in keys})
            self.begin_errand("files", "reading the project's files", FILES_SECONDS, read)
        elif what in ("go", "flush") and self.kopia is not None:
            self.open_gate(self.kopia, what, order)
        elif what == "kill":
            self.end_errands(self.errands, say_so=False)
            self.staging.leave_off()
            self.stop_kopia()
        else:
            raise Refused("protocol", f"unexpected order {what!r}")

    def open_gate(self, kopia: Kopia, what: str, order: dict[str, Any]) -> None:
        """Let Kopia go on, but not into a stage that was dropped."""
        into_stage = what == "go" and order.get("stage", False)
        if into_stage:
            self.staging.require()
        self.reads_stage = into_stage
        kopia.open_gate(f"{what} {order.get('path', '')}".rstrip())

    def set_up(self, order: dict[str, Any]) -> None:
        """Write the secrets, prove that everything is in place, take the lock."""
        self.base = order["base"]
        os.makedirs(self.base, mode=0o700, exist_ok=True)
        for name, content in order["files"].items():
            write_private(os.path.join(self.base, name), base64.b64decode(content))
        refuse_own(order["sources"], [*order["probe"], os.path.dirname(order["lock"])])
        look = functools.partial(look_at, order["expect"])
        volatile = in_child("looking at the sources", CHILD_SECONDS, look)
        for folder in order["probe"]:
            probe_folder(folder)
        if self.lock < 0:
            self.lock = take_lock(order["lock"], order["owner"])
        say("set-up", volatile=volatile)

    def launch(self, order: dict[str, Any]) -> None:
        """Start Kopia; it opens the repository and waits at the gate."""
        if self.kopia is not None or self.lock < 0:
            raise Refused("protocol", "launch needs a set-up and no Kopia")
        gate = os.path.join(self.base, "gate")
        self.kopia = Kopia(order["argv"], order["env"], gate, self.lock)
        self.selector.register(self.kopia.said, selectors.EVENT_READ, self.on_gate)
        self.selector.register(self.kopia.stdout, selectors.EVENT_READ, self.on_pipe)
        self.selector.register(self.kopia.stderr, selectors.EVENT_READ, self.on_pipe)
        self.selector.register(self.kopia.pidfd, selectors.EVENT_READ, self.on_end)

    def begin_errand(
        self, word: str, what: str, seconds: float, work: Callable[[], object]
    ) -> None:
        """Do ``work`` in a child and go on; its end is said as ``word``, with a ``result``.

        It is given up when it has shown no life for so many ``seconds``.
        """
        errand = Errand(Child(work, self.lock), word, what, seconds)
        self.errands.append(errand)
        self.selector.register(errand.child, selectors.EVENT_READ, self.on_errand)

    def on_errand(self, child: Child) -> None:
        """Say what came of an errand, once its child has told all."""
        (errand,) = (errand for errand in self.errands if errand.child is child)
        if not child.take():
            errand.lives()
            return
        self.selector.unregister(child)
        self.errands.remove(errand)
        try:
            say(errand.word, result=child.result())
        except Refused as refusal:
            say("error", reason=refusal.reason, text=refusal.text)

    def end_errands(self, errands: list[Errand], *, say_so: bool = True) -> None:
        """Leave off what takes too long, or what nobody waits for any more."""
        for errand in list(errands):
            self.selector.unregister(errand.child)
            self.errands.remove(errand)
            errand.child.give_up()
            if say_so:
                say("error", reason="stuck", text=f"{errand.what} did not end in time: {STUCK}")

    def on_gate(self, _: object) -> None:
        """Pass on what the gate says."""
        if self.kopia is None:
            return
        for word in self.kopia.hear():
            self.reads_stage = self.reads_stage and word != "after"
            say({"before": "ready", "after": "read"}.get(word, "gate"), word=word)

    def on_pipe(self, stream: IO[bytes]) -> None:
        """Keep Kopia's pipes empty."""
        if self.kopia is not None and not self.kopia.drain(stream):
            self.selector.unregister(stream)

    def on_end(self, _: object) -> None:
        """Say how Kopia ended."""
        kopia = self.kopia
        if kopia is None:
            return
        self.on_gate(None)
        for fileobj in (kopia.said, kopia.stdout, kopia.stderr, kopia.pidfd):
            if fileobj in (key.fileobj for key in self.selector.get_map().values()):
                self.selector.unregister(fileobj)
        result = kopia.reap()
        for handle in (kopia.said, kopia.word, kopia.pidfd):
            os.close(handle)
        self.kopia = None
        self.reads_stage = False
        say("exit", **result)

    def stop_kopia(self) -> None:
        """Kill Kopia and confirm it; nothing to kill is confirmed at once."""
        if self.kopia is None:
            say("exit", code=None, killed=True, out="", err="")
            return
        if self.end_kopia(self.kopia):
            self.on_end(None)
        else:
            say("exit", code=None, killed=True, out="", err="", remains=True)

    def stop_reader(self) -> bool:
        """Kill a Kopia that reads from the stage; whether there was one."""
        self.on_gate(None)
        if self.kopia is None or not self.reads_stage:
            return False
        self.stop_kopia()
        return True

    def end_kopia(self, kopia: Kopia) -> bool:
        """Kill it; False if it cannot end, because a disk that hangs holds it in the kernel.

        With SIGKILL pending it never runs again, but keeps its descriptors: the lock is let go for
        it. What else runs here goes, too, where we are PID 1 and all of it is ours.
        """
        kopia.kill()
        if kopia.ended(KILLED_SECONDS):
            return True
        if os.getpid() == 1:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                pass
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        return False


def main() -> None:
    """Serve until standard input ends or SIGTERM comes."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever gives the orders
    worker = Worker()
    try:
        worker.run()
    finally:
        if worker.kopia is not None:
            worker.kopia.kill()
        worker.staging.leave()
