"""The certificate of the exporter, which can be renewed while it serves."""

from __future__ import annotations

import ssl
from pathlib import Path

from anyio.to_thread import run_sync

from kopiwatch.errors import ConfigError

_HINT = "KOPIWATCH_TLS_CERT names the chain and KOPIWATCH_TLS_KEY its key, both PEM"


class Certificate:
    """A chain and its key, from two PEM files. Read them with :meth:`load` first."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._loaded: ssl.SSLContext | None = None
        self.context = _context()
        # Called for every handshake, whether the client names a host or not: a new chain is one
        # assignment, and a handshake sees the old one or the new one, never half of each.
        self.context.sni_callback = self._present

    async def load(self) -> None:
        """Take over what the files hold now. Raises ConfigError, and keeps what there was."""
        self._loaded = await run_sync(_load, self._cert, self._key)

    def _present(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> int | None:
        if self._loaded is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._loaded
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(cert: Path, key: Path) -> ssl.SSLContext:
    _expect(cert, b"-----BEGIN CERTIFICATE-----", "a PEM certificate")
    text = _expect(key, b"PRIVATE KEY-----", "a PEM private key")
    if b"ENCRYPTED" in text:
        raise ConfigError(
            f"the exporter's key {key} is protected by a passphrase, which nobody could type",
            hint="store it without one, readable by kopiwatch only",
        )
    context = _context()
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"the exporter cannot use the certificate {cert} with the key {key}: {_why(error)}",
            hint=_HINT,
        ) from error
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "they do not belong together"
        return f"OpenSSL says {error.reason or error}"
    return error.strerror or str(error)


def _expect(path: Path, mark: bytes, what: str) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the exporter needs {what}, and {path} cannot be read: {error.strerror}", hint=_HINT
        ) from error
    if mark not in text:
        raise ConfigError(f"the exporter needs {what}, and {path} holds none", hint=_HINT)
    return text
