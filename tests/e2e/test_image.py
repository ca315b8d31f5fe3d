"""The container image: what it says about itself, and what is not in it."""

from __future__ import annotations

import pytest
from support import docker
from support.site import worker_image

pytestmark = pytest.mark.timeout(60)

SEARCH = """
for name in pip pip3 uv hatchling cc gcc g++ clang make ld go cargo git curl wget; do
  command -v $name
done
for python in python3 $(ls /usr/bin/python3 /usr/local/bin/python3 2>/dev/null); do
  $python -c 'import importlib.util as u
for name in ("pip", "ensurepip", "setuptools", "wheel", "hatchling", "uv"):
    if u.find_spec(name): print(name)'
done
find / -xdev \\( -name 'pip-*' -o -name '*.whl' -o -name 'ensurepip' \\) -print
"""
CONTENTS = """
stat -c '%n %a %u:%g' /var/lib/kopiwatch /var/cache/kopiwatch
kopia --version
python3 -I -S -c 'import sys; print(sys.flags.no_site)'
true | python3 -I -S /usr/local/lib/kopiwatch/kopiwatch/worker | cut -c 1-15
ls /usr/local/lib/kopiwatch/kopiwatch/worker/__pycache__ | grep -c program
"""


def inside(script: str) -> list[str]:
    return docker.call(
        *("run", "--rm", "--network=none", "--read-only", "--entrypoint", "sh"),
        *(worker_image(), "-c", script),
    ).splitlines()


def test_nothing_in_the_image_builds_or_installs():
    """No pip, no compiler, no uv, no wheel: neither a program nor a module."""
    assert inside(SEARCH) == []


def test_image_holds_what_runs():
    """Kopia, the worker by path, compiled, and folders that only root may enter."""
    folders, kopia = inside(CONTENTS)[:2], inside(CONTENTS)[2]
    assert folders == ["/var/lib/kopiwatch 700 0:0", "/var/cache/kopiwatch 700 0:0"]
    assert kopia.removeprefix("v").startswith("0.23.")
    assert inside(CONTENTS)[3:] == ["1", '{"say": "hello"', "1"]


def test_image_says_how_it_is_run():
    """Started without a word it is the sidecar; Docker asks it whether it lives."""
    config = docker.inspect(worker_image())["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["kopiwatch"], ["run"])
    assert config["Healthcheck"]["Test"] == ["CMD", "kopiwatch", "healthcheck"]
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["9187/tcp"]
    assert list(config["Volumes"]) == ["/var/cache/kopiwatch"]
    ours = [entry for entry in config["Env"] if entry.startswith(("KOPIA", "KOPIWATCH"))]
    assert [entry.partition("=")[0] for entry in ours] == ["KOPIWATCH_REVISION"]


def test_image_says_what_it_is():
    labels = docker.inspect(worker_image())["Config"]["Labels"]
    kinds = ("title", "description", "licenses", "version", "revision", "base.name")
    found = {kind: labels.get(f"org.opencontainers.image.{kind}") for kind in kinds}
    assert all(found.values()), found
    assert (found["title"], found["licenses"]) == ("kopiwatch", "Apache-2.0")
