"""The state folder: its uuid, its places, and the file systems it must not be on."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from kopiwatch.backup.journal import JournalStore
from kopiwatch.durable import write_durably
from kopiwatch.errors import ConfigError
from kopiwatch.kopia.folder import make_private

# flock and rename are not to be trusted there, or a virtual machine stands in between.
SHARED_FILE_SYSTEMS = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "fuse.sshfs"),
    *(
        "fuse.rclone",
        "fuse.osxfs",
        "fuse.grpcfuse",
        "prl_fs",
        "ceph",
        "glusterfs",
        "fuse.glusterfs",
    ),
)
FOLDERS = ("journal", "locks", "staging", "kopia", "stage")


class _Identity(msgspec.Struct, frozen=True):
    uuid: str


class StateFolder:
    """Where kopiwatch keeps what must survive; nothing here is created before :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journals = JournalStore(path / "journal")

    @property
    def run_lock(self) -> Path:
        """Held by who runs a run or a restore."""
        return self.path / "locks" / "run.lock"

    @property
    def kopia_lock(self) -> Path:
        """Held by whoever executes Kopia."""
        return self.path / "locks" / "kopia.lock"

    @property
    def locks(self) -> Path:
        """The folder of both locks."""
        return self.path / "locks"

    @property
    def staging(self) -> Path:
        """Below it, one folder per unit holds its recipe."""
        return self.path / "staging"

    @property
    def stage(self) -> Path:
        """An empty folder that serves private mount namespaces as a mount point."""
        return self.path / "stage"

    def recipe(self, unit: str) -> Path:
        """The staging folder of a unit's recipe: a stable path."""
        return self.staging / unit / "recipe"

    def open(self) -> str:
        """Create what is missing, 0700, and return the folder's uuid.

        Raises ConfigError when the folder cannot be used, with what to do.
        """
        try:
            make_private(self.path)
            kind = file_system(self.path, Path("/proc/self/mountinfo").read_text())
            if kind in SHARED_FILE_SYSTEMS:
                raise ConfigError(
                    f"the state folder {self.path} is on a {kind} file system, where locks and "
                    "crash safety cannot be trusted",
                    hint="set KOPIWATCH_STATE_DIR to a folder on a local disk",
                )
            for name in FOLDERS:
                make_private(self.path / name)
            identity = self.path / "state.json"
            if not identity.exists():
                write_durably(identity, msgspec.json.encode(_Identity(uuid.uuid4().hex)))
            return msgspec.json.decode(identity.read_bytes(), type=_Identity).uuid
        except OSError as error:
            raise ConfigError(
                f"the state folder {self.path} cannot be used: {error.strerror}",
                hint="run as root, or set KOPIWATCH_STATE_DIR to a folder you may write to",
            ) from error
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{self.path / 'state.json'} is damaged: {error}",
                hint="restore it, or remove it if no worker of this folder runs",
            ) from error


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that ``path`` lies on, by the longest mount point above it."""
    return mount_of(path, mountinfo)[1]


def mount_of(path: Path, mountinfo: str) -> tuple[Path, str]:
    """The mount point above ``path`` and its file system's type.

    ``mountinfo`` is the text of ``/proc/self/mountinfo``, see proc(5): field 5 is the mount point
    with octal escapes, and the type follows the separator ``-``.
    """
    resolved = path.resolve()
    best = (Path("/"), "")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4].encode().decode("unicode_escape"))
        if (resolved == point or point in resolved.parents) and len(point.parts) >= len(
            best[0].parts
        ):
            best = (point, right.split(" ")[0])
    return best
