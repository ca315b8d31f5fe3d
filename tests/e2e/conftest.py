"""The installed ``kopiwatch`` command on the real Docker and the real Kopia."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import docker, image
from support.site import Site, make_site


@pytest.fixture
def scope() -> Iterator[docker.Scope]:
    """A corner of the real Docker that is empty again afterwards."""
    with docker.scope(image.busybox()) as made:
        yield made


@pytest.fixture(params=["namespace", "worker"])
def site(request: pytest.FixtureRequest, tmp_path: Path, scope: docker.Scope) -> Iterator[Site]:
    """A site for each way to the data."""
    made = make_site(tmp_path / "site", request.param, scope)
    yield made
    assert not made.workers(), "workers were left behind"
    shutil.rmtree(tmp_path / "site", ignore_errors=True)


@pytest.fixture
def local_site(tmp_path: Path, scope: docker.Scope) -> Iterator[Site]:
    """A site with namespace access, for facts that do not depend on the access."""
    made = make_site(tmp_path / "site", "namespace", scope)
    yield made
    assert not made.workers(), "workers were left behind"
    shutil.rmtree(tmp_path / "site", ignore_errors=True)
