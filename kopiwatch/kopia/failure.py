"""What Kopia's last words mean. Pure: text in, error out.

Kopia 0.23.1 exits 1 for everything, so only its standard error tells failures apart. The texts are
pinned by recorded output in the tests.
"""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Callable, Sequence
from urllib.parse import quote

from kopiwatch.config import Secret
from kopiwatch.errors import (
    EntriesUnreadable,
    KopiaKilled,
    KopiaMissing,
    NotConnected,
    RepositoryError,
    RepositoryExists,
    RepositoryFull,
    RepositoryNotFound,
    RepositoryUnreachable,
    WrongPassword,
)

INSTALL_HINT = (
    "Install Kopia 0.23 from its official packages (https://kopia.io) or take the program from its "
    "official container image; or build it with Go from tools/kopia of the kopiwatch repository, "
    "as scripts/demo does. Put it on PATH, or name it in KOPIWATCH_KOPIA."
)
TAIL_LINES = 20
MASK = "***"


class _Case:
    def __init__(
        self, pattern: str, error: type[RepositoryError], why: str, hint: str = ""
    ) -> None:
        self.pattern = re.compile(pattern, re.IGNORECASE)
        self.error = error
        self.why = why
        self.hint = hint


# The first that matches counts: a cause stands before the symptoms that it drags along.
_CASES = (
    _Case(
        r"no space left on device|disk quota exceeded",
        RepositoryFull,
        "no space is left in the repository's storage or on the disk of the cache",
        "Free space on both; nothing that is already in the repository is damaged.",
    ),
    _Case(
        r"unknown (long|short) flag|expected command but got|unexpected .+, try --help",
        KopiaMissing,
        "this Kopia does not know an option that kopiwatch needs",
        INSTALL_HINT,
    ),
    _Case(
        r"does not support feature|unsupported (format|repository) version",
        KopiaMissing,
        "the repository was written by a newer Kopia than this one",
        INSTALL_HINT,
    ),
    _Case(
        r"repository is not connected",
        NotConnected,
        "there is no connection to a repository",
        "Run `kopiwatch repo connect`, or `kopiwatch repo create` for a new one.",
    ),
    _Case(
        r"invalid repository password|unable to decrypt repository",
        WrongPassword,
        "the repository refuses the password",
        "Set KOPIWATCH_PASSWORD or KOPIWATCH_PASSWORD_FILE to the repository's own password.",
    ),
    _Case(
        r"password prompt error|can't get password",
        WrongPassword,
        "no password was given",
        "Set KOPIWATCH_PASSWORD or KOPIWATCH_PASSWORD_FILE.",
    ),
    _Case(
        r"found existing data in storage location|repository already initialized",
        RepositoryExists,
        "there is data in this place already",
        "Use `kopiwatch repo connect` if it is your repository, or an empty place.",
    ),
    _Case(
        r"repository not initialized in the provided storage"
        r"|error getting kopia\.repository blob: BLOB not found",
        RepositoryNotFound,
        "the place can be reached, but there is no repository in it",
        "Is the disk mounted, and is KOPIWATCH_REPOSITORY right? kopiwatch never makes a "
        "repository again where one was before.",
    ),
    _Case(
        r"repository upgrade in progress",
        RepositoryUnreachable,
        "the repository is locked by an upgrade of its format",
        "Wait until `kopia repository upgrade` is done.",
    ),
    _Case(
        r"Found \d+ fatal error|Error when processing",
        EntriesUnreadable,
        "some files of the source could not be read",
        "The output names them; nothing is wrong with the repository.",
    ),
    _Case(
        r"permission denied|operation not permitted|read-only file system",
        RepositoryUnreachable,
        "a permission is missing on the repository, its cache or the place of the restore",
        "Check owner and mode of the folder that the output names.",
    ),
    _Case(
        r"cannot access storage path|top-level directory not found|cannot open storage"
        r"|can't connect to storage|despite \d+ retries|connection refused|no such host"
        r"|i/o timeout|network is unreachable|transport endpoint|stale (nfs )?file handle",
        RepositoryUnreachable,
        "the repository's storage cannot be reached",
        "Is it mounted, online, and is KOPIWATCH_REPOSITORY right?",
    ),
)
_WORDS = re.compile(r"\S")


def classify(
    stderr: str,
    code: int,
    *,
    attempt: str = "using the repository",
    mask: Callable[[str], str] = str,
) -> RepositoryError:
    """The error that a failed call of Kopia stands for.

    ``stderr`` is all of standard error that was kept; ``code`` is the exit code, negative for a
    signal; ``attempt`` says what was tried and begins the message. What is quoted goes through
    ``mask`` first. Matching does not: a password such as "password" would hide the reason.
    """
    tail = last_lines(mask(stderr))
    for case in _CASES:
        if case.pattern.search(stderr):
            return case.error(f"{attempt}: {case.why}", hint=case.hint, tail=tail)
    if code < 0:
        return KopiaKilled(
            f"{attempt}: Kopia was ended by {_signal(-code)}",
            hint="If nobody did that by hand, the host may be short of memory.",
            tail=tail,
        )
    reason = last_lines(tail, 1).removeprefix("ERROR ").strip() or "it did not say why"
    return RepositoryError(f"{attempt}: Kopia failed with exit code {code}: {reason}", tail=tail)


def last_lines(text: str, count: int = TAIL_LINES) -> str:
    """The last lines that say something; a progress line that overwrote itself counts as many."""
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if _WORDS.search(line)]
    return "\n".join(lines[-count:])


def masker(secrets: Sequence[Secret]) -> Callable[[str], str]:
    """A function that replaces the secrets, as they are and as they travel, by ``***``."""
    forms: set[str] = set()
    for secret in secrets:
        value = secret.reveal()
        trimmed = value.strip()
        for form in (value, trimmed):
            raw = form.encode("utf-8", "surrogateescape")
            forms |= {form, base64.b64encode(raw).decode(), quote(raw, safe="")}
    forms.discard("")
    if not forms:
        return lambda text: text
    # The longest first: a form that contains another must go as a whole.
    pattern = re.compile("|".join(re.escape(f) for f in sorted(forms, key=len, reverse=True)))
    return lambda text: pattern.sub(MASK, text)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
