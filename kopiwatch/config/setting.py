"""The table of settings: keys, variables, defaults, and what makes a value unusable."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

import msgspec

from kopiwatch.config.duration import fault_of_duration
from kopiwatch.config.name import NAME, NAME_LIMIT, nearest
from kopiwatch.config.value import ACCESSES, LOG_FORMATS, LOG_LEVELS, RECIPE_SECRETS, Listen

PREFIX = "KOPIWATCH_"
RETENTION = "retention"
"""The table of the file that holds these numbers:"""
RETENTION_NUMBERS = {
    "latest": (10, "How many complete restore points of a unit are kept, if no label says it."),
    "hourly": (48, "Of how many hours that have one the newest is kept."),
    "daily": (7, "Of how many days."),
    "weekly": (4, "Of how many weeks."),
    "monthly": (24, "Of how many months."),
    "annual": (3, "Of how many years."),
}


def fault_of_path(value: str) -> str:
    """What is wrong with a path; empty if nothing is."""
    return "" if value.startswith("/") else "is not an absolute path"


def read_folders(value: str) -> tuple[str, ...]:
    """Absolute paths, separated by commas, without doubled or trailing slashes."""
    parts = [part.strip() for part in value.split(",")]
    return tuple(posixpath.normpath(part) for part in parts if part)


def fault_of_folders(value: str) -> str:
    """What is wrong with a list of folders; empty if nothing is."""
    parts = read_folders(value)
    wrong = next((part for part in parts if not part.startswith("/")), None)
    if wrong is not None:
        return f"names {wrong[:NAME_LIMIT]!r}, which is not an absolute path"
    if "/" in parts or "//" in parts:
        return "names /, which would open all of the host; name the folders that are needed"
    return "" if parts else "names no folder"


def fault_of_name(value: str) -> str:
    """What is wrong with a name of ours; empty if nothing is."""
    if NAME.fullmatch(value) and len(value) <= NAME_LIMIT:
        return ""
    return (
        f"{value[:NAME_LIMIT]!r} is not a name of lower-case letters, digits, '_', '.' and '-',"
        f" a letter or digit first, at most {NAME_LIMIT} characters"
    )


def _fault_of_host(value: str) -> str:
    good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", value)
    return "" if good else "is not a host name"


def fault_of_docker(value: str) -> str:
    """What is wrong with Docker's address; empty if nothing is."""
    # The value is not repeated: an address may carry a password.
    if value.startswith("/"):
        return f"is a bare path; did you mean 'unix://{value}'?"
    scheme, separator, rest = value.partition("://")
    if separator and rest and scheme in ("unix", "tcp", "http", "https"):
        return ""
    return "is not an address that begins with unix://, tcp://, http:// or https://"


def _fault_of_program(value: str) -> str:
    if "/" in value and not value.startswith("/"):
        return "is neither the name of a program nor an absolute path"
    return ""


def _fault_of_image(value: str) -> str:
    return "is not the name of an image" if re.search(r"\s", value) else ""


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def fault(value: str) -> str:
        if value in words:
            return ""
        near = nearest(value, words)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{value[:NAME_LIMIT]!r} is not one of {', '.join(words)}{hint}"

    return fault


def read_listen(value: str) -> Listen | None:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (all addresses); None if it is none of these."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]*)):([0-9]{1,5})", value)
    if match is None or not 0 < int(match[3]) < 65536:
        return None
    return Listen(match[1] or match[2] or "0.0.0.0", int(match[3]))  # noqa: S104 - ':9187' says so


def _fault_of_listen(value: str) -> str:
    return "" if read_listen(value) else "is not an address such as 127.0.0.1:9187 or [::1]:9187"


def _fault_of_duration(value: str) -> str:
    fault, hint = fault_of_duration(value)
    return f"{fault}; {hint}" if hint else fault


def _fault_of_number(value: str) -> str:
    return "" if re.fullmatch(r"[0-9]{1,9}", value) else "is not a whole number from 0 on"


def _fault_of_nothing(_value: str) -> str:
    return ""


def variable_of(key: str) -> str:
    """The name of a key in the environment."""
    return PREFIX + key.upper().replace(".", "_")


