"""Every error a user can meet, in one tree.

::

    KopiwatchError                 exit 1   something was attempted and did not work
    ├── UsageError                 exit 2   the command line asks for what cannot be
    │   └── UnknownUnit                     no such unit; names those that exist
    ├── ConfigError                exit 3   environment or configuration file
    │   └── LabelError                      the labels of a unit are not usable
    ├── RepositoryError            exit 4   Kopia or the repository behind it
    │   ├── KopiaMissing                    no kopia program, or one we cannot work with
    │   ├── NotConnected                    no connection was ever made, or it was removed
    │   ├── WrongPassword
    │   ├── RepositoryUnreachable           path missing, remote down, no permission
    │   ├── RepositoryNotFound              reachable, but there is no repository in it
    │   ├── RepositoryExists                asked to create where one is already
    │   ├── RepositoryMismatch              a different repository from the one we know
    │   ├── RepositoryFull                  no space left
    │   ├── KopiaTimeout                    no answer before the deadline; Kopia was killed
    │   ├── KopiaKilled                     somebody or something ended it by a signal
    │   └── EntriesUnreadable               files of the source, not the repository, are at fault
    ├── EngineError                exit 5   Docker
    │   ├── EngineUnreachable
    │   │   └── EngineRefused               a socket is there, and nobody listens on it
    │   ├── EngineDenied                    a socket proxy or permission refuses the call
    │   ├── ContainerGone                   the container no longer exists
    │   ├── StillRunning                    a command inside a container has not ended in time
    │   ├── ImageMissing                    an image that is needed is not on this host
    │   ├── EventTooLarge                   one of its events is too large or not understood
    │   └── StaleSocket                     its mounted socket belongs to a daemon of the past
    ├── BusyError                  exit 75  somebody else holds a lock
    ├── HistoryError               exit 1   the record of past runs cannot be read or written
    │   └── HistoryDamaged                  its file is damaged, or was replaced while in use
    └── RunError                   exit 1   a run of a unit failed; says in which phase
        └── Cancelled                       a signal asked us to leave

Foreign exceptions are translated where they enter, with ``raise … from``. An error says what was
attempted, on what, why it failed, and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class KopiwatchError(Exception):
    """Something was attempted and did not work.

    ``message`` is one sentence that names what was attempted, on what, and why it failed; ``hint``
    is what the user can do; ``tail`` holds the last output lines of a program that was run.
    None of them may hold a secret.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.tail = tail

    @property
    def code(self) -> str:
        """A stable name for machines: the class name in lower case with hyphens."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")

    def __str__(self) -> str:
        return self.message


class UsageError(KopiwatchError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class UnknownUnit(UsageError):
    """No unit has the name that was asked for."""


class ConfigError(KopiwatchError):
    """The environment or the configuration file is not usable."""

    exit_code = 3


class LabelError(ConfigError):
    """The labels of a unit are not usable; the unit is disabled until they are."""


class RepositoryError(KopiwatchError):
    """Kopia, or the repository behind it, did not do what was asked."""

    exit_code = 4


class KopiaMissing(RepositoryError):
    """There is no kopia program, or it is one that we cannot work with."""


class NotConnected(RepositoryError):
    """No connection to a repository was ever made here, or it was removed."""


class WrongPassword(RepositoryError):
    """The repository refuses the password."""


class RepositoryUnreachable(RepositoryError):
    """The storage cannot be reached: path missing, remote down, no permission."""


class RepositoryNotFound(RepositoryError):
    """The storage is reachable, but there is no repository in it."""


class RepositoryExists(RepositoryError):
    """A repository was to be created where one exists already."""


class RepositoryMismatch(RepositoryError):
    """The repository that answers is not the one we know."""


class RepositoryFull(RepositoryError):
    """No space is left in the repository's storage or on the cache's disk."""


class KopiaTimeout(RepositoryError):
    """Kopia gave no answer before its deadline and was killed."""


class KopiaKilled(RepositoryError):
    """Kopia was ended by a signal that we did not send."""


class EntriesUnreadable(RepositoryError):
    """Some files of the source could not be read; the repository is not at fault."""


class EngineError(KopiwatchError):
    """Docker did not do what was asked."""

    exit_code = 5


class EngineUnreachable(EngineError):
    """Docker does not answer at the address we use."""


class EngineRefused(EngineUnreachable):
    """A socket is there, and nobody listens on it."""


class EngineDenied(EngineError):
    """A socket proxy or a permission refuses the call."""


class ContainerGone(EngineError):
    """The container no longer exists."""


class StillRunning(EngineError):
    """A command inside a container has not ended in time, and may go on; ``tail`` is its output."""


class ImageMissing(EngineError):
    """An image that is needed is not on this host."""


class EventTooLarge(EngineError):
    """One of Docker's events is too large to be read, or not understood."""


class StaleSocket(EngineError):
    """The socket file belongs to a daemon of the past; only mounting it afresh helps."""


class BusyError(KopiwatchError):
    """Somebody else holds a lock; the message says who, and since when."""

    exit_code = 75


class HistoryError(KopiwatchError):
    """The record of past runs cannot be read or written; backups go on without it."""


class HistoryDamaged(HistoryError):
    """Its file is damaged, or was replaced while in use; opening it again sets that right."""


class RunError(KopiwatchError):
    """A run of a unit failed; ``phase`` says where and ``reason`` is a stable code."""

    def __init__(
        self, message: str, *, phase: str, reason: str, hint: str = "", tail: str = ""
    ) -> None:
        super().__init__(message, hint=hint, tail=tail)
        self.phase = phase
        self.reason = reason


class Cancelled(RunError):
    """A signal asked us to leave; what was down has been brought back first."""
