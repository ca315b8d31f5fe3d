"""Which files of a project are gathered, and which may not be."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.compose.collect import Collector, Rules, hosts_of
from kopiwatch.backup.compose.project import (
    LABEL,
    Project,
    absolute,
    may_be_project,
    projects_of,
    stored_path,
)
from kopiwatch.backup.kept import HostFile, KeptFile, LeftOut, complaints, keep, store
from kopiwatch.units.container import Container

pytestmark = pytest.mark.anyio
COMPOSE = b"services: {web: {env_file: web.env}}\n"


def labelled(name: str = "shop", folder: str = "/srv/shop", files: str = "", env: str = ""):
    labels = {LABEL: name, f"{LABEL}.working_dir": folder}
    labels |= {f"{LABEL}.config_files": files} if files else {}
    labels |= {f"{LABEL}.environment_file": env} if env else {}
    return Container(id=name, name=name, labels=labels)


def project(**labels: str) -> Project:
    (made,) = projects_of([labelled(**{"files": "/srv/shop/compose.yml", **labels})])
    return made


class FakeLook:
    """A host's files; what lies outside ``hosts`` is refused as a worker does."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, ...]] = []

    async def read(self, hosts, paths, folders=()):
        self.asked.append(paths)
        return tuple(self._one(hosts, path) for path in paths)

    def _one(self, hosts, path):
        if not any(path == host or path.startswith(host + "/") for host in hosts):
            return HostFile(path, reason="outside", text="it lies outside what may be read")
        if path not in self.files:
            return HostFile(path, reason="missing", text="it is not there")
        return HostFile(path, self.files[path])


async def gather(files: dict[str, bytes], of: Project | None = None, **rules):
    collector = Collector(of or project(), FakeLook(files), Rules(**rules))
    return await collector.collect(), collector


def kept(found) -> set[str]:
    return {each.path for each in found.files}


def reasons(found) -> dict[str, str]:
    return {each.path: each.reason for each in found.left_out}


async def test_files_are_found_in_rounds_and_through_variables():
    """extends and include, each with its own folder for relative paths, and its own .env."""
    files = {
        "/srv/shop/.env": b"WHERE=parts\n",
        "/srv/shop/compose.yml": b"include: ['${WHERE}/inc.yml']\nservices: {web: {extends: "
        b"{file: ../shop/base/base.yml, service: a}}}\n",
        "/srv/shop/parts/.env": b"LOCAL=here\n",
        "/srv/shop/parts/inc.yml": b"services: {}\nsecrets: {s: {file: './${LOCAL}/${WHERE}'}}\n",
        "/srv/shop/parts/here/parts": b"s",
        "/srv/shop/base/base.yml": b"services: {a: {env_file: a.env}, b: {env_file: b.env}}\n",
        "/srv/shop/base/a.env": b"A=1\n",
    }
    found, collector = await gather(files)
    assert kept(found) == set(files)
    assert reasons(found) == {}
    assert collector.copies["compose/shop/parts/here/parts"] == b"s"
    assert len(collector.look.asked) == 4


async def test_a_folder_without_a_compose_file_of_its_own_is_nobodys():
    """A label may name any folder, and any Compose file elsewhere: then only that file is kept."""
    forged = project(folder="/etc/ssh", files="/srv/x/compose.yml", env="/etc/ssh/host_key")
    files = {
        "/srv/x/compose.yml": b"services: {a: {env_file: sshd_config}}\n",
        "/etc/ssh/host_key": b"A=1\n",
        "/etc/ssh/sshd_config": b"B=1\n",
    }
    found, _ = await gather(files, forged)
    assert kept(found) == {"/srv/x/compose.yml"}
    assert reasons(found) == {"/etc/ssh/host_key": "outside", "/etc/ssh/sshd_config": "outside"}
    assert [each.stored for each in found.files] == ["compose/@absolute/srv/x/compose.yml"]


async def test_labels_that_name_other_files_as_compose_or_environment_files():
    """They are read, found to be something else, and not kept."""
    forged = project(
        folder="/srv/shop", files="/srv/shop/compose.yml,/etc/shadow", env="/srv/shop/k"
    )
    files = {
        "/srv/shop/compose.yml": COMPOSE,
        "/etc/shadow": b"root:$6$x:1:\n",
        "/srv/shop/k": b"--",
    }
    found, collector = await gather(files, forged)
    assert kept(found) == {"/srv/shop/compose.yml"}
    assert reasons(found)["/etc/shadow"] == reasons(found)["/srv/shop/k"] == "content"
    assert not any(b"root" in copy for copy in collector.copies.values())


async def test_a_named_folder_opens_what_lies_outside():
    files = {
        "/srv/shop/compose.yml": b"services: {}\nsecrets: {s: {file: /opt/secrets/s}}\n",
        "/opt/secrets/s": b"s",
    }
    closed, _ = await gather(files)
    assert reasons(closed) == {"/opt/secrets/s": "outside"}
    (line,) = complaints("shop", closed.left_out)
    assert "/opt/secrets/s" in line
    assert "KOPIWATCH_RECIPE_PATHS" in line
    opened, _ = await gather(files, paths=("/opt/secrets",))
    assert {each.stored for each in opened.files} == {
        "compose/shop/compose.yml",
        "compose/@absolute/opt/secrets/s",
    }


