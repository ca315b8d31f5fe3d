"""What Kopia's end means: a manifest, or which error."""

from __future__ import annotations

import msgspec

from kopiwatch.backup.gate import Said
from kopiwatch.backup.result import Phase
from kopiwatch.errors import (
    EntriesUnreadable,
    KopiaKilled,
    KopiwatchError,
    RepositoryError,
    RunError,
)
from kopiwatch.kopia.failure import classify
from kopiwatch.kopia.record import Snapshot


def manifest(unit: str, said: Said) -> Snapshot:
    """The snapshot that a Kopia which ended well has named. Raises RunError if it named none."""
    lines = [line for line in said.out.splitlines() if line.startswith("{")]
    try:
        return msgspec.json.decode(lines[-1], type=Snapshot)
    except (IndexError, msgspec.MsgspecError) as error:
        raise RunError(
            f"unit {unit}: Kopia ended well but named no snapshot",
            phase="flush",
            reason="no-manifest",
            tail=said.err,
        ) from error


def failure(unit: str, said: Said, phase: Phase) -> KopiwatchError:
    """Why Kopia ended when it should not have.

    An error of the repository stays one: its code and exit code are the same in every phase, and
    the daemon's breaker counts it.
    """
    if said.code == 0:
        return RunError(
            f"unit {unit}: Kopia ended before it had read everything",
            phase=phase,
            reason="gate",
            hint="somebody may have removed the gate from the policy: see `repo status`",
            tail=said.err,
        )
    error = classify(said.err, said.code if said.code is not None else -1)
    message = f"unit {unit}: {error.message}"
    if type(error) not in (RepositoryError, KopiaKilled, EntriesUnreadable):
        return type(error)(message, hint=error.hint, tail=error.tail)
    # Nothing says that the repository is at fault.
    reason = "kopia-failed" if type(error) is RepositoryError else error.code
    return RunError(message, phase=phase, reason=reason, hint=error.hint, tail=error.tail)
