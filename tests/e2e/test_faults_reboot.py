"""Docker restarted and the machine rebooted while members are down, on a Docker of these tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.fake_kopia import FakeKopia
from support.fault_world import FaultWorld, Photo
from support.kopia import find_kopia
from support.own_docker import OwnDocker, own_docker
from support.sidecar import sidecar
from support.site import Site, make_site, wait_until

pytestmark = pytest.mark.timeout(240)

POLICIES = ("no", "on-failure", "unless-stopped", "always")
LEFT_ALONE = ("no", "unless-stopped")
"""When Docker 20.10 starts, it starts by itself what was stopped with any of the others."""


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnDocker]:
    with own_docker() as made:
        made.start(live_restore=True)
        made.import_image()
        yield made


class OwnWorld(FaultWorld):
    """A unit ``shop`` on a Docker of the test's own."""

    def __init__(self, site: Site, engine: OwnDocker) -> None:
        self.site = site
        self.engine = engine
        self.kopia = FakeKopia(site.folder / "fake", find_kopia())
        self.members = {"shop": {}}
        self.content = {}
        self.marker = "content"
        site.extra |= {"DOCKER_HOST": engine.url, "KOPIWATCH_KOPIA": str(self.kopia.program)}

    def add(self, name: str, *options: str, mode: str = "stop", running: bool = True) -> None:
        """One member with a volume."""
        flags = [f"--label={key}={value}" for key, value in self.labels("shop").items()]
        flags.append(f"--label=kopi.mode={mode}")
        made = self.engine.run(name, *flags, f"--volume={name}-data:/data", *options)
        self.members["shop"][name] = made
        if not running:
            self.engine.call("stop", made)

    def states(self, unit: str) -> dict[str, str]:
        form = "--format={{.State.Status}}"
        return {
            name: self.engine.call("inspect", form, each)
            for name, each in self.members[unit].items()
        }

    def volume_name(self, unit: str, service: str = "db") -> str:
        return f"{service}-data"

    def volume(self, unit: str, service: str = "db") -> Path:
        name = self.volume_name(unit, service)
        return Path(self.engine.call("volume", "inspect", "--format={{.Mountpoint}}", name))

    def mend(self) -> None:
        self.kopia.clear()

    def wait_back(self, before: Photo) -> None:
        """A minute is what it may take."""

        def back() -> bool:
            with suppress(RuntimeError):
                return self.states("shop") == before.states
            return False

        wait_until(back, f"{before.states} again", 60)


@pytest.fixture
def world(engine, tmp_path) -> Iterator[OwnWorld]:
    if not engine.running:
        engine.start(live_restore=True)
    engine.empty()
    for volume in engine.call("volume", "ls", "--quiet").split():
        engine.call("volume", "rm", volume)

    class Named:
        name = tmp_path.name.replace("_", "-")[:40]

    made = OwnWorld(make_site(tmp_path / "site", "namespace", Named()), engine)
    yield made
    made.rest()
    shutil.rmtree(tmp_path / "site", ignore_errors=True)


@pytest.mark.parametrize("live_restore", [True, False], ids=["live-restore", "plain"])
def test_docker_restarted_in_the_window(engine, world, live_restore):
    """Who was stopped and who was frozen runs again, whatever Docker made of them meanwhile."""
    engine.signal(signal.SIGTERM)
    engine.wait()
    engine.start(live_restore=live_restore)
    world.add("db")
    world.add("cache", mode="pause")
    world.add("idle", running=False)
    world.back_up("shop")
    before = world.photo("shop")
    with sidecar(world.site) as daemon:
        world.kopia.rule("snapshot create", "hold", at="read")
        follower = world.start("shop")
        wait_until(lambda: world.kopia.reached == 1, "read", 60)
        engine.signal(signal.SIGTERM)
        engine.wait()
        world.mend()
        follower.communicate(timeout=90)
        assert follower.returncode != 0
        engine.start(live_restore=live_restore)
        world.wait_back(before)
        daemon.wait_metric(0, "unit_containers_left_stopped", unit="shop")
        assert daemon.stop() == 0
    world.aftermath(before, "failed")


def test_machine_reboots_in_the_window(engine, world):
    """Whatever its restart policy: who ran runs again, who was stopped stays stopped."""
    world.add("db")
    for policy in POLICIES:
        world.add(policy, f"--restart={policy}")
    for policy in LEFT_ALONE:
        world.add(f"idle-{policy}", f"--restart={policy}", running=False)
    world.back_up("shop")
    before = world.photo("shop")
    with sidecar(world.site) as daemon:
        world.kopia.rule("snapshot create", "hold", at="read")
        follower = world.start("shop")
        wait_until(lambda: world.kopia.reached == 1, "read", 60)
        assert "running" not in world.states("shop").values()
        daemon.process.kill()
        daemon.process.wait()
        follower.kill()
        follower.communicate()
        for process, _ in world.workers():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        engine.crash()
        engine.start()
    world.mend()
    with sidecar(world.site) as daemon:
        world.wait_back(before)
        assert daemon.stop() == 0
    world.aftermath(before, "failed")
