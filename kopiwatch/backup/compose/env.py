"""Environment files, and variables in Compose files: pure, as Compose v2 understands them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

VALUE_LIMIT = 32 * 1024
"""Characters; variables that name each other could grow without end."""
DEPTH_LIMIT = 20

_ASSIGNMENT = re.compile(
    r"""[ \t]*(?:export[ \t]+)?
    (?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
    [ \t]*(?:=|:(?=[ \t]|$))[ \t]*
    (?: '(?P<raw>(?:[^'\\]|\\.)*)'
      | "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<plain>[^\r\n]*) )
    (?P<rest>[^\r\n]*)(?:\r?\n|$)""",
    re.VERBOSE | re.DOTALL,
)
_INHERITED = re.compile(
    r"[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_.-]*[ \t]*(?:#[^\n]*)?(?:\r?\n|$)"
)
_NOTHING = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|$)")
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class NotEnvironment(ValueError):
    """The text is not made of ``NAME=value`` lines."""


class Assignment(msgspec.Struct, frozen=True):
    """One ``NAME=value``; ``start`` and ``end`` are where the value stands, quotes included."""

    name: str
    value: str
    literal: bool
    start: int
    end: int


class Interpolated(msgspec.Struct, frozen=True):
    """A text with its variables filled in; ``unknown`` are those that nobody has set."""

    text: str
    unknown: tuple[str, ...] = ()


def assignments(text: str) -> Iterator[Assignment]:
    """Each assignment of an environment file, in order; values as they stand, escapes resolved.

    Raises NotEnvironment for a line that is anything else.
    """
    place = 1 if text.startswith("\ufeff") else 0
    while place < len(text):
        if skipped := _NOTHING.match(text, place) or _INHERITED.match(text, place):
            place = skipped.end()
            continue
        found = _ASSIGNMENT.match(text, place)
        if found is None:
            line = text.count("\n", 0, place) + 1
            raise NotEnvironment(f"line {line} is no NAME=value")
        place = found.end()
        yield _assignment(found)


def _assignment(found: re.Match[str]) -> Assignment:
    name, rest = found["name"], found["rest"].strip()
    if found["plain"] is None and (not rest or rest.startswith("#")):
        kind = "raw" if found["raw"] is not None else "quoted"
        value = found[kind]
        if kind == "quoted":
            value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), value, flags=re.DOTALL)
        return Assignment(name, value, kind == "raw", found.start(kind) - 1, found.end(kind) + 1)
    # Not quoted as a whole: all of the line counts, up to a comment.
    kind = next(k for k in ("raw", "quoted", "plain") if found[k] is not None)
    start = found.start(kind) - (kind != "plain")
    line = found.string[start : found.end("rest")]
    value = re.split(r"[ \t]#", line, maxsplit=1)[0].rstrip()
    return Assignment(name, value, False, start, start + len(value))


def read_env(text: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment file on top of ``given``. Raises NotEnvironment."""
    known = dict(given)
    for each in assignments(text):
        known[each.name] = each.value if each.literal else interpolate(each.value, known).text
    return known


def interpolate(text: str, variables: Mapping[str, str], depth: int = 0) -> Interpolated:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:+other}``, ``${NAME:?why}``.

    ``$$`` is a dollar sign. What nobody has set is empty, as for Compose, and told as unknown.
    """
    made: list[str] = []
    unknown: list[str] = []
    place = 0
    while place < len(text):
        found = _VARIABLE.search(text, place)
        if found is None:
            break
        made.append(text[place : found.start()])
        place = found.end()
        if found["escaped"]:
            made.append("$")
            continue
        operation = ""
        if found["braced"]:
            end = _closing(text, place)
            operation, place = text[place:end], end + 1
        filled = _filled(found["name"] or found["braced"], operation, variables, depth)
        made.append(filled.text)
        unknown += filled.unknown
    made.append(text[place:])
    whole = "".join(made)
    if len(whole) > VALUE_LIMIT:
        return Interpolated("", ("a value that is too long",))
    return Interpolated(whole, tuple(unknown))


def _closing(text: str, place: int) -> int:
    """Where the brace that was opened before ``place`` is closed; the text's end if it is not."""
    depth = 1
    for position in range(place, len(text)):
        if text.startswith("${", position):
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
    return len(text)


def _filled(name: str, operation: str, variables: Mapping[str, str], depth: int) -> Interpolated:
    value = variables.get(name)
    sign = operation[:2] if operation.startswith(":") else operation[:1]
    word = operation[len(sign) :]
    is_set = bool(value) if sign.startswith(":") else value is not None
    if depth >= DEPTH_LIMIT:
        return Interpolated("", (name,))
    if sign.endswith("+"):
        return interpolate(word, variables, depth + 1) if is_set else Interpolated("")
    if is_set and value is not None:
        return Interpolated(value)
    if sign.endswith("-"):
        return interpolate(word, variables, depth + 1)
    return Interpolated(value or "", (name,))
