"""A recipe without secrets, for who asks for one: pure, and never enough to restore from."""

from __future__ import annotations

import re

import msgspec
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from kopiwatch.backup.compose.document import NotCompose, nodes_of
from kopiwatch.backup.compose.env import NotEnvironment, assignments

MARK = "***"
SECRET_NAME = re.compile(
    r"PASS(?!ENGER)|PWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|AUTH(?!OR)|API_?KEY"
    r"|(?<![A-Z])KEY(?![A-Z])|(?<![A-Z])(?:DSN|SALT|PIN)(?![A-Z])",
    re.IGNORECASE,
)
_NOT_THE_SECRET = re.compile(r"(?:FILE|PATH|DIR)$", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@'\"]*):[^\s/@'\"]+@")
_PAIR = re.compile(r"(?P<name>-{0,2}[A-Za-z_][A-Za-z0-9_.-]*)=(?P<value>.*)", re.DOTALL)
_LINE = re.compile(
    r"^([ \t]*(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*[=:][ \t]*)[^\s].*$", re.MULTILINE
)
_WORD = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)=(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',]+)"
)
_OPTION = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>[^,]+)")


def is_secret(name: str) -> bool:
    """Whether a variable of that name looks as if it held a secret (not merely where one is)."""
    return bool(SECRET_NAME.search(name)) and not _NOT_THE_SECRET.search(name)


def redact_file(kind: str, content: bytes) -> bytes:
    """A copied file without what looks secret; ``kind`` is that of the manifest.

    A secret's file goes as a whole, and so does an environment or Compose file that cannot be
    understood. Other files lose the passwords in addresses and in ``NAME=value`` lines.
    """
    if kind == "secret":
        return MARK.encode()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return MARK.encode() if kind != "config" else content
    try:
        if kind in ("compose", "include", "extends"):
            return _redact_yaml(text).encode()
        if kind in ("env", "env_file", "label_file"):
            return _redact_env(text).encode()
    except (NotEnvironment, NotCompose):
        return MARK.encode()
    return redact_lines(text).encode()


def redact_json(document: bytes) -> bytes:
    """A definition of Docker's without secrets: variables, arguments, labels, driver options."""
    return msgspec.json.encode(_redacted(msgspec.json.decode(document)))


def redact_lines(text: str) -> str:
    """Configuration without the values of secret names, and without passwords in addresses.

    As JSON where it is that, else by lines (``name = value``) and words (``NAME=value``).
    """
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    else:
        bare = _redacted(document)
        return text if bare == document else msgspec.json.encode(bare).decode()

    def line(found: re.Match[str]) -> str:
        return found[1] + MARK if is_secret(found["name"]) else found[0]

    return _without_passwords(_redact_words(_LINE.sub(line, text)))


def _redact_words(text: str) -> str:
    def word(found: re.Match[str]) -> str:
        value = MARK if is_secret(found["name"]) else _redact_words(found["value"])
        return f"{found['name']}={value}"

    return _WORD.sub(word, text)


def _redact_env(text: str) -> str:
    places = [
        (each.start, each.end, MARK if is_secret(each.name) else "")
        for each in assignments(text)
        if each.value and (is_secret(each.name) or _without_passwords(each.value) != each.value)
    ]
    for start, end, mark in reversed(places):
        text = text[:start] + (mark or _without_passwords(text[start:end])) + text[end:]
    return text


def _redact_yaml(text: str) -> str:
    """The same text, comments and all, with other scalars in the places of secrets."""
    bare = text.removeprefix("\ufeff")
    places: dict[tuple[int, int], str] = {}
    seen: set[int] = set()
    pending: list[tuple[str, Node]] = [("", node) for node in nodes_of(text.encode())]
    while pending:
        name, node = pending.pop()
        if isinstance(node, ScalarNode):
            changed = MARK if is_secret(name) and node.value else _redact_text(node.value)
            if changed != node.value:
                place = (node.start_mark.index, node.end_mark.index)
                places[place] = msgspec.json.encode(changed).decode()
        elif id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, MappingNode):
                pending += [(getattr(key, "value", ""), value) for key, value in node.value]
            elif isinstance(node, SequenceNode):
                pending += [("", item) for item in node.value]
    for (start, end), scalar in sorted(places.items(), reverse=True):
        # A block scalar ends with its last line's end; what follows must stay on its own line.
        tail = "\n" if bare[start:end].endswith("\n") else ""
        bare = bare[:start] + scalar + tail + bare[end:]
    return bare


def _redacted(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {key: _redacted(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if name == "o":  # the mount options of a local volume
        return _OPTION.sub(_option, value)
    return MARK if is_secret(name) else _redact_text(value)


def _option(found: re.Match[str]) -> str:
    return f"{found['name']}={MARK}" if is_secret(found["name"]) else found[0]


def _redact_text(text: str) -> str:
    """``NAME=value`` (a variable, an argument) with a secret name, or an address."""
    found = _PAIR.fullmatch(text)
    if found and found["value"] and is_secret(found["name"]):
        return f"{found['name']}={MARK}"
    return _without_passwords(text)


def _without_passwords(text: str) -> str:
    return _ADDRESS.sub(rf"\g<head>:{MARK}@", text)
