"""One pass over one source: makes its replica in the stage equal to it.

All works on descriptors of open folders, the source's and the replica's: no name is looked up
twice, no symbolic link is followed, and no path is too long.
"""

from __future__ import annotations

import errno
import os
import stat

from kopiwatch.worker.clone import CANNOT_CLONE, NO_SPACE, clone, copy, mend, why_not
from kopiwatch.worker.index import FOLDER_FLAGS, Folder, key_of, settled, unsettled
from kopiwatch.worker.speech import Refused, shown
from kopiwatch.worker.sweep import Sweeper

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from kopiwatch.worker.index import Figures, Key

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FLAGS = WRITE_FLAGS | os.O_CREAT | os.O_EXCL
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)
"""How an entry answers that vanished, or became something else, after it was listed."""
SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class Pass:
    """One pass. ``hot``: the source changes meanwhile, and a later pass will look again.

    ``clones`` says how data is taken. ``blind``: equal keys do not prove equal content, so a pass
    that is not hot compares all of it. What cannot be read, a hot pass leaves out; in the window it
    is a reason to give up, for Kopia itself has words for it.
    """

    def __init__(
        self,
        source: str,
        mount: str,
        figures: Figures,
        *,
        clones: bool,
        blind: bool,
        hot: bool,
        begun_ns: int,
    ) -> None:
        self.path = [source]
        self.figures = figures
        self.sweeper = Sweeper(mount)
        self.clones = clones
        self.compares = blind and not hot
        self.hot = hot
        self.begun_ns = begun_ns

    def folder(self, index: Folder, seen: Folder | None, source: int, target: int) -> None:
        """Bring a folder up to date, and its index.

        ``seen`` is how it looked before a sync: what has changed since is not settled.
        """
        here = (source, target)
        found = os.fstat(source)
        before, entries, below = index.entries, {}, []
        size = links = 0
        touched = False
        with os.scandir(source) as listing:
            for item in listing:
                name = item.name
                try:
                    status = item.stat(follow_symlinks=False)
                    now = key_of(status)
                    kind = stat.S_IFMT(now[0])
                    if before.get(name) != now or (self.compares and kind == stat.S_IFREG):
                        if kind == stat.S_IFDIR:
                            below.append(name)
                            continue
                        if kind not in (stat.S_IFREG, stat.S_IFLNK):
                            continue  # Kopia stores none of these
                        touched |= self.make_way(index, name, now, target)
                        touched |= self.take(here, name, status, is_there=name in before)
                        now = self.to_record(now, seen.entries.get(name) if seen else now)
                except OSError as error:
                    self.pass_over(error, name)
                    touched = True  # by a file that was begun
                    continue
                entries[name] = now
                if kind == stat.S_IFLNK:
                    links += 1
                else:
                    size += now[3]
        self.count(len(entries) - links, links, size)
        folders: dict[str, Folder] = {}
        for name in below:
            known = seen.folders.get(name, Folder()) if seen else None
            child = self.subfolder(name, index, known, here)
            if child is not None:
                folders[name] = child
                touched |= name not in index.folders
        touched |= self.delete(index, entries, folders, target)
        index.entries, index.folders = entries, folders
        if touched or index.key != key_of(found):
            self.dress_folder(target, found)
        index.key = self.to_record(key_of(found), seen.key if seen else key_of(found))

    def subfolder(
        self, name: str, index: Folder, seen: Folder | None, here: tuple[int, int]
    ) -> Folder | None:
        """Bring a folder in a folder up to date; its index, None if it was passed over."""
        try:
            source = os.open(name, FOLDER_FLAGS, dir_fd=here[0])
        except OSError as error:
            self.pass_over(error, name)
            return None
        self.path.append(name)
        child = index.folders.get(name)
        try:
            target = self.open_target(name, index, here[1])
            try:
                self.folder(child or (child := Folder()), seen, source, target)
            finally:
                os.close(target)
        except OSError as error:
            self.pass_over(error, "")
            if name not in index.folders:
                index.folders[name] = Folder()  # to be deleted with all that is gone
            return None
        finally:
            self.path.pop()
            os.close(source)
        return child

    def open_target(self, name: str, index: Folder, target: int) -> int:
        """Open a folder of the stage, made where there is none. Raises Refused."""
        try:
            if name not in index.folders:
                self.make_way(index, name, (stat.S_IFDIR,), target)
                os.mkdir(name, 0o700, dir_fd=target)
            return os.open(name, FOLDER_FLAGS, dir_fd=target)
        except OSError as error:
            raise self.refusal(error) from error

    def delete(
        self, index: Folder, entries: dict[str, Key], folders: dict[str, Folder], target: int
    ) -> bool:
        """Delete from the stage what the source has no more; whether there was anything."""
        gone = index.entries.keys() - entries.keys()
        gone_folders = index.folders.keys() - folders.keys()
        try:
            for name in gone:
                self.sweeper.remove_file(name, target)
            for name in gone_folders:
                self.sweeper.remove_folder(name, target)
        except OSError as error:
            raise self.refusal(error) from error
        self.figures.deleted += len(gone) + len(gone_folders)
        return bool(gone or gone_folders)

    def make_way(self, index: Folder, name: str, now: Key, target: int) -> bool:
        """Delete what cannot become an entry of this kind; whether there was anything."""
        is_file = stat.S_ISREG(now[0])
        try:
            if name in index.folders and not stat.S_ISDIR(now[0]):
                self.sweeper.remove_folder(name, target)
                del index.folders[name]
                return True
            if name in index.entries and not (is_file and stat.S_ISREG(index.entries[name][0])):
                self.sweeper.remove_file(name, target)
                del index.entries[name]
                return True
        except OSError as error:
            raise self.refusal(error, name) from error
        return False

    def take(
        self,
        here: tuple[int, int],
        name: str,
        status: os.stat_result,
        *,
        is_there: bool,
        as_name: str = "",
    ) -> bool:
        """Take a file or a symbolic link into the stage; whether it was made anew.

        Raises OSError for what the source's side does not let us do, Refused for the stage's.
        """
        source, target = here
        as_name = as_name or name
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(name, dir_fd=source)
            try:
                os.symlink(content, as_name, dir_fd=target)
                owner = (status.st_uid, status.st_gid)
                os.chown(as_name, *owner, dir_fd=target, follow_symlinks=False)
                os.utime(as_name, ns=times(status), dir_fd=target, follow_symlinks=False)
            except OSError as error:
                raise self.refusal(error, name) from error
            return True
        handle = open_file(name, source)
        try:
            self.take_file(handle, status, target, as_name, is_there)
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            raise self.refusal(error, name) from error
        finally:
            os.close(handle)
        self.figures.fresh += 1
        self.figures.fresh_bytes += status.st_size
        return not is_there

    def take_file(
        self, handle: int, status: os.stat_result, target: int, name: str, is_there: bool
    ) -> None:
        """Take the data of an open file; what could not be finished does not stay."""
        if is_there:
            ours = os.open(name, WRITE_FLAGS, dir_fd=target)
        else:
            ours = os.open(name, NEW_FLAGS, status.st_mode & 0o777, dir_fd=target)
        try:
            self.fill(handle, ours, status.st_size, is_there)
            dress(ours, status, new=not is_there)
        except BaseException:
            if not is_there:
                os.unlink(name, dir_fd=target)
            raise
        finally:
            os.close(ours)

    def dress_folder(self, target: int, found: os.stat_result) -> None:
        """Give a folder its owner, mode and times, once nothing in it moves any more."""
        try:
            dress(target, found)
        except OSError as error:
            raise self.refusal(error) from error

    def fill(self, handle: int, ours: int, size: int, is_there: bool) -> None:
        """The data alone."""
        if self.clones:
            if is_there and os.fstat(ours).st_size > size:
                os.ftruncate(ours, size)
            if size:
                clone(handle, ours)
        elif is_there:
            mend(handle, ours, size)
        else:
            copy(handle, ours, size)

    def to_record(self, now: Key, seen: Key | None) -> Key:
        """The key for the index: one that nothing equals, where a later change might not show."""
        if not self.hot:
            return now
        return settled(now, self.begun_ns) if seen == now else unsettled(now)

    def count(self, files: int, links: int, size: int) -> None:
        """Add a folder to the figures."""
        self.figures.files += files
        self.figures.links += links
        self.figures.folders += 1
        self.figures.bytes += size

    def pass_over(self, error: OSError, name: str) -> None:
        """Leave out what vanished, or what a hot pass cannot read. Raises Refused for the rest."""
        if error.errno in GONE:
            self.figures.vanished += 1
        elif not self.hot:
            text = f"{self.shown(name)} cannot be read: {error.strerror}"
            raise Refused("unreadable", text) from error

    def refusal(self, error: OSError, name: str = "") -> Refused:
        """Why the stage cannot be made."""
        if error.errno in NO_SPACE:
            return Refused("no-space", f"no space is left to stage {self.shown(name)}")
        if self.clones and error.errno in CANNOT_CLONE:
            return Refused("no-clone", f"{self.shown(name)} cannot be cloned: {why_not(error)}")
        return Refused("stage", f"{self.shown(name)} cannot be staged: {error.strerror}")

    def shown(self, name: str) -> str:
        """The path of an entry of the present folder."""
        return shown("/".join([*self.path, name] if name else self.path))


def open_file(name: str, folder: int) -> int:
    """Open a regular file for reading. Raises OSError, ENOENT if it became something else.

    A device that a container made in its place is the host's wherever nothing forbids us devices.
    """
    handle = os.open(name, READ_FLAGS, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ENOENT, "it became something else")
    return handle


def times(status: os.stat_result) -> tuple[int, int]:
    """When it was read and changed, in ns."""
    return status.st_atime_ns, status.st_mtime_ns


def dress(handle: int, status: os.stat_result, *, new: bool = False) -> None:
    """Give an open file or folder the owner, mode and times of another.

    A file that is ``new`` has its permissions already. Without CAP_FSETID the kernel drops the set
    group id bit of a foreign group without a word: that is an error here.
    """
    os.fchown(handle, status.st_uid, status.st_gid)
    if not new or status.st_mode & SPECIAL_BITS:
        os.fchmod(handle, stat.S_IMODE(status.st_mode))
        if status.st_mode & SPECIAL_BITS and os.fstat(handle).st_mode != status.st_mode:
            raise OSError(errno.EPERM, "its mode cannot be set (it takes CAP_FSETID)")
    os.utime(handle, ns=times(status))
