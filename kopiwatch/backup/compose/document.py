"""A Compose file, and the other files that it names: pure.

PyYAML gives the tree of nodes (``compose``), and no value is ever built from it: aliases stay
shared, merge keys are looked through and not spelt out, and tags mean nothing. So a file made to
grow without end when it is expanded costs no more than its own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec
import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

SIZE_LIMIT = 256 * 1024
"""Bytes. Compose files have some thousands; reading as much takes seconds."""
STEP_LIMIT = 1_000_000
"""Entries looked at in one file; aliases can make a small file look endless."""
NAMED_LIMIT = 1000
SECTIONS = frozenset({"services", "include", "networks", "volumes", "configs", "secrets", "models"})
OTHERS = frozenset({"name", "version"})
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class NotCompose(ValueError):
    """The file is not a Compose file; says why."""


class Named(msgspec.Struct, frozen=True):
    """A file that a Compose file names: ``path`` as it stands there, variables and all.

    ``by`` is who names it (``service web``). ``service`` is the one that ``extends`` wants.
    """

    kind: str
    path: str
    by: str
    required: bool = True
    service: str = ""


class Included(msgspec.Struct, frozen=True):
    """One entry of ``include``: files that are read as one, and where their paths begin."""

    paths: tuple[str, ...]
    folder: str = ""
    env_files: tuple[str, ...] | None = None


class Document(msgspec.Struct, frozen=True):
    """What a Compose file names."""

    files: tuple[Named, ...] = ()
    included: tuple[Included, ...] = ()


class Walk:
    """Looks into the nodes of one file, and gives up where it was made to have no end."""

    def __init__(self) -> None:
        self._steps = 0

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEP_LIMIT:
            raise NotCompose("its aliases have no end")

    def pairs(self, node: Node | None) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping, with those that ``<<`` brings in; the first of a name counts.

        Raises NotCompose, as all methods do, when there is no end to it.
        """
        seen: set[int] = set()
        names: set[str] = set()
        pending = [node]
        while pending:
            here = pending.pop()
            self._step()
            if not isinstance(here, MappingNode) or id(here) in seen:
                continue
            seen.add(id(here))
            for key, value in here.value:
                self._step()
                if key.tag == _MERGE:
                    merged = value.value if isinstance(value, SequenceNode) else [value]
                    pending += merged[::-1]
                elif isinstance(key, ScalarNode) and key.value not in names:
                    names.add(key.value)
                    yield key.value, value

    def get(self, node: Node | None, name: str) -> Node | None:
        """One entry of a mapping; None if there is none, or nothing stands there."""
        found = next((value for key, value in self.pairs(node) if key == name), None)
        return None if empty(found) else found

    def text(self, node: Node | None, name: str) -> str:
        """One entry of a mapping, if it is a scalar; else empty."""
        return text_of(self.get(node, name))

    def items(self, node: Node | None) -> Iterator[Node]:
        """The items of a list; a scalar or mapping counts as a list of one."""
        if node is None or empty(node):
            return
        for item in node.value if isinstance(node, SequenceNode) else [node]:
            self._step()
            yield item

    def texts(self, node: Node | None) -> tuple[str, ...]:
        """The scalars of a list, or the one scalar."""
        return tuple(text for item in self.items(node) if (text := text_of(item)))


def text_of(node: Node | None) -> str:
    """A scalar as it stands; empty for anything else."""
    return str(node.value) if isinstance(node, ScalarNode) and not empty(node) else ""


def empty(node: Node | None) -> bool:
    """Nothing stands there."""
    return node is None or (isinstance(node, ScalarNode) and node.tag == _NULL)


def nodes_of(content: bytes) -> tuple[MappingNode, ...]:
    """The documents of a Compose file. Raises NotCompose."""
    if len(content) > SIZE_LIMIT:
        raise NotCompose(f"it is too large for a Compose file ({len(content)} bytes)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotCompose("it is not UTF-8 text") from error
    try:
        found = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except RecursionError as error:
        raise NotCompose("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise NotCompose(f"it is not YAML{line}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise NotCompose("it is not YAML") from error
    documents = [node for node in found if not empty(node)]
    for node in documents:
        _check(node)
    if not documents:
        raise NotCompose("it is empty")
    return tuple(node for node in documents if isinstance(node, MappingNode))


def _check(node: Node) -> None:
    """Refuse what is not Compose's: somebody's secrets in YAML, for one."""
    if not isinstance(node, MappingNode):
        raise NotCompose("it is not a Compose file")
    keys = {key for key, _ in Walk().pairs(node)}
    strange = sorted(key for key in keys - SECTIONS - OTHERS if not key.startswith("x-"))
    if strange or not keys & SECTIONS:
        raise NotCompose("it is not a Compose file")


def read_document(content: bytes, services: frozenset[str] | None = None) -> Document:
    """What a Compose file names. Raises NotCompose.

    ``services`` are those that another file extends: then only they, and what they extend in turn,
    count. None is for a file that counts as a whole.
    """
    files: list[Named] = []
    included: list[Included] = []
    walk = Walk()
    for root in nodes_of(content):
        for found in _of_document(walk, root, services):
            if isinstance(found, Named):
                files.append(found)
            else:
                included.append(found)
            if len(files) + len(included) > NAMED_LIMIT:
                raise NotCompose(f"it names more than {NAMED_LIMIT} files")
    return Document(tuple(files), tuple(included))


def _of_document(
    walk: Walk, root: Node, services: frozenset[str] | None
) -> Iterator[Named | Included]:
    known = dict(walk.pairs(walk.get(root, "services")))
    for name in sorted(known if services is None else _closure(walk, known, services)):
        yield from _of_service(walk, name, known[name])
    if services is not None:
        return
    for section, kind in (("configs", "config"), ("secrets", "secret")):
        for name, entry in walk.pairs(walk.get(root, section)):
            if path := walk.text(entry, "file"):
                yield Named(kind, path, f"{kind} {name}")
    for item in walk.items(walk.get(root, "include")):
        yield _included(walk, item)


def _closure(walk: Walk, known: dict[str, Node], services: frozenset[str]) -> set[str]:
    """The services, and those of the same file that they extend."""
    found: set[str] = set()
    pending = [name for name in services if name in known]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        extends = walk.get(known[name], "extends")
        if not walk.text(extends, "file"):
            base = text_of(extends) or walk.text(extends, "service")
            pending += [base] if base in known else []
    return found


def _of_service(walk: Walk, name: str, service: Node) -> Iterator[Named]:
    """The files that a service names. Its build context is no such file, but is told."""
    named = partial(Named, by=f"service {name}")
    for path in walk.texts(walk.get(service, "label_file")):
        yield named("label_file", path)
    for item in walk.items(walk.get(service, "env_file")):
        required = walk.text(item, "required").lower() not in ("false", "no", "off")
        if path := text_of(item) or walk.text(item, "path"):
            yield named("env_file", path, required=required)
    extends = walk.get(service, "extends")
    if path := walk.text(extends, "file"):
        yield named("extends", path, service=walk.text(extends, "service"))
    build = walk.get(service, "build")
    if build is not None:
        context = text_of(build) or walk.text(build, "context") or "."
        yield named("build", context, required=False)


def _included(walk: Walk, item: Node) -> Included:
    if isinstance(item, ScalarNode):
        return Included(walk.texts(item))
    env_files = walk.get(item, "env_file")
    return Included(
        walk.texts(walk.get(item, "path")),
        walk.text(item, "project_directory"),
        None if env_files is None else walk.texts(env_files),
    )
