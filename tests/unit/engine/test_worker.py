"""What Docker is asked to create for a worker."""

from __future__ import annotations

import subprocess
import sys

from kopiwatch.engine.port import WorkerMount, WorkerSpec
from kopiwatch.engine.worker import body

SPEC = WorkerSpec(
    name="w",
    image="sha256:1",
    entrypoint=("python3", "worker.py"),
    labels={"kopi.worker": "run"},
    mounts=(
        WorkerMount("volume", "data", "/mnt/shop/volumes/data"),
        WorkerMount("bind", "/srv/www", "/mnt/shop/binds/www", writable=True),
    ),
    network="container:abc",
)


def test_body_follows_the_measured_recipe():
    assert body(SPEC) == {
        "Image": "sha256:1",
        "Entrypoint": ["python3", "worker.py"],
        "Cmd": [],
        "Labels": {"kopi.worker": "run"},
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "container:abc",
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "data",
                    "Target": "/mnt/shop/volumes/data",
                    "ReadOnly": True,
                    "VolumeOptions": {"NoCopy": True},
                },
                {
                    "Type": "bind",
                    "Source": "/srv/www",
                    "Target": "/mnt/shop/binds/www",
                    "ReadOnly": False,
                },
            ],
            "Tmpfs": {"/run": "", "/tmp": ""},
            "LogConfig": {"Type": "none"},
            "AutoRemove": False,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["ALL"],
            "CapAdd": ["DAC_READ_SEARCH"],
            "RestartPolicy": {"Name": "no"},
        },
    }


def test_volumes_that_the_image_declares_are_covered_unless_mounted():
    found = body(SPEC, ("/var/lib/kopiwatch", "/mnt/shop/binds/www/"))["HostConfig"]["Tmpfs"]
    assert found == {"/run": "", "/tmp": "", "/var/lib/kopiwatch": ""}


def test_the_port_and_the_fakes_values_import_without_a_docker_client():
    code = "import sys, kopiwatch.engine.port; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=15
    ).stdout.split()
    assert not {"aiodocker", "aiohttp", "asyncio", "anyio"} & set(loaded)