async def test_the_repositorys_password_is_not_kept():
    files = {
        "/srv/shop/compose.yml": b"services: {a: {env_file: e}}\nsecrets: {p: {file: p}}\n",
        "/srv/shop/p": b"long-password\n",
        "/srv/shop/e": b"PW=long-password\nX=1\n",
    }
    found, collector = await gather(files, password=b"long-password")
    assert reasons(found) == {"/srv/shop/p": "own"}
    assert complaints("shop", found.left_out) == []
    assert collector.copies["compose/shop/e"] == b"PW=removed-by-kopiwatch\nX=1\n"
    assert [each.redacted for each in found.files] == [False, True]


async def test_what_is_no_path_is_said():
    files = {
        "/srv/shop/compose.yml": b"include: ['oci://x/y', '~/a.yml', 'https://x/y.yml']\n"
        b"services: {a: {env_file: '${NOBODY}.env', build: .}}\n",
    }
    found, _ = await gather(files, project(files="/srv/shop/compose.yml,-,C:\\x.yml"))
    assert reasons(found) == {
        "oci://x/y": "name",
        "~/a.yml": "name",
        "https://x/y.yml": "name",
        "${NOBODY}.env": "variable",
        ".": "build",
        "-": "name",
        "C:\\x.yml": "name",
    }
    told = complaints("shop", found.left_out, limit=9)
    assert [line for line in told if "${NOBODY} is set in none" in line]
    assert not [line for line in told if "build" in line]


@pytest.mark.parametrize("name", ["x.kopia-entry", ".kopia-entry", "x.kopia-entry/y"])
async def test_what_kopia_would_take_for_a_stand_in_is_left_out(name):
    """It would store something else in the place of that copy, or fail when all is read."""
    files = {
        "/srv/shop/compose.yml": f"services: {{a: {{env_file: {name}}}}}".encode(),
        f"/srv/shop/{name}": b"A=1\n",
    }
    found, collector = await gather(files)
    assert reasons(found) == {f"/srv/shop/{name}": "name"}
    assert set(collector.copies) == {"compose/shop/compose.yml"}
    (line,) = complaints("shop", found.left_out)
    assert "stand-in" in line


async def test_files_that_include_each_other_end():
    loop = b"include: [compose.yml, ./compose.yml]\nservices: {a: {extends: {file: compose.yml, "
    files = {"/srv/shop/compose.yml": loop + b"service: a}}}\n"}
    found, _ = await gather(files)
    assert kept(found) == set(files)


def test_a_project_is_told_once_and_its_places_differ():
    """By name, folder and files: a project that was moved while half of it ran is two."""
    one = labelled(files="compose.yml,/srv/x.yml")
    found = projects_of(
        [one, one, labelled(folder="/new"), labelled("../../etc"), Container("x", "x")]
    )
    assert [each.place for each in found] == [
        "compose/shop",
        "compose/shop@2",
        "compose/%2E%2E%2F%2E%2E%2Fetc",
    ]
    assert found[0].config_files == ("/srv/shop/compose.yml", "/srv/x.yml")


@pytest.mark.parametrize("folder", ["/", "/etc", "/proc/1/root/srv", "/run/x", "/var/lib/docker/v"])
def test_system_folders_are_no_projects(folder):
    assert not may_be_project(folder, "/var/lib/docker")
    assert folder not in hosts_of(project(folder=folder), Rules(docker_root="/var/lib/docker"))


odd = st.text(alphabet="ab./\\~-:@%\0\n", max_size=20)


@given(odd, odd, odd)
def test_no_name_is_stored_outside_the_projects_place(name, folder, text):
    """Whatever labels and files say, a copy lies below compose/."""
    for made in projects_of([labelled(name or "x", f"/{folder}", text or "x")]):
        path = absolute(text, made.folder)
        for stored in [stored_path(made, each) for each in (path, *made.config_files) if each]:
            assert posixpath.normpath(stored) == stored
            assert stored.startswith("compose/")
            assert ".." not in stored.split("/")


def test_the_folder_holds_exactly_the_copies_and_leaves_equal_ones_alone(tmp_path: Path):
    store(tmp_path, {"compose/a/x": b"1", "compose/a/y/z": b"2", "docker/etc/d": b"3"})
    (tmp_path / "unit.json").write_text("{}")
    before = (tmp_path / "compose/a/x").stat()
    store(tmp_path, {"compose/a/x": b"1", "compose/a/y": b"4"})
    after = (tmp_path / "compose/a/x").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {"unit.json", "compose/a/x", "compose/a/y"}
    assert (tmp_path / "compose/a/y").read_bytes() == b"4"
    store(tmp_path, {"compose/a/x/deep": b"5"})
    assert (tmp_path / "compose/a/x/deep").read_bytes() == b"5"
    store(tmp_path, {})
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"unit.json"}


def test_many_missing_files_are_a_few_lines():
    lost = [LeftOut("env_file", f"/{n}", "x", "missing", "it is not there") for n in range(9)]
    told = complaints("shop", lost)
    assert len(told) == 6
    assert told[-1].startswith("and 4 more")


def test_a_copy_that_differs_says_so():
    found = HostFile("/a", b"secret")
    assert isinstance(keep("env", found, "compose/a", b"secret"), KeptFile)
    assert not keep("env", found, "compose/a", b"secret").redacted
    assert keep("env", found, "compose/a", b"***").redacted
