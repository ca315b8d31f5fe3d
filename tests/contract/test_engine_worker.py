"""What only the real Docker can prove: the traps around workers, and who we are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from support import docker, image

from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.own import Inside, Unknown, host_source, whoami
from kopiwatch.engine.port import WorkerMount, WorkerSpec
from kopiwatch.units.container import STATE_LABEL, WORKER_LABEL

pytestmark = pytest.mark.anyio

CLIENT = """
import anyio, sys
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.port import WorkerSpec

async def main(url, name, image, label, scope):
    key, value = label.split("=")
    labels = {"kopi.worker": "run", "kopi.state": scope, key: value}
    spec = WorkerSpec(name, image, ("/bin/cat",), labels, (), "none")
    async with await DockerEngine.connect(url) as engine, engine.worker(spec) as channel:
        await channel.send(b"up")
        print(await anext(channel.lines()), flush=True)
        await anyio.sleep(60)

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def scope() -> Iterator[docker.Scope]:
    try:
        busybox = image.busybox()
    except docker.DockerMissing as error:
        pytest.fail(str(error), pytrace=False)
    with docker.scope(busybox) as made:
        yield made


@pytest.fixture
async def engine(scope: docker.Scope) -> AsyncIterator[DockerEngine]:
    async with await DockerEngine.connect(docker.URL) as made:
        yield made


def spec(scope: docker.Scope, script: str, *mounts: WorkerMount, image: str = "") -> WorkerSpec:
    key, _, value = scope.label.partition("=")
    return WorkerSpec(
        name=scope.full("worker"),
        image=image or scope.image,
        entrypoint=("/bin/sh", "-c", script),
        labels={WORKER_LABEL: "run", STATE_LABEL: scope.name, key: value},
        mounts=mounts,
        network="none",
    )


async def test_volumes_that_the_image_declares_leave_nothing_behind(scope, engine):
    """Workers are removed without their volumes, so they must not get any of their own."""
    reference = scope.full("declares")
    image.with_changes(reference, "VOLUME /declared", "ENV PATH=/bin", f"LABEL {scope.label}")
    before = docker.call("volume", "ls", "--quiet", "--filter", "dangling=true").split()
    try:
        async with engine.worker(spec(scope, "touch /declared/x; cat", image=reference)):
            mounts = docker.inspect(scope.full("worker"))["Mounts"]
        assert mounts == []
        after = docker.call("volume", "ls", "--quiet", "--filter", "dangling=true").split()
        assert [name for name in after if name not in before and len(name) == 64] == []
    finally:
        docker.call("image", "rm", reference)


async def test_empty_volume_stays_empty_and_cannot_be_written(scope, engine):
    """Docker would copy what the image holds at the target into it, read-only or not."""
    maker = scope.run("maker")
    docker.call("exec", maker, "sh", "-c", "mkdir /seed; echo image > /seed/file")
    reference = scope.full("seeded")
    docker.call("commit", "--change", f"LABEL {scope.label}", maker, reference)
    mount = WorkerMount("volume", scope.volume("empty"), "/seed")
    script = "ls -A /seed; touch /seed/x 2>/dev/null && echo wrote || echo refused"
    try:
        async with engine.worker(spec(scope, script, mount, image=reference)) as channel:
            assert [line async for line in channel.lines()] == [b"refused"]
    finally:
        docker.call("image", "rm", reference)


async def test_foreign_private_files_can_be_read_and_nothing_else_is_allowed(scope, engine):
    owner = scope.run("owner", volumes=["data:/data"])
    secret = "echo private > /data/f; chown 999:999 /data/f; chmod 600 /data/f"
    docker.call("exec", owner, "sh", "-c", secret)
    mount = WorkerMount("volume", scope.full("data"), "/mnt/u/data")
    script = "cat /mnt/u/data/f; touch /var/x 2>&1; grep -e CapEff -e NoNewPrivs /proc/self/status"
    async with engine.worker(spec(scope, script, mount)) as channel:
        said = b"\n".join([line async for line in channel.lines()]).decode()
    assert said.startswith("private\n")
    assert "Read-only file system" in said
    assert "CapEff:\t0000000000000004" in said
    assert "NoNewPrivs:\t1" in said


async def test_sub_folder_of_our_own_volume_reaches_a_worker(scope, engine):
    us = scope.run("us", volumes=["state:/state"])
    docker.call("exec", us, "sh", "-c", "mkdir /state/locks; echo mine > /state/locks/f")
    found = host_source(await engine.inspect(us), "/state/locks")
    assert found is not None
    mount = WorkerMount("bind", found.path, "/mnt/locks", writable=True)
    script = "cat /mnt/locks/f; echo theirs > /mnt/locks/g"
    async with engine.worker(spec(scope, script, mount)) as channel:
        assert [line async for line in channel.lines()] == [b"mine"]
    assert docker.call("exec", us, "cat", "/state/locks/g") == "theirs"


async def test_worker_ends_when_its_master_is_killed(scope, engine):
    """The dead man's switch: SIGKILL closes the connection, and with it standard input."""
    name = scope.full("worker")
    _kill_a_client(scope, name)
    docker.call("wait", name, timeout=5)
    assert docker.state(name) == "exited"
    (stray,) = await engine.workers(scope.name)
    await engine.remove_worker(stray)
    assert docker.state(name) == "gone"


def _kill_a_client(scope: docker.Scope, name: str) -> None:
    """Let another process hold a worker, and kill it with the worker alive."""
    argv = [sys.executable, "-c", CLIENT, docker.URL, name, scope.image, scope.label, scope.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"b'up'\n"
        assert docker.state(name) == "running"
        os.kill(client.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        pytest.param("none", (), id="plain"),
        pytest.param("none", ("--hostname", "bank"), id="hostname"),
        pytest.param("host", (), id="network host"),
        pytest.param("none", ("--uts", "host"), id="uts host"),
    ],
)
async def test_container_recognises_itself(scope, engine, network, options):
    us = scope.run("us", network=network, options=options)
    text = docker.call("exec", us, "cat", "/proc/self/mountinfo")
    found = await whoami(engine, mountinfo=text, marked=True)
    assert isinstance(found, Inside)
    assert found.container.id == us


async def test_sharer_of_a_network_recognises_itself(scope, engine):
    """Its hostname, hosts and resolv.conf are those of the other container."""
    owner = scope.run("owner", network="bridge")
    sharer = scope.run("sharer", network=f"container:{owner}")
    for us in (owner, sharer):
        text = docker.call("exec", us, "cat", "/proc/self/mountinfo")
        assert owner in text
        found = await whoami(engine, mountinfo=text, marked=True)
        assert isinstance(found, Inside)
        assert found.container.id == us


async def test_removed_container_is_unknown(scope, engine):
    us = scope.run("us")
    text = docker.call("exec", us, "cat", "/proc/self/mountinfo")
    docker.call("rm", "--force", us)
    assert isinstance(await whoami(engine, mountinfo=text, marked=True), Unknown)
