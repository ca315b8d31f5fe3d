"""Who we are, from texts like those that were seen in containers; and where our folders lie."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from kopiwatch.engine.own import (
    Inside,
    Outside,
    Unknown,
    container_id,
    host_source,
    whoami,
)
from kopiwatch.engine.port import HostMount
from kopiwatch.testing.engine import FakeEngine, volume_mount
from kopiwatch.units.container import Mount

ID = "b5ad60815e7ef7913d789b8627fdf8a6859bd814a0197f1119823e6ab8118f7f"
LAYER = "fd413e4d64d062e17d4507834a2dd5e9676f46c15574877d82c147486f76b8f2"
FOLDER = f"/var/lib/docker/containers/{ID}"

ROOT = (
    "72 48 0:39 / / rw,relatime master:2 - overlay overlay rw,"
    f"lowerdir=/var/lib/docker/overlay2/l/MW63:/x,upperdir=/var/lib/docker/overlay2/{LAYER}/diff,"
    f"workdir=/var/lib/docker/overlay2/{LAYER}/work\n"
)
CGROUP = f"78 77 0:29 /docker/{'c' * 64} /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
VOLUME = f"89 72 254:0 /var/lib/docker/volumes/{'d' * 64}/_data /etc/app rw - ext4 /d rw\n"


def files(folder: str, *, user_data: str = "", suffix: str = "") -> str:
    return "".join(
        f"9{n} 72 254:0 {folder}/{user_data}{name}{suffix} /etc/{name} rw,relatime - ext4 /d rw\n"
        for n, name in enumerate(("resolv.conf", "hostname", "hosts"))
    )


PLAIN = ROOT + CGROUP + VOLUME + files(FOLDER)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(ROOT + files(FOLDER), id="private cgroup namespace"),
        pytest.param(
            ROOT + files(FOLDER).replace("hostname /etc/hostname", "hosts /x"), id="uts host"
        ),
        pytest.param(ROOT + files(f"/srv/docker/containers/{ID}"), id="other root folder"),
        pytest.param(ROOT + files(f"/containers/{ID}"), id="docker root on its own disk"),
        pytest.param(ROOT + files(FOLDER, suffix="//deleted"), id="replaced on the host"),
        pytest.param(
            files(f"/containers/storage/overlay-containers/{ID}", user_data="userdata/"),
            id="podman",
        ),
    ],
)
def test_container_is_named_by_the_files_docker_mounts(text):
    assert container_id(text) == ID


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n", id="a host"),
        pytest.param(ROOT + CGROUP + VOLUME, id="ids of layers, cgroups and volumes"),
        pytest.param(files("/home/me"), id="binds of plain files"),
        pytest.param(files(f"/x/{ID[:12]}"), id="short id"),
        pytest.param(files(f"/x/{ID}/y"), id="not the folder itself"),
        pytest.param(files(FOLDER).replace("/etc/", "/srv/"), id="mounted elsewhere"),
        pytest.param("garbage\n\n 1 2 3\n", id="garbage"),
    ],
)
def test_no_other_text_names_a_container(text):
    assert container_id(text) is None


def own_engine() -> tuple[FakeEngine, str]:
    engine = FakeEngine()
    identity = engine.add_container("kopiwatch", mounts=(volume_mount("state", "/state"),))
    return engine, identity


def text_of(identity: str, *places: str) -> str:
    mounts = "".join(f"5 1 0:1 /x {place} rw - ext4 /d rw\n" for place in places)
    return mounts + files(f"/var/lib/docker/containers/{identity}")


@pytest.mark.anyio
async def test_process_on_a_host_is_outside_without_asking_docker():
    engine, _ = own_engine()
    assert await whoami(engine, mountinfo="", marked=False) == Outside()
    assert engine.calls == []


@pytest.mark.anyio
async def test_container_whose_files_do_not_name_it_is_unknown():
    engine, _ = own_engine()
    assert isinstance(await whoami(engine, mountinfo=files("/pod/etc"), marked=True), Unknown)


@pytest.mark.anyio
@pytest.mark.parametrize(("text", "marked"), [("", True), (files("/pod/etc"), False)])
async def test_one_hint_alone_makes_no_container(text, marked):
    """A disk made from an image keeps the marker file, and a host may bind its hosts file."""
    engine, _ = own_engine()
    assert await whoami(engine, mountinfo=text, marked=marked) == Outside()


@pytest.mark.anyio
async def test_container_is_found_by_its_id():
    engine, identity = own_engine()
    found = await whoami(engine, mountinfo=text_of(identity), marked=True)
    assert isinstance(found, Inside)
    assert found.container.name == "kopiwatch"


@pytest.mark.anyio
async def test_container_of_another_daemon_is_unknown():
    engine, _ = own_engine()
    found = await whoami(engine, mountinfo=PLAIN, marked=True)
    assert isinstance(found, Unknown)
    assert ID[:12] in found.reason


@pytest.mark.anyio
async def test_sharer_of_a_network_is_not_taken_for_its_owner():
    """With network_mode container:… the three files are those of the other container (seen)."""
    engine, owner = own_engine()
    sharer = engine.add_container(
        "vpn-client", network_mode=f"container:{owner}", mounts=(volume_mount("b", "/b"),)
    )
    as_sharer = await whoami(engine, mountinfo=text_of(owner, "/b"), marked=True)
    assert isinstance(as_sharer, Inside)
    assert as_sharer.container.id == sharer
    as_owner = await whoami(engine, mountinfo=text_of(owner, "/state"), marked=True)
    assert isinstance(as_owner, Inside)
    assert as_owner.container.id == owner


@pytest.mark.anyio
async def test_root_layer_tells_twins_on_one_network_apart():
    engine, owner = own_engine()
    twin = engine.add_container(
        "twin", network_mode=f"container:{owner}", mounts=(volume_mount("state", "/state"),)
    )
    text = text_of(owner, "/state")
    assert isinstance(await whoami(engine, mountinfo=text, marked=True), Unknown)
    layer = {"Data": {"UpperDir": f"/var/lib/docker/overlay2/{LAYER}/diff"}, "Name": "overlay2"}
    engine.all[twin].details = replace(
        engine.all[twin].details, definition=msgspec.json.encode({"GraphDriver": layer})
    )
    found = await whoami(engine, mountinfo=ROOT + text, marked=True)
    assert isinstance(found, Inside)
    assert found.container.id == twin


@pytest.mark.anyio
async def test_workers_on_our_network_are_no_candidates():
    engine, identity = own_engine()
    engine.add_container("w", network_mode=f"container:{identity}", labels={"kopi.worker": "run"})
    assert isinstance(await whoami(engine, mountinfo=text_of(identity), marked=True), Inside)


VOLUMES = "/var/lib/docker/volumes"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/state", ("volume", "state", "", f"{VOLUMES}/state/_data")),
        ("/state/locks/", ("volume", "state", "locks", f"{VOLUMES}/state/_data/locks")),
        ("/state/a/../locks", ("volume", "state", "locks", f"{VOLUMES}/state/_data/locks")),
        ("/state/inner/x", ("bind", "/srv/inner", "x", "/srv/inner/x")),
        ("/state/inner", ("bind", "/srv/inner", "", "/srv/inner")),
        ("/state/innermost", ("volume", "state", "innermost", f"{VOLUMES}/state/_data/innermost")),
        ("/stateful", None),
        ("/", None),
        ("/fast/x", None),
        ("/state/fast/x", None),
    ],
)
def test_path_is_translated_by_the_longest_mount(path, expected):
    engine = FakeEngine()
    identity = engine.add_container(
        "kopiwatch",
        mounts=(
            volume_mount("state", "/state"),
            Mount(kind="bind", destination="/state/inner", source="/srv/inner"),
        ),
    )
    own = engine.all[identity].details
    hidden = (HostMount("tmpfs", "/fast"), HostMount("tmpfs", "/state/fast"))
    own = replace(own, mounts=own.mounts + hidden)
    found = host_source(own, path)
    got = None if found is None else (found.kind, found.source, found.rest, found.path)
    assert got == expected


def test_mount_of_the_root_translates_everything():
    engine = FakeEngine()
    identity = engine.add_container(
        "k", mounts=(Mount(kind="bind", destination="/", source="/host"),)
    )
    found = host_source(engine.all[identity].details, "/etc/x")
    assert found is not None
    assert (found.rest, found.path) == ("etc/x", "/host/etc/x")
