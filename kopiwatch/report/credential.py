"""Who may read the metrics: basic authentication, a bearer token, either of them, or everybody."""

from __future__ import annotations

import base64
import binascii
import hmac

import msgspec

from kopiwatch.config import Secret


class Credentials(msgspec.Struct, frozen=True):
    """What is asked for. ``password`` None: no user; ``token`` None: no token."""

    user: str = ""
    password: Secret | None = None
    token: Secret | None = None

    @property
    def challenges(self) -> tuple[str, ...]:
        """The values of ``WWW-Authenticate``; none if everybody may read."""
        basic = ('Basic realm="kopiwatch", charset="UTF-8"',) if self.password is not None else ()
        bearer = ('Bearer realm="kopiwatch"',) if self.token is not None else ()
        return basic + bearer

    def admits(self, authorization: str) -> bool:
        """Whether this value of ``Authorization`` opens; a near miss takes as long as a far one."""
        if not self.challenges:
            return True
        scheme, _, given = authorization.partition(" ")
        match scheme.lower():
            case "basic" if self.password is not None:
                return _same(_decoded(given.strip()), f"{self.user}:{self.password.reveal()}")
            case "bearer" if self.token is not None:
                return _same(_bytes(given.strip()), self.token.reveal())
        return False


def _bytes(text: str) -> bytes:
    # aiohttp hands over what is no UTF-8 as lone surrogates.
    return text.encode("utf-8", "surrogateescape")


def _same(given: bytes, wanted: str) -> bool:
    return hmac.compare_digest(given, _bytes(wanted))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(_bytes(text), validate=True)
    except binascii.Error:
        return b""  # never equal: what is wanted holds a colon
