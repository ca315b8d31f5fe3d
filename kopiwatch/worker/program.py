"""The worker: mounts in front of it, Kopia behind a gate, one JSON object per line on its streams.

It runs in a container of its own or in a private mount namespace, for one run of one unit. It is
started by path (``python3 -I -S program.py``), imports the standard library only, and holds
nothing secret outside the folder ``base``, which is a tmpfs.

Orders on standard input (``do``) and what it says on standard output (``say``):

==========  =======================================================================================
``set-up``  write ``files`` (base64) below ``base``; probe that each folder of ``probe`` can be
            written, each path of ``expect`` is there, and none of ``sources`` shows a folder of
            ``probe`` or that of the lock; take the Kopia lock. Says ``set-up`` with the paths of
            ``expect`` that lie in memory (``volatile``)
``sync``    write what the kernel still holds of the file systems of ``paths``. Says ``synced``
``launch``  start Kopia (``argv``, ``env``). Says ``ready`` when Kopia waits at the gate
``go``      open the gate. Says ``read`` when Kopia has read everything and waits again
``flush``   let Kopia write the rest and the manifest. Says ``exit`` when it has ended, with its
            code, its output and the end of its errors
``kill``    SIGKILL for Kopia and all it started. Says ``exit`` when it is confirmed gone, or with
            ``remains`` after 5 s, when a disk that hangs holds it in the kernel: it never runs
            again, and the Kopia lock is let go
==========  =======================================================================================

The worker itself never touches a source: a child does, and may hang there for good (``stuck``).

Says ``error`` with a ``reason`` (``protocol``, ``probe``, ``missing``, ``no-data``, ``own``,
``stuck``, ``busy``, ``sync``, ``launch``) when an order cannot be carried out, and ``alive`` every
minute, because proxies cut quiet streams. End of input is an order, too: whoever held the other end
is gone, so Kopia is killed and the worker leaves. That makes it a dead man's switch.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import functools
import json
import os
import select
import selectors
import signal
import stat
import subprocess
import time

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

PROTOCOL = 2
HEARTBEAT_SECONDS = 60.0
LOCK_WAIT_SECONDS = 30.0
CHILD_SECONDS = 30.0
SYNC_SECONDS = 600.0
KILLED_SECONDS = 5.0
KEEP_ERROR_BYTES = 16 * 1024
KEEP_OUTPUT_BYTES = 4 * 1024 * 1024
READ_BYTES = 64 * 1024


class Refused(Exception):
    """An order that cannot be carried out; the worker stays and says so."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def say(what: str, **fields: object) -> None:
    """Write one line to standard output, whole, at once."""
    line = json.dumps({"say": what, "at": time.time(), **fields}).encode() + b"\n"
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]


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


