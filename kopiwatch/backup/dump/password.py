"""The password that a label points to, inside the sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kopiwatch.units.dump import DumpSettings

LIMIT_BYTES = 4096
OWN = ("KOPIWATCH_", "KOPIA_")


def password_of(dump: DumpSettings, environ: Mapping[str, str], private: Path) -> tuple[bytes, str]:
    """The password, without its newline, and what is wrong; both empty where no label names one.

    A file below ``private``, our state folder, or one that a setting of kopiwatch itself names
    (``KOPIWATCH_PASSWORD_FILE``) is refused: the container would be given the repository's
    password.
    """
    if dump.password_env:
        name = f"kopi.dump.password_env={dump.password_env}"
        text = environ.get(dump.password_env, "")
        if not text:
            return b"", f"{name}: kopiwatch has no such variable, or it is empty"
        return _checked(text.encode("utf-8", "surrogateescape"), name)
    if dump.password_file:
        return _from_file(Path(dump.password_file), environ, private)
    return b"", ""


def _from_file(path: Path, environ: Mapping[str, str], private: Path) -> tuple[bytes, str]:
    name = f"kopi.dump.password_file={path}"
    if not path.is_absolute():
        return b"", f"{name}: is not an absolute path"
    own = [Path(v) for n, v in environ.items() if n.startswith(OWN) and n.endswith("_FILE")]
    if any(_same(path, each) for each in own) or private.resolve() in path.resolve().parents:
        return b"", f"{name}: is a secret of kopiwatch itself, which is given to no container"
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        return b"", f"{name}: cannot be read by kopiwatch: {error.strerror}"
    return _checked(content.removesuffix(b"\n").removesuffix(b"\r"), name)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _checked(content: bytes, name: str) -> tuple[bytes, str]:
    if not content:
        return b"", f"{name}: is empty"
    if len(content) > LIMIT_BYTES or b"\n" in content or b"\0" in content:
        return b"", f"{name}: is not a password: one line of at most {LIMIT_BYTES} bytes"
    return content, ""