class Setting(msgspec.Struct, frozen=True):
    """One setting: ``key`` in the file, ``variable`` in the environment.

    ``retention.latest`` is the key ``latest`` in the table ``[retention]``.

    ``default`` and ``text`` are for people. ``fault`` says what is wrong with a value, or nothing.
    A ``secret`` is also read from the file that ``<key>_file`` or ``<variable>_FILE`` names.
    """

    key: str
    default: str
    text: str
    fault: Callable[[str], str] = _fault_of_nothing
    secret: bool = False
    supported: bool = True

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return variable_of(self.key)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "docker",
        "`DOCKER_HOST`, else `unix:///var/run/docker.sock`",
        "Docker's address.",
        fault_of_docker,
    ),
    Setting(
        "state_dir",
        "`/var/lib/kopiwatch`",
        "What kopiwatch must remember; in a container, a volume of its own.",
        fault_of_path,
    ),
    Setting(
        "cache_dir",
        "`/var/cache/kopiwatch`",
        "Kopia's cache, and what was read of stored trees; losing it costs time only.",
        fault_of_path,
    ),
    Setting("repository", "`filesystem:/repository`", "Where the backups go."),
    Setting("password", "", "The repository's password.", secret=True),
    Setting(
        "hostname",
        "Docker's name for the host",
        "The host's name in the repository; fixed at the first connect.",
        _fault_of_host,
    ),
    Setting(
        "instance",
        "`default`",
        "Which containers are ours, by `kopi.instance`, where several kopiwatch run on one host.",
        fault_of_name,
    ),
    Setting("kopia", "`kopia`", "Kopia's program, a name or a path.", _fault_of_program),
    Setting(
        "access",
        "`auto`",
        "How volumes are read: `worker` (a container of ours), `namespace` (this host's own"
        " mounts, as root), or `auto`.",
        _one_of(ACCESSES),
    ),
    Setting(
        "worker_image",
        "kopiwatch's own image",
        "The image of the workers; needed outside a container for `worker`.",
        _fault_of_image,
    ),
    Setting(
        "listen",
        "`0.0.0.0:9187` in a container, else `127.0.0.1:9187`",
        "Where `/metrics`, `/healthz` and `/readyz` are served.",
        _fault_of_listen,
    ),
    Setting("metrics_user", "", "The user that `/metrics` asks for, with `metrics_password`."),
    Setting("metrics_password", "", "The password of that user.", secret=True),
    Setting("metrics_token", "", "A bearer token that `/metrics` asks for.", secret=True),
    Setting(
        "tls_cert",
        "",
        "The exporter's certificate chain (PEM); with `tls_key` it serves https.",
        fault_of_path,
    ),
    Setting("tls_key", "", "The key of that certificate (PEM).", fault_of_path),
    Setting(
        "log_format",
        "`text`",
        "`text` for people, `json` for machines.",
        _one_of(LOG_FORMATS),
    ),
    Setting("log_level", "`info`", "`debug`, `info`, `warning` or `error`.", _one_of(LOG_LEVELS)),
    Setting(
        "schedule",
        "`0 2 * * *`",
        "When units without `kopi.schedule` are backed up, in the time zone that `TZ` names.",
    ),
    Setting(
        "forget_after",
        "never",
        "After how long (`30d`) a unit whose containers are gone is no longer watched.",
        _fault_of_duration,
    ),
    Setting(
        "run_timeout",
        "24h",
        "How long a run may take at most, the upload of its data included.",
        _fault_of_duration,
    ),
    Setting(
        "stage_paths",
        "",
        "Folders of Docker's host, by comma, in which kopiwatch may clone or copy sources of their"
        " file systems (`kopi.strategy`); it leaves nothing in them but empty folders.",
        fault_of_folders,
    ),
    Setting(
        "recipe_secrets",
        "`keep`",
        "`redact` leaves secrets out of the recipe, which then cannot restore containers; see"
        " [the recipe](recipe.md).",
        _one_of(RECIPE_SECRETS),
    ),
    Setting(
        "recipe_paths",
        "",
        "Folders of Docker's host, separated by commas, that Compose projects name files in and"
        " that lie outside the projects' own.",
        fault_of_folders,
    ),
    *(
        Setting(f"{RETENTION}.{name}", f"`{default}`", text, _fault_of_number)
        for name, (default, text) in RETENTION_NUMBERS.items()
    ),
)

FOREIGN_PREFIXES = ("KOPIWATCH_DEMO_", "KOPIWATCH_TEST_")
FOREIGN_VARIABLES = ("KOPIWATCH_PYTHON", "KOPIWATCH_NO_INSTALL", "KOPIWATCH_REVISION")
"""Variables of the scripts, the tests and the image that come with kopiwatch: no settings."""

LATER_TABLES = ("notify",)
"""Tables of the file that the design knows and this version does not."""
