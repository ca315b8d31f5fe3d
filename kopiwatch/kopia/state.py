"""What our state folder remembers of the repository: which one it is, and a generated password."""

from __future__ import annotations

import secrets
from datetime import datetime
from pathlib import Path

import msgspec

from kopiwatch.config import Secret
from kopiwatch.durable import write_durably
from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.backend import StorageIdentity
from kopiwatch.kopia.folder import make_private

PASSWORD_BYTES = 24
"""192 random bits: no key derivation, however cheap, can be searched against that."""


class Known(msgspec.Struct, frozen=True):
    """The repository in use, from the first connection on. Times are UTC.

    ``host`` is frozen here: it is part of every source's identity, and a host that is renamed
    would otherwise lose sight of its own backups.
    """

    unique_id: str
    storage: StorageIdentity
    host: str
    connected: datetime
    created: datetime | None = None


class RepositoryState:
    """The files below the state folder that belong to this room. Every method blocks."""

    def __init__(self, state_dir: Path) -> None:
        self.home = state_dir / "kopia"
        self.config_file = self.home / "repository.config"
        self.log_dir = self.home / "logs"
        self.lock_file = state_dir / "locks" / "kopia.lock"
        self.record_file = state_dir / "repository.json"
        self.password_file = state_dir / "password"

    def known(self) -> Known | None:
        """The repository that this state uses; None if it never knew one.

        Raises RepositoryError if the record is there and cannot be read: that is not "never".
        """
        try:
            data = self.record_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RepositoryError(
                f"{self.record_file} cannot be read: {error.strerror}",
                hint="Run the command as the user that runs kopiwatch.",
            ) from error
        try:
            return msgspec.json.decode(data, type=Known)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RepositoryError(
                f"{self.record_file} says which repository is ours, and is damaged: {error}",
                hint="Restore the file, or remove it and run `kopiwatch repo connect`.",
            ) from error

    def remember(self, known: Known) -> None:
        """Write the record, durably."""
        keep(self.record_file, msgspec.json.format(msgspec.json.encode(known)) + b"\n")

    def password(self) -> Secret | None:
        """The password that was generated here, if one was."""
        try:
            return Secret(self.password_file.read_text().strip())
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(
                f"{self.password_file} cannot be read: {error}",
                hint="Run the command as the user that runs kopiwatch.",
            ) from error

    def generate_password(self) -> Secret:
        """Make a password, and have it on disk before anything is encrypted with it."""
        password = Secret(secrets.token_urlsafe(PASSWORD_BYTES))
        keep(self.password_file, password.reveal().encode() + b"\n")
        return password


def keep(path: Path, data: bytes) -> None:
    """Replace a file (0600) as a whole and durably, making its folder if need be.

    Raises RepositoryError if that cannot be done; the old content is untouched then.
    """
    try:
        make_private(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise RepositoryError(
            f"{path} cannot be written: {error.strerror}",
            hint="The state folder must be writable and have space left.",
        ) from error
