"""Gathering a project's files: in rounds, because each Compose file names others."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Protocol

import anyio.to_thread
import msgspec

from kopiwatch.backup.compose.document import Included, Named, NotCompose, read_document
from kopiwatch.backup.compose.env import NotEnvironment, interpolate, read_env
from kopiwatch.backup.compose.project import Project, absolute, may_be_project, stored_path
from kopiwatch.backup.kept import (
    RESERVED,
    HostFile,
    KeptFile,
    LeftOut,
    holds_only,
    keep,
    reserved,
    without,
)
from kopiwatch.backup.redact import redact_file
from kopiwatch.units.place import inside

COMPOSE_KINDS = ("compose", "include", "extends")
FILE_LIMIT = 500
ROUND_LIMIT = 20


class Look(Protocol):
    """Reads files of Docker's host."""

    async def read(
        self, hosts: tuple[str, ...], paths: tuple[str, ...], folders: tuple[str, ...] = ()
    ) -> tuple[HostFile, ...]:
        """What these paths, and the files in these folders, hold: all within ``hosts``."""


class Rules(msgspec.Struct, frozen=True):
    """What a recipe may hold. ``paths`` are folders of the host that may be read besides.

    ``password`` is the repository's: it is never stored. ``docker_root`` is Docker's own folder.
    """

    paths: tuple[str, ...] = ()
    redact: bool = False
    password: bytes = b""
    docker_root: str = ""


