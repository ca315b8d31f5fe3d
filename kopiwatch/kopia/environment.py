"""The environment of a Kopia process: nothing but what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kopiwatch.config import Secret
from kopiwatch.errors import ConfigError

SETTINGS: dict[str, str] = {
    # Never ask the network whether there is a newer Kopia.
    "KOPIA_CHECK_FOR_UPDATES": "false",
    # An upgrade lock in the repository would otherwise be waited for without end.
    "KOPIA_REPO_UPGRADE_NO_BLOCK": "true",
    # Telling people is our job; Kopia's own notifications live in the repository.
    "KOPIA_SEND_ERROR_NOTIFICATIONS": "never",
    # Messages are matched by text.
    "LANG": "C.UTF-8",
}
"""What every Kopia gets, a worker's too (it holds no secret)."""

PASSED_ON = (
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
)
"""Taken from our own environment, where set."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Go's unicode.IsSpace, which is what Kopia trims a password by (not quite Python's str.strip).
_GO_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def environment(
    ours: Mapping[str, str], *, home: Path, password: Secret | None = None
) -> dict[str, str]:
    """The whole environment for one call; ``ours`` is our own, of which little is passed on.

    ``home`` keeps Kopia from writing into somebody's home directory.
    """
    result = {"PATH": ours.get("PATH") or DEFAULT_PATH, "HOME": str(home), **SETTINGS}
    result |= {name: ours[name] for name in PASSED_ON if ours.get(name)}
    if password is not None:
        result["KOPIA_PASSWORD"] = effective_password(password)
    return result


def effective_password(password: Secret) -> str:
    """The password as Kopia 0.23.1 uses it: it trims what comes from the environment.

    It does *not* trim what it reads from its credential file, so whoever writes that file must
    trim first, or a worker would be refused with the very same password. Raises ConfigError for
    a password that is empty or cannot be passed on.
    """
    value = password.reveal().strip(_GO_SPACE)
    if not value:
        raise ConfigError(
            "the repository password is empty",
            hint="Set KOPIWATCH_PASSWORD, or KOPIWATCH_PASSWORD_FILE to a file that holds it.",
        )
    if "\0" in value:
        raise ConfigError(
            "the repository password holds a NUL character",
            hint="Kopia takes it from the environment, where that cannot be.",
        )
    return value
