"""Applications of the image that scripts/lib/apps.sh makes, each on the real Docker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import docker
from support.apps.application import apps_image
from support.site import Site, make_site


@pytest.fixture
def scope() -> Iterator[docker.Scope]:
    """A corner of the real Docker whose containers are of the image of applications."""
    with docker.scope(apps_image()) as made:
        yield made
        remove_containers(made)


def remove_containers(scope: docker.Scope) -> None:
    """One at a time, and with patience: a database on a busy machine is long in dying."""
    for container in docker.call("ps", "-aq", "--filter", f"label={scope.label}").split():
        docker.call("rm", "--force", "--volumes", container, timeout=200)


@pytest.fixture
def site_with(tmp_path: Path, scope: docker.Scope) -> Iterator[Callable[[str], Site]]:
    """Makes the site with this access."""
    made: list[Site] = []

    def make(access: str) -> Site:
        made.append(make_site(tmp_path / "site", access, scope))
        return made[-1]

    yield make
    for site in made:
        assert not site.workers(), "workers were left behind"
    remove_containers(scope)  # before the folders that they run on
    shutil.rmtree(tmp_path, ignore_errors=True)