class ProjectFiles(msgspec.Struct, frozen=True):
    """A Compose project in the recipe: where it was, the copies of its files, and what is missing.

    ``config_files`` and ``env_files`` are what ``docker compose`` was given, in its order.
    """

    project: str
    folder: str
    config_files: tuple[str, ...]
    env_files: tuple[str, ...]
    files: tuple[KeptFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """A file to be read. A Compose file's own paths begin at ``base``; ``services``: see there."""

    kind: str
    path: str
    by: str
    required: bool = True
    base: str = ""
    variables: dict[str, str] = {}
    services: frozenset[str] | None = None

    @property
    def key(self) -> tuple[str, bool, str, frozenset[str] | None]:
        """What it takes to have dealt with it."""
        return self.path, self.kind in COMPOSE_KINDS, self.base, self.services


def hosts_of(project: Project, rules: Rules) -> tuple[str, ...]:
    """What must be mounted to read a project's files: its folder, and Compose files elsewhere."""
    folders = [project.folder] if may_be_project(project.folder, rules.docker_root) else []
    folders += rules.paths
    elsewhere = [
        path
        for path in project.config_files
        if not any(inside(path, folder) for folder in folders)
        and may_be_project(path, rules.docker_root)
    ]
    return (*folders, *elsewhere)


class Collector:
    """Gathers the files of one project. Call :meth:`collect` once; ``copies`` has the contents."""

    def __init__(self, project: Project, look: Look, rules: Rules) -> None:
        self.project = project
        self.look = look
        self.rules = rules
        self.hosts = hosts_of(project, rules)
        self.files: dict[str, KeptFile] = {}
        self.left_out: dict[tuple[str, str], LeftOut] = {}
        self.copies: dict[str, bytes] = {}
        self._read: dict[str, HostFile] = {}
        self._done: set[object] = set()
        self._pending: list[Task] = []

    async def collect(self) -> ProjectFiles:
        """Read everything that belongs to the project, as far as it may be read and is there."""
        project = self.project
        for text in project.unusable:
            what = "it was given on standard input" if text == "-" else "it is no path on this host"
            self._leave(Task("compose", text, "config file"), "name", what)
        await self._fetch((*project.config_files, *project.env_files))
        if not await self._proven():
            self.hosts = tuple(host for host in self.hosts if host != project.folder)
        given = {"COMPOSE_PROJECT_NAME": project.name}
        variables = await self._variables("env", project.env_files, given, project.env_named)
        self._pending = [
            Task("compose", path, "config file", True, project.folder, variables)
            for path in project.config_files
        ]
        for _ in range(ROUND_LIMIT):
            tasks, self._pending = self._pending, []
            await self._fetch(tuple(task.path for task in tasks))
            for task in tasks:
                await self._take(task)
            if not self._pending:
                break
        for task in self._pending:
            self._leave(task, "depth", "too many Compose files lead to it")
        return ProjectFiles(
            project=project.name,
            folder=project.folder,
            config_files=project.config_files,
            env_files=tuple(
                path for path in project.env_files if project.env_named or path in self.files
            ),
            files=tuple(sorted(self.files.values(), key=lambda each: each.stored)),
            left_out=tuple(self.left_out.values()),
        )

    async def _proven(self) -> bool:
        """Whether the folder is the project's: one of its Compose files lies in it.

        Labels alone do not make it so: any folder of the host could stand there.
        """
        for path in self.project.config_files:
            found = self._read.get(path)
            if found is not None and not found.reason and inside(path, self.project.folder):
                try:
                    await anyio.to_thread.run_sync(read_document, found.content)
                except NotCompose:
                    continue
                return True
        return False

    async def _fetch(self, paths: tuple[str, ...]) -> None:
        new = tuple(dict.fromkeys(path for path in paths if path not in self._read))
        if new:
            for found in await self.look.read(self.hosts, new):
                self._read[found.path] = found

    async def _variables(
        self, kind: str, paths: tuple[str, ...], given: Mapping[str, str], required: bool
    ) -> dict[str, str]:
        """The variables of environment files on top of those given; the files are kept."""
        known = dict(given)
        await self._fetch(paths)
        for path in paths:
            task = Task(kind, path, "environment file", required)
            found = self._found(task)
            if found is None:
                continue
            try:
                text = found.content.decode()
                known = await anyio.to_thread.run_sync(read_env, text, known)
            except (NotEnvironment, UnicodeDecodeError) as error:
                line = f" ({error})" if isinstance(error, NotEnvironment) else ""
                self._leave(task, "content", f"it is not an environment file{line}")
                continue
            await self._keep(task, found)
        return known

    def _found(self, task: Task) -> HostFile | None:
        """What was read for a task; None, and left out, if nothing may be stored of it."""
        found = self._read[task.path]
        if not found.reason and not self._allowed(task.path):
            found = HostFile(task.path, reason="outside", text="it lies outside what may be read")
        if found.reason:
            missed = task.required and found.reason != "own"
            task = msgspec.structs.replace(task, required=missed)
            self._leave(task, found.reason, found.text)
            return None
        if holds_only(found.content, self.rules.password):
            task = msgspec.structs.replace(task, required=False)
            self._leave(task, "own", "it holds the repository's password")
            return None
        if reserved(stored_path(self.project, task.path)):
            self._leave(task, "name", RESERVED)
            return None
        if len(self.files) >= FILE_LIMIT:
            self._leave(task, "many", f"the project has more than {FILE_LIMIT} files")
            return None
        return found

    def _allowed(self, path: str) -> bool:
        return any(inside(path, host) for host in self.hosts)

    async def _take(self, task: Task) -> None:
        """Keep what was read for a task, and note the files that it names in turn."""
        if task.key in self._done:
            return
        self._done.add(task.key)
        found = self._found(task)
        if found is None:
            return
        if task.kind not in COMPOSE_KINDS:
            await self._keep(task, found)
            return
        try:
            document = await anyio.to_thread.run_sync(read_document, found.content, task.services)
        except NotCompose as error:
            self._leave(task, "content", str(error))
            return
        await self._keep(task, found)
        for named in document.files:
            self._name(task, named)
        for included in document.included:
            await self._include(task, included)

    def _name(self, task: Task, named: Named) -> None:
        """Note a file that a Compose file names."""
        asked = Task(named.kind, named.path, named.by, named.required)
        if named.kind == "build":
            self._leave(asked, "build", "a build context is not kept")
            return
        path = self._path(asked, task.base, task.variables)
        if path:
            self._pending.append(
                msgspec.structs.replace(
                    asked,
                    path=path,
                    base=posixpath.dirname(path),
                    variables=task.variables,
                    services=frozenset([named.service]) if named.kind == "extends" else None,
                )
            )

    async def _include(self, task: Task, included: Included) -> None:
        """Note the files of one ``include``; its own environment files hold for them."""
        asked = [Task("include", text, "include") for text in included.paths]
        paths = [(each, self._path(each, task.base, task.variables)) for each in asked]
        there = [path for _, path in paths if path]
        if not there:
            return
        folder = posixpath.dirname(there[0])
        if included.folder:
            where = Task("include", included.folder, "include")
            folder = self._path(where, task.base, task.variables) or folder
        required = included.env_files is not None
        texts = included.env_files if included.env_files is not None else (f"{folder}/.env",)
        env = [Task("env", text, "include") for text in texts]
        env_paths = [self._path(each, task.base, task.variables) for each in env]
        usable = tuple(path for path in env_paths if path)
        variables = await self._variables("env", usable, task.variables, required)
        for each, path in paths:
            if path:
                self._pending.append(
                    msgspec.structs.replace(each, path=path, base=folder, variables=variables)
                )

    def _path(self, asked: Task, base: str, variables: Mapping[str, str]) -> str:
        """The absolute path of a name in a Compose file; empty, and left out, if there is none."""
        filled = interpolate(asked.path, variables)
        if filled.unknown:
            what = f"${{{filled.unknown[0]}}} is set in none of the project's environment files"
            self._leave(asked, "variable", what)
            return ""
        path = absolute(filled.text, base)
        if not path:
            self._leave(asked, "name", "it is no path on Docker's host")
        return path

    async def _keep(self, task: Task, found: HostFile) -> None:
        if found.path in self.files:
            return
        content = without(found.content, self.rules.password)
        if self.rules.redact:
            content = await anyio.to_thread.run_sync(redact_file, task.kind, content)
        kept = keep(task.kind, found, stored_path(self.project, found.path), content)
        self.files[found.path] = kept
        self.copies[kept.stored] = content

    def _leave(self, task: Task, reason: str, text: str) -> None:
        if (task.kind, task.required, reason) == ("env", False, "missing"):
            return  # the .env that Compose looks for by itself: most projects have none
        left = LeftOut(task.kind, task.path, task.by, reason, text, task.required)
        self.left_out.setdefault((task.path, task.kind), left)
