"""The container image: kopiwatch beside the containers it backs up, with the Docker socket."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest
from support import docker, tree
from support.site import PASSWORD, make_stack, mountpoint, worker_image

pytestmark = pytest.mark.timeout(240)


class Sidecar:
    """One-off runs of the image, as ``docker compose run --rm kopiwatch …`` makes them."""

    access = "worker"

    def __init__(self, scope: docker.Scope, folder: Path) -> None:
        self.scope = scope
        self.folder = folder
        self.instance = scope.name
        self.password = folder / "password"
        self.password.write_text(PASSWORD + "\n")
        self.mounts = {
            "state": scope.volume("kw-state"),
            "cache": scope.volume("kw-cache"),
            "repository": scope.volume("kw-repository"),
        }

    def run(self, *args: str, state: str | None = None, more: tuple[str, ...] = ()):
        socket = docker.URL.removeprefix("unix://")
        mounts = self.mounts | ({"state": state} if state is not None else {})
        places = {
            "state": "/var/lib/kopiwatch",
            "cache": "/var/cache/kopiwatch",
            "repository": "/repository",
        }
        volumes = [f"--volume={mounts[k]}:{places[k]}" for k in places if mounts[k]]
        name = f"{self.scope.name}-sidecar-{uuid.uuid4().hex[:6]}"
        return subprocess.run(
            [
                *("docker", f"--host={docker.URL}", "run", "--rm", f"--name={name}"),
                *("--network=none", f"--label={self.scope.label}", *volumes, *more),
                f"--volume={socket}:/var/run/docker.sock",
                f"--volume={self.password}:/run/secrets/password:ro",
                "--env=KOPIWATCH_PASSWORD_FILE=/run/secrets/password",
                f"--env=KOPIWATCH_INSTANCE={self.instance}",
                "--env=KOPIWATCH_HOSTNAME=testhost",
                worker_image(),
                *args,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *args: str, **given) -> str:
        done = self.run(*args, **given)
        assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def sidecar(scope, tmp_path):
    return Sidecar(scope, tmp_path)


def test_sidecar_backs_up_and_restores(sidecar, scope, tmp_path):
    """Workers of its own image reach what it does not mount itself; the data comes back equal."""
    stack = make_stack(sidecar, scope)
    scope.volume("opts", "--opt", "type=tmpfs", "--opt", "device=tmpfs")
    labels = {"kopi.enable": "true", "kopi.unit": "opts", "kopi.instance": sidecar.instance}
    script = "trap 'exit 0' TERM; echo kept > /data/file; while :; do sleep 0.1; done"
    scope.run("opts", script=script, labels=labels, volumes=["opts:/data"])
    sidecar.ok("repo", "create")
    runs = json.loads(sidecar.ok("backup", "--all", "--json"))["runs"]
    assert {run["unit"]: run["verdict"] for run in runs} == {"opts": "success", "shop": "success"}
    files = {s["path"]: s["files"] for run in runs for s in run["sources"]}
    assert files[f"volumes/{scope.full('opts')}"] == 1
    assert [docker.state(container) for container in stack.values()] == ["running", "running"]
    (tmp_path / "out").mkdir()
    into = (f"--volume={tmp_path}/out:/out",)
    sidecar.ok("restore", "shop", "--to", "/out/shop", more=into)
    sidecar.ok("restore", "opts", "--to", "/out/opts", more=into)
    kept = tmp_path / "out/opts/volumes" / scope.full("opts") / "file"
    assert kept.read_text() == "kept\n"
    for container in stack.values():
        docker.call("kill", container)
    lines = tree.differences(
        mountpoint(scope.full("files")), tmp_path / "out/shop/volumes" / scope.full("files")
    )
    assert [line for line in lines if not line.startswith("b'log'")] == []


def test_sidecar_never_backs_itself_up(sidecar, scope):
    """Even with the label on it."""
    mine = (
        "--label=kopi.enable=true",
        "--label=kopi.unit=self",
        f"--label=kopi.instance={sidecar.instance}",
    )
    out = json.loads(sidecar.ok("units", "--json", more=mine))
    assert out["units"] == []


def test_sidecar_without_a_state_mount_is_refused(sidecar):
    """What it holds down would be forgotten with the container."""
    sidecar.ok("repo", "create")
    make_stack(sidecar, sidecar.scope)
    done = sidecar.run("backup", "shop", state="")
    assert done.returncode == 3, done.stderr
    assert "no mount of its own" in done.stderr
