"""The two worlds in which engines are tried: one in memory, and one on the real Docker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support import docker, image
from support.engine_world import DockerWorld, FakeWorld, World

from kopiwatch.engine.client import DockerEngine


@pytest.fixture(scope="session")
def busybox() -> str:
    """The image of the tests' containers."""
    try:
        return image.busybox()
    except docker.DockerMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(params=["fake", "docker"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A fake engine, then the real one, each with what a test needs around it."""
    if request.param == "fake":
        yield FakeWorld()
        return
    with docker.scope(request.getfixturevalue("busybox")) as scope:
        async with await DockerEngine.connect(docker.URL) as engine:
            yield DockerWorld(engine, scope)
