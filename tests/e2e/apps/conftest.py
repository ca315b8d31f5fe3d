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
    scope.end()  # the containers of restored folders go before the folders
    shutil.rmtree(tmp_path, ignore_errors=True)
