"""The recipe of a run: what it holds at each scope, and that it never ends a run."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from support.run_world import RunWorld

from kopiwatch.backup.house import RecipeRules
from kopiwatch.errors import EngineError

pytestmark = pytest.mark.anyio
LABEL = "com.docker.compose.project"
COMPOSE = b"services: {db: {env_file: db.env}}\nsecrets: {s: {file: ./s}}\n"


class World(RunWorld):
    """Its members were made by Compose from ``/srv/shop``."""

    def __init__(self, folder: Path, scope: str = "standard") -> None:
        self.scope = scope
        self.rules = RecipeRules()
        super().__init__(folder)
        self.program.host_files = {
            "/srv/shop/compose.yml": COMPOSE,
            "/srv/shop/db.env": b"DB_PASSWORD=hunter2\n",
            "/srv/shop/s": b"s",
            "/etc/docker/daemon.json": b"{}",
            "/etc/systemd/system/docker.service.d/proxy.conf": b"[Service]\n",
        }

    def member(self, name, volume, **more):
        identity = super().member(name, volume, **more)
        row = self.engine.all[identity].row
        row.labels[f"{LABEL}.working_dir"] = "/srv/shop"
        row.labels[f"{LABEL}.config_files"] = "/srv/shop/compose.yml"
        row.labels["kopi.scope"] = self.scope
        return identity

    async def house(self):
        return msgspec.structs.replace(await super().house(), recipe=self.rules)

    @property
    def recipe(self):
        return json.loads((self.state.recipe("shop") / "unit.json").read_bytes())

    @property
    def copies(self):
        folder = self.state.recipe("shop")
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def world(request, tmp_path) -> World:
    """At the scope that the test asks for."""
    return World(tmp_path, getattr(request, "param", "standard"))


PROJECT = {"compose/shop/compose.yml", "compose/shop/db.env", "compose/shop/s"}
DOCKER = {
    "docker/etc/docker/daemon.json",
    "docker/etc/systemd/system/docker.service.d/proxy.conf",
}


@pytest.mark.parametrize(
    ("world", "scope", "copies"),
    [(s, s, c) for s, c in (("minimal", set()), ("standard", PROJECT), ("full", PROJECT | DOCKER))],
    indirect=["world"],
)
async def test_each_scope_adds_to_the_one_before(world, scope, copies):
    result = await world.run()
    assert (result.verdict, result.warnings) == ("success", ())
    assert world.copies == {"unit.json", *copies}
    recipe = world.recipe
    more = scope != "minimal"
    assert [bool(recipe[part]) for part in ("containers", "volumes", "images", "compose")] == [
        more
    ] * 4
    assert bool(recipe["docker"]) == (scope == "full")
    assert recipe["expected"] == ["recipe", "volumes/data", "volumes/files"]


async def test_files_are_read_before_the_window(world):
    await world.run()
    steps = world.program.steps
    assert steps.index("files") < steps.index("launch")
    assert "files" not in steps[steps.index("launch") :]


async def test_a_lower_scope_takes_the_copies_away(world):
    await world.run()
    for each in world.engine.all.values():
        each.row.labels["kopi.scope"] = "minimal"
    await world.run(run="r2")
    assert world.copies == {"unit.json"}


async def test_a_folder_that_is_gone_is_a_warning(world):
    """Docker refuses to mount it; the worker starts without it."""
    world.engine.missing_paths.add("/srv/shop")
    result = await world.run()
    assert result.verdict == "success"
    assert [line for line in result.warnings if "/srv/shop/compose.yml" in line]
    assert list(world.recipe["warnings"]) == list(result.warnings)
    assert world.copies == {"unit.json"}


@pytest.mark.parametrize("words", ["mounts denied: not shared", "it did not answer in time"])
async def test_a_mount_that_docker_refuses_in_other_words_is_left_out(world, words):
    world.engine.fail("worker", "kopiwatch-worker-shop-r1", EngineError(words))
    result = await world.run()
    assert result.verdict == "success"
    assert world.engine.order("worker") == [
        "worker kopiwatch-worker-shop-r1",
        "worker kopiwatch-worker-shop-r1-1",
    ]


async def test_a_worker_that_cannot_be_had_at_all_fails_the_run(world):
    world.engine.fail("worker", "*", EngineError("no space left on device"), times=9)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "engine-error")
    assert world.states == ["running", "running"]


@pytest.mark.parametrize("world", ["full"], indirect=True)
async def test_a_name_that_kopia_keeps_for_itself_is_a_warning(world):
    """Kopia would look in that copy for what it is to store in its place."""
    name = "/etc/systemd/system/docker.service.d/proxy.conf.kopia-entry"
    world.program.host_files[name] = b"{}"
    result = await world.run()
    assert result.verdict == "success"
    assert [line for line in result.warnings if name in line and "stand-in" in line]
    assert world.copies == {"unit.json", *PROJECT, *DOCKER}


@pytest.mark.parametrize("world", ["full"], indirect=True)
async def test_a_disk_that_hangs_is_a_warning(world):
    """The worker gives its reader up; nothing is asked of that disk again."""
    stuck = {"say": "error", "reason": "stuck", "text": "reading the project's files did not end"}

    def hang(worker):
        worker.say(json.dumps(stuck).encode())
        return True

    world.program.at("files", hang)
    result = await world.run()
    assert result.verdict == "success"
    assert world.program.steps.count("files") == 1
    assert [line for line in result.warnings if "did not end" in line]


async def test_a_worker_that_dies_over_the_files_fails_the_run(world):

    def die(worker):
        worker.end()
        return True

    world.program.at("files", die)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "worker-lost")
    assert world.states == ["running", "running"]


@pytest.mark.parametrize("world", ["full"], indirect=True)
async def test_a_redacted_recipe_says_so_and_holds_no_value(world):
    world.rules = RecipeRules(secrets="redact")
    details = world.engine.all[world.db].details
    definition = json.dumps({"Config": {"Env": ["A_TOKEN=hunter2"]}}).encode()
    world.engine.all[world.db].details = msgspec.structs.replace(details, definition=definition)
    assert (await world.run()).verdict == "success"
    assert world.recipe["redacted"] is True
    folder = world.state.recipe("shop")
    assert not [p for p in world.copies if b"hunter2" in (folder / p).read_bytes()]


async def test_what_stands_in_the_place_of_the_copies_is_removed(world):
    """Never followed: what a link leads to is not ours."""
    folder = world.state.recipe("shop")
    folder.mkdir(parents=True)
    (world.state.path / "elsewhere").mkdir()
    (folder / "compose").symlink_to(world.state.path / "elsewhere")
    assert (await world.run()).verdict == "success"
    assert not (folder / "compose").is_symlink()
    assert list((world.state.path / "elsewhere").iterdir()) == []


async def test_a_disk_that_does_not_take_the_copies_fails_the_run(world):
    """Before the window, with the way out."""
    folder = world.state.recipe("shop")
    name = "x" * 300  # no disk takes that
    world.program.host_files["/srv/shop/compose.yml"] += (
        f"configs: {{t: {{file: {name}}}}}\n".encode()
    )
    world.program.host_files[f"/srv/shop/{name}"] = b"t"
    result = await world.run()
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "recipe", "check")
    assert str(folder) in result.hint
    assert world.states == ["running", "running"]


async def test_images_are_told_with_digests_and_gone_ones_as_such(world):
    identity = world.engine.images["app:1"]
    world.engine.image_digests[identity] = ("app@sha256:1",)
    await world.run()
    images = world.recipe["images"]
    assert [image["container"] for image in images] == ["db", "web"]
    assert images[0]["reference"] == "app:1"
    assert images[0]["image"]["digests"] == ["app@sha256:1"]
    del world.engine.images["app:1"]
    await world.run(run="r2")
    assert [image["image"] for image in world.recipe["images"]] == [None, None]
