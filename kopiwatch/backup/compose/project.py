"""The Compose projects of a unit, by the labels of its members, and what of them may be read.

Anybody who starts a container chooses its labels, and the image that it is started from brings
some, too. So a label alone opens nothing: see ``docs/recipe.md`` for the rule.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

import msgspec

from kopiwatch.units.container import Container
from kopiwatch.units.place import inside

LABEL = "com.docker.compose.project"
CLOSED = ("/proc", "/sys", "/dev", "/run", "/boot", "/var/run")
"""Nothing in these folders of the host is read."""
SYSTEM = (
    *("/", "/bin", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/sbin"),
    *("/usr", "/var", "/var/lib"),
)
"""Folders that are never a project's, though a project's may lie in them."""
PATH_LIMIT = 4096

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,100}")


class Project(msgspec.Struct, frozen=True):
    """One Compose project as labels tell of it; paths are absolute, on Docker's host.

    ``place`` is its folder in the recipe. ``env_named`` says that somebody named the environment
    files, so that each must be there. ``unusable`` are names of files that are no path there.
    """

    name: str
    place: str
    folder: str
    config_files: tuple[str, ...]
    env_files: tuple[str, ...]
    env_named: bool = False
    unusable: tuple[str, ...] = ()


def projects_of(members: Iterable[Container]) -> tuple[Project, ...]:
    """The projects of these containers, each once; those that say nothing of files are left out."""
    found: list[Project] = []
    for member in members:
        project = _project(member.labels)
        if project is None:
            continue
        known = [msgspec.structs.replace(each, place="") for each in found]
        if project not in known:
            place = own = f"compose/{_component(project.name)}"
            number = 1
            while place in {each.place for each in found}:
                number += 1
                place = f"{own}@{number}"
            found.append(msgspec.structs.replace(project, place=place))
    return tuple(found)


def _project(labels: dict[str, str]) -> Project | None:
    name = labels.get(LABEL, "")
    folder = labels.get(f"{LABEL}.working_dir", "")
    if not name or not usable(folder):
        return None
    folder = "/" + posixpath.normpath(folder).lstrip("/")
    named = _list(labels.get(f"{LABEL}.config_files", ""))
    env_named = _list(labels.get(f"{LABEL}.environment_file", ""))
    paths = {text: absolute(text, folder) for text in (*named, *env_named)}
    return Project(
        name=name,
        place="",
        folder=folder,
        config_files=tuple(path for text in named if (path := paths[text])),
        env_files=tuple(path for text in env_named if (path := paths[text]))
        if env_named
        else (posixpath.join(folder, ".env"),),
        env_named=bool(env_named),
        unusable=tuple(text for text in paths if not paths[text]),
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def usable(path: str) -> bool:
    """Whether a text can be an absolute path: a label may hold anything."""
    return path.startswith("/") and path.isprintable() and len(path) < PATH_LIMIT


def absolute(text: str, base: str) -> str:
    """A path as Compose resolves it, by its text alone; empty for what is none on this host.

    ``-`` is standard input; a web address, an OCI artifact, a git repository, a Windows path and a
    home directory (whose?) are no paths.
    """
    strange = text in ("", "-") or text.startswith("~") or "\\" in text
    if strange or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|[^/]+@[^/]+:", text):
        return ""
    path = "/" + posixpath.normpath(posixpath.join(base, text)).lstrip("/")
    return path if usable(path) and path != "/" else ""


def may_be_project(folder: str, docker_root: str = "") -> bool:
    """Whether a folder can be a project's at all."""
    closed = (*CLOSED, *([docker_root] if docker_root else []))
    return folder not in SYSTEM and not any(inside(folder, each) for each in closed)


def stored_path(project: Project, path: str) -> str:
    """Where a file of the host lies in the recipe, by its absolute path there."""
    if path != project.folder and inside(path, project.folder):
        return f"{project.place}/{path[len(project.folder.rstrip('/')) + 1 :]}"
    return f"compose/@absolute{path}"


def _component(name: str) -> str:
    if _PROJECT.fullmatch(name):
        return name
    safe = re.sub(r"[^a-z0-9_-]", lambda m: f"%{ord(m[0]):X}", name[:60])
    return safe or "%"
