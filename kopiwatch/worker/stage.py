"""A stage: copies of the sources below one folder, brought up to date as often as is asked."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import stat
import time

from kopiwatch.worker.index import FOLDER_FLAGS, Figures, Folder, key_of, survey
from kopiwatch.worker.replica import Pass
from kopiwatch.worker.sources import mount_of, sync_filesystems, tells_of_mmap
from kopiwatch.worker.space import free_bytes
from kopiwatch.worker.speech import Refused, shown
from kopiwatch.worker.sweep import claim, open_stage, sweep

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO


class Part:
    """One source, its place in the stage, and the index of what the stage was made from."""

    def __init__(self, source: str, target: str, how: str) -> None:
        if how not in ("clone", "copy"):
            raise Refused("protocol", f"a part is cloned or copied, not {how!r}")
        self.source = source
        self.trail = [name for name in target.split("/") if name]
        if not self.trail or not {".", ".."}.isdisjoint(self.trail):
            raise Refused("protocol", f"{target!r} is no place in a stage")
        self.clones = how == "clone"
        self.index = Folder()

    def update(self, stage: int, mount: str, figures: Figures, *, hot: bool, begun_ns: int) -> None:
        """Make the target equal to the source. ``hot``: it changes meanwhile, and comes again."""
        try:
            blind = not self.clones and not tells_of_mmap(self.source)
            is_folder = stat.S_ISDIR(os.lstat(self.source).st_mode)
            folder = self.source if is_folder else os.path.dirname(self.source)
            source = os.open(folder, FOLDER_FLAGS)
        except OSError as error:
            raise self._unreadable(error) from error
        one_pass = Pass(
            self.source,
            mount,
            figures,
            clones=self.clones,
            blind=blind,
            hot=hot,
            begun_ns=begun_ns,
        )
        try:
            target = make_folders(stage, mount, self.trail if is_folder else self.trail[:-1])
            try:
                if is_folder:
                    self._update_folder(one_pass, source, target)
                else:
                    self._update_file(one_pass, source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _unreadable(self, error: OSError) -> Refused:
        return Refused("unreadable", f"{shown(self.source)} cannot be read: {error.strerror}")

    def _update_folder(self, one_pass: Pass, source: int, target: int) -> None:
        """A copy by reading needs: all keys, then a sync, then the data.

        The sync write-protects what it writes back. A store through a mapping before it is in what
        will be read; one after it moves the times, which the key does not know.
        """
        seen = None
        if one_pass.hot and not self.clones:
            seen = survey(source)
            sync_filesystems([self.source])
        try:
            one_pass.folder(self.index, seen, source, target)
        except OSError as error:
            raise self._unreadable(error) from error

    def _update_file(self, one_pass: Pass, source: int, target: int) -> None:
        """The same for a source that is a single file."""
        name = os.path.basename(self.source)
        one_pass.path = [os.path.dirname(self.source)]
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if one_pass.hot and not self.clones:
                sync_filesystems([self.source])
            before, now = self.index.entries.get(name), key_of(status)
            if before != now or one_pass.compares:
                here, there = (source, target), before is not None
                one_pass.take(here, name, status, is_there=there, as_name=self.trail[-1])
        except OSError as error:
            raise self._unreadable(error) from error
        self.index.entries[name] = one_pass.to_record(now, now)
        one_pass.figures.files += 1
        one_pass.figures.bytes += status.st_size


def make_folders(stage: int, mount: str, trail: list[str]) -> int:
    """Open a folder below the stage, made where it is missing.

    Raises Refused where something else is in its place, or mounted on the way.
    """
    here = os.dup(stage)
    for name in trail:
        above = here
        try:
            here = enter(above, name, mount)
        except OSError as error:
            text = f"{shown('/'.join(trail))} cannot be made in the stage: {error.strerror}"
            raise Refused("stage", text) from error
        finally:
            os.close(above)
    return here


def enter(folder: int, name: str, mount: str) -> int:
    """Open a folder in a folder, made if it is missing. Raises OSError, EBUSY for a mount."""
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        pass
    handle = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    if mount_of(handle) != mount:
        os.close(handle)
        raise OSError(errno.EBUSY, "something is mounted there")
    return handle


class Stage:
    """The copies of several sources below the folder ``path``, on one file system.

    ``reserve`` are the bytes that must stay free there, ``now_ns`` is what the time is. A stage
    that has failed stays so: who wants another begins with a new one.
    """

    def __init__(
        self,
        path: str,
        parts: list[dict[str, Any]],
        reserve: int,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self.reserve = reserve
        self.parts = [Part(each["source"], each["target"], each["how"]) for each in parts]
        trails = sorted(part.trail for part in self.parts)
        for one, other in itertools.pairwise(trails):
            if other[: len(one)] == one:
                raise Refused("protocol", f"{'/'.join(other)!r} lies in another part of the stage")
        self._now_ns = now_ns
        self._began = False
        self._failed = False

    def update(self, *, hot: bool) -> dict[str, float]:
        """Bring all parts up to date; the figures. Raises Refused."""
        if self._failed:
            raise Refused("stage", "an earlier pass over this stage failed")
        figures = Figures()
        mask = os.umask(0)
        try:
            if not self._began:
                self._begin()
            self._update(figures, hot=hot)
        except BaseException:
            self._failed = True
            raise
        finally:
            os.umask(mask)
        return figures.told()

    def _begin(self) -> None:
        """Take the folder as a stage, bare, with room in it."""
        claim(self.path)
        sweep(self.path)
        if (free := free_bytes(self.path)) < self.reserve:
            text = f"only {free} bytes are free at {shown(self.path)}: {self.reserve} must stay so"
            raise Refused("no-space", text)
        self._began = True

    def _update(self, figures: Figures, *, hot: bool) -> None:
        """All parts, one after the other: a second thread or process made none of it faster."""
        stage = open_stage(self.path)
        try:
            mount = mount_of(stage)
            for part in self.parts:
                part.update(stage, mount, figures, hot=hot, begun_ns=self._now_ns())
        finally:
            os.close(stage)


def serve(orders: BinaryIO, answer: Callable[[object], None]) -> None:
    """Hold one stage, and its index, through the orders ``pre-stage`` and ``stage``.

    To be the work of a servant: the index stays where it was made.
    """
    gc.disable()  # a million keys are no garbage
    stage: Stage | None = None
    for line in orders:
        order = json.loads(line)
        try:
            if "parts" in order or stage is None:
                stage = Stage(order["stage"], order["parts"], order["reserve"])
            answer({"result": stage.update(hot=order["do"] == "pre-stage")})
        except Refused as refusal:
            answer({"reason": refusal.reason, "text": refusal.text})
        except KeyError as error:
            answer({"reason": "protocol", "text": f"an order lacks {error}"})
        except (OSError, MemoryError) as error:
            answer({"reason": "system", "text": str(error)})