def expect_path(path: str) -> None:
    """Refuse unless a folder or file is there: anything else would be an empty source."""
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise Refused("missing", f"{path} is not there: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        kind = (
            "a socket" if stat.S_ISSOCK(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"
        )
        raise Refused("no-data", f"{path} is {kind}, and holds no data")


def in_memory(paths: list[str]) -> list[str]:
    """The paths that lie on, or hold, a file system without a disk.

    It tells nobody of writes by mmap.
    """
    kinds = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, more = line.partition(" - ")
            kinds[fields.split(" ")[2]] = more.split(" ")[0]

    def volatile(path: str) -> bool:
        device = os.lstat(path).st_dev
        return kinds.get(f"{os.major(device)}:{os.minor(device)}") in ("tmpfs", "ramfs")

    return [path for path in paths if any(volatile(each) for each in with_nested([path]))]


def with_nested(paths: list[str]) -> list[str]:
    """The paths, and whatever is mounted below them: Kopia reads on across mount points."""
    points = [point for point, _, _ in mounts()]
    below = [p for p in points if any(p.startswith(path.rstrip("/") + "/") for path in paths)]
    return list(dict.fromkeys([*paths, *below]))


def mounts() -> list[tuple[str, str, str]]:
    """Mount point, device and the folder of that device's file system, of each mount we have."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.split(" ") for line in table]
    plain = [(row[4], row[2], row[3]) for row in rows]
    return [(unescaped(point), device, unescaped(root)) for point, device, root in plain]


def unescaped(text: str) -> str:
    """A path of mountinfo, where blanks, tabs, newlines and backslashes stand as octal numbers."""
    for character in " \t\n\\":
        text = text.replace(f"\\{ord(character):03o}", character)
    return text


def refuse_own(sources: list[str], own: list[str]) -> None:
    """Refuse a source that holds or lies in what is our own, by whatever name it was mounted.

    The kernel has resolved all symbolic links here: two mounts see the same files if one's folder
    of the same file system holds the other's.
    """
    table = mounts()
    ours = [(device, root) for point, device, root in table if point in own]
    for source in sources:
        shown = [row for row in table if f"{row[0]}/".startswith(f"{source}/")]
        for _, device, root in shown:
            if any(device == other and nested(root, folder) for other, folder in ours):
                raise Refused("own", f"{source} shows kopiwatch's own repository or state")


def nested(one: str, other: str) -> bool:
    """Whether one of two folders is or holds the other."""
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def sync_filesystems(paths: list[str]) -> None:
    """syncfs(2) on each file system once: pages written by mmap get their times, too."""
    import ctypes  # noqa: PLC0415 - slow to load, and only some runs need it

    library = ctypes.CDLL(None, use_errno=True)
    done = set()
    for path in with_nested(paths):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            device = os.fstat(handle).st_dev
            if device not in done and library.syncfs(handle) != 0:
                problem = os.strerror(ctypes.get_errno())
                raise Refused("sync", f"cannot sync the file system of {path}: {problem}")
            done.add(device)
        finally:
            os.close(handle)


def in_child(what: str, seconds: float, work: Callable[[], object], close: int = -1) -> object:
    """What ``work`` returns (JSON), done in a child: who touches a dead disk waits for ever.

    ``close`` is a descriptor that the child must not keep. Raises Refused: as ``work`` did, or
    ``stuck`` when the child has not ended within ``seconds``, or before an order came that can
    only be to leave off; it is killed then, but may remain.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if close >= 0:
                os.close(close)
            try:
                answer = {"result": work()}
            except Refused as refusal:
                answer = {"reason": refusal.reason, "text": refusal.text}
            except OSError as error:
                answer = {"reason": "system", "text": str(error)}
            with os.fdopen(writing, "wb") as file:
                file.write(json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    told = b""
    end = time.monotonic() + seconds
    try:
        while reading in select.select([reading, 0], [], [], max(0.0, end - time.monotonic()))[0]:
            block = os.read(reading, READ_BYTES)
            told += block
            if not block:
                os.waitpid(child, 0)
                break
        else:
            os.kill(child, signal.SIGKILL)
            raise Refused("stuck", f"{what} did not end in time: a disk below hangs")
    finally:
        os.close(reading)
    answer = json.loads(told or b'{"reason": "system", "text": "a child died"}')
    if "reason" in answer:
        raise Refused(answer["reason"], answer["text"])
    return answer["result"]


def look_at(paths: list[str]) -> list[str]:
    """Refuse unless each path is there; those that lie in memory."""
    for path in paths:
        expect_path(path)
    return in_memory(paths)


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


class Kopia:
    """The one Kopia process of this worker, and the FIFOs of its gate."""

    def __init__(self, argv: list[str], env: dict[str, str], gate: str, lock: int) -> None:
        self.said_path = os.path.join(gate, "said")
        self.word_path = os.path.join(gate, "word")
        os.makedirs(gate, mode=0o700, exist_ok=True)
        for path in (self.said_path, self.word_path):
            if not os.path.exists(path):
                os.mkfifo(path, 0o600)
        # Both ends held open, so that neither the gate nor we ever block in open().
        self.said = os.open(self.said_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.word = os.open(self.word_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.heard = b""
        self.output = b""
        self.errors = b""
        self.killed = False
        try:
            self.process = subprocess.Popen(
                argv,
                env={**env, "KOPIWATCH_GATE": gate},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            raise Refused("launch", f"{argv[0]}: {error.strerror}") from error
        assert self.process.stdout is not None  # noqa: S101 - PIPE was asked for
        assert self.process.stderr is not None  # noqa: S101
        self.stdout = self.process.stdout
        self.stderr = self.process.stderr
        for stream in (self.stdout, self.stderr):
            os.set_blocking(stream.fileno(), False)
        self.pidfd = os.pidfd_open(self.process.pid)

    def hear(self) -> list[str]:
        """Return the words that the gate has said since the last call."""
        try:
            self.heard += os.read(self.said, READ_BYTES)
        except BlockingIOError:
            return []
        *words, self.heard = self.heard.split(b"\n")
        return [word.decode(errors="replace") for word in words]

    def open_gate(self, word: str) -> None:
        """Let Kopia read (``go``), or write (``flush``)."""
        os.write(self.word, word.encode() + b"\n")

    def drain(self, stream: IO[bytes]) -> bool:
        """Take what a pipe holds; False at its end."""
        try:
            block = os.read(stream.fileno(), READ_BYTES)
        except BlockingIOError:
            return True
        if stream is self.stdout:
            self.output = (self.output + block)[-KEEP_OUTPUT_BYTES:]
        else:
            self.errors = (self.errors + block)[-KEEP_ERROR_BYTES:]
        return bool(block)

    def kill(self) -> None:
        """SIGKILL, and nothing gentler: a polite Kopia saves half a snapshot and calls it rc 0."""
        self.killed = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return self.pidfd in select.select([self.pidfd], [], [], seconds)[0]

    def reap(self) -> dict[str, object]:
        """Wait for the process, take the rest of its output, and tell how it ended."""
        code = self.process.wait()
        self.kill_remains()
        for stream in (self.stdout, self.stderr):
            while True:
                before = len(self.output) + len(self.errors)
                if not self.drain(stream) or len(self.output) + len(self.errors) == before:
                    break
        return {
            "code": code,
            "killed": self.killed,
            "out": self.output.decode(errors="replace"),
            "err": self.errors.decode(errors="replace"),
        }

    def kill_remains(self) -> None:
        """End what Kopia left behind (a gate, an rclone): nothing may outlive it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


class Worker:
    """Takes orders until the input ends."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, self.on_order)
        self.pending = b""
        self.base = ""
        self.lock = -1
        self.kopia: Kopia | None = None
        self.leaving = False

    def run(self) -> None:
        """Serve orders; on the way out Kopia is dead."""
        os.set_blocking(0, False)
        say("hello", protocol=PROTOCOL, pid=os.getpid())
        next_beat = time.monotonic() + HEARTBEAT_SECONDS
        while not self.leaving:
            ready = self.selector.select(max(0.0, next_beat - time.monotonic()))
            # The gate's words first: Kopia may say "after" and end within one turn of this loop.
            for key, _ in sorted(ready, key=lambda item: item[0].data == self.on_end):
                key.data(key.fileobj)
            if time.monotonic() >= next_beat:
                say("alive")
                next_beat = time.monotonic() + HEARTBEAT_SECONDS
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
            in_child("writing back the sources", SYNC_SECONDS, work, close=self.lock)
            say("synced")
        elif what in ("go", "flush") and self.kopia is not None:
            self.kopia.open_gate(what)
        elif what == "kill":
            self.stop_kopia()
        else:
            raise Refused("protocol", f"unexpected order {what!r}")

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

    def on_gate(self, _: object) -> None:
        """Pass on what the gate says."""
        if self.kopia is None:
            return
        for word in self.kopia.hear():
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


if __name__ == "__main__":
    main()
