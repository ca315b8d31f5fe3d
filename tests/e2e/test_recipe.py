"""The recipe: a real Compose project's files in the backup, and what is said of those missing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from support import compose, docker, image
from support.site import PASSWORD

pytestmark = pytest.mark.timeout(300)
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
FILES = {
    ".env": "PROFILE=prod\nDB_PASSWORD=hunter2-env\n",
    "prod.env": "API_TOKEN='hunter2-file'\nCOLOUR=blue\n",
    "config/app.conf": "listen = 8080\n",
    "secrets/db": "hunter2-secret",
    "parts/compose.yml": "services:\n  side:\n    extends: {file: base.yml, service: base}\n"
    "    env_file: side.env\n",
    "parts/side.env": "SIDE=1\n",
    "parts/base.yml": "services:\n  base:\n    image: ${IMAGE}\n    pull_policy: never\n"
    '    stop_grace_period: 1s\n    command: [/bin/sh, -c, "sleep 1000"]\n',
    "override.yml": "services:\n  app:\n    # a second file\n    environment: {EXTRA: yes}\n",
}
COMPOSE = """
x-labels: &labels
  kopi.enable: "true"
  kopi.instance: {instance}
  kopi.scope: {scope}
include: [parts/compose.yml]
services:
  app:
    image: ${{IMAGE}}
    pull_policy: never
    stop_grace_period: 1s
    command: [/bin/sh, -c, "{script}"]
    labels: *labels
    env_file: ["${{PROFILE:-dev}}.env", {{path: absent.env, required: false}}]
    environment: {{ADMIN_PASSWORD: hunter2-inline, MODE: "${{PROFILE}}"}}
    configs: [app]
    secrets: [db]
    volumes: ["data:/data{access}"]
    networks: {{back: {{aliases: [api]}}}}
configs: {{app: {{file: ./config/app.conf}}}}
secrets: {{db: {{file: ./secrets/db}}}}
volumes: {{data: {{labels: {{purpose: test}}}}}}
networks:
  back:
    internal: true
    labels: {{purpose: test}}
    ipam: {{config: [{{subnet: {subnet}}}]}}
"""


class Shop:
    """A project in a folder of its own, started by the real Compose."""

    def __init__(self, scope, folder: Path, instance: str, level: str, access: str) -> None:
        self.scope = scope
        self.folder = folder
        self.name = scope.name
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        (folder / "secrets/db").chmod(0o600)
        os.chown(folder / "secrets/db", 999, 998)
        digest = hashlib.sha256(self.name.encode()).digest()
        self.subnet = f"10.{200 + digest[0] % 50}.{digest[1]}.0/24"
        text = COMPOSE.format(
            instance=instance,
            scope=level,
            access=access,
            subnet=self.subnet,
            script=IDLE.replace("$", "$$"),
        )
        (folder / "compose.yml").write_text(text)

    def up(self) -> None:
        self.run("--file", "compose.yml", "--file", "override.yml", "up", "--detach")

    def end(self) -> None:
        """By the labels alone: a test may have taken its files away."""
        self.run("down", "--volumes", "--timeout", "2", "--remove-orphans", folder="/")

    def run(self, *args: str, folder: str = "") -> str:
        done = subprocess.run(
            [compose.program(), "--project-name", self.name, *args],
            cwd=folder or self.folder,
            env={
                **{name: os.environ[name] for name in ("PATH",)},
                "HOME": str(self.folder),
                "DOCKER_HOST": docker.URL,
                "IMAGE": image.busybox(),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def make_shop(scope, tmp_path):
    made = []

    def make(site, level: str = "standard", access: str = "") -> Shop:
        """With ``access`` ":ro" nobody is stopped, so that no file need be there for a start."""
        made.append(Shop(scope, tmp_path / "shop", site.instance, level, access))
        made[0].up()
        return made[0]

    yield make
    for shop in made:
        shop.end()


def backed_up(site, shop, into: Path):
    """The run of a backup, and the recipe as a restore gives it back."""
    (run,) = site.json("backup", shop.name)["runs"]
    assert run["verdict"] == "success", run
    site.ok("restore", shop.name, "--to", str(into))
    return run, json.loads((into / "recipe/unit.json").read_text()), into / "recipe"


def test_a_project_comes_back_byte_for_byte(site, make_shop, tmp_path):
    """Every file that the project names, by both ways to the data, with owners and modes."""
    shop = make_shop(site)
    run, unit, recipe = backed_up(site, shop, tmp_path / "out")
    assert [warning for warning in run["warnings"] if "recipe" in warning] == []
    (project,) = unit["compose"]
    names = {*FILES, "compose.yml"}
    assert {file["stored"] for file in project["files"]} == {
        f"compose/{shop.name}/{name}" for name in names
    }
    for name in names:
        original = (shop.folder / name).read_bytes()
        assert (recipe / "compose" / shop.name / name).read_bytes() == original
    for file in project["files"]:
        status = Path(file["path"]).stat()
        content = (recipe / file["stored"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert (file["uid"], file["gid"], file["mode"], file["mtime"]) == (
            status.st_uid,
            status.st_gid,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
        )
    kinds = {Path(file["path"]).name: file["kind"] for file in project["files"]}
    assert (kinds["app.conf"], kinds["db"], kinds["prod.env"]) == ("config", "secret", "env_file")
    assert (kinds["base.yml"], kinds[".env"]) == ("extends", "env")
    assert [Path(path).name for path in project["config_files"]] == ["compose.yml", "override.yml"]
    assert [(each["path"], each["reason"]) for each in project["left_out"]] == [
        (str(shop.folder / "absent.env"), "missing")
    ]


def test_what_docker_must_make_again_is_in_the_recipe(site, make_shop, tmp_path):
    """Networks with their addresses and flags, volumes with labels, images by their id."""
    shop = make_shop(site, "full")
    _, unit, _ = backed_up(site, shop, tmp_path / "out")
    (network,) = unit["networks"]
    assert (network["Internal"], network["Labels"]["purpose"]) == (True, "test")
    assert network["IPAM"]["Config"][0]["Subnet"] == shop.subnet
    (volume,) = unit["volumes"]
    assert (volume["Driver"], volume["Labels"]["purpose"]) == ("local", "test")
    (made,) = unit["images"]
    container = docker.inspect(made["container"])
    assert (made["image"]["id"], made["reference"]) == (container["Image"], image.busybox())
    assert made["image"]["os"] == "linux"
    assert made["image"]["architecture"]
    assert unit["docker"]["info"]["ID"] == unit["engine"]
    assert unit["docker"]["version"]["ApiVersion"]


def test_unchanged_files_are_not_written_again(local_site, make_shop, tmp_path):
    """Their times stay, so that Kopia stores nothing; what the project drops goes."""
    shop = make_shop(local_site)
    local_site.ok("backup", shop.name)
    staged = local_site.state / "staging" / shop.name / "recipe/compose" / shop.name
    before = (staged / "config/app.conf").stat().st_mtime_ns
    (shop.folder / "override.yml").write_text("services: {app: {}}\n")
    text = (shop.folder / "compose.yml").read_text()
    (shop.folder / "compose.yml").write_text(text.replace("include: [parts/compose.yml]\n", ""))
    _, _, recipe = backed_up(local_site, shop, tmp_path / "out")
    assert (staged / "config/app.conf").stat().st_mtime_ns == before
    assert (recipe / "compose" / shop.name / "override.yml").read_text() == "services: {app: {}}\n"
    assert not (recipe / "compose" / shop.name / "parts").exists()


def test_missing_files_are_said_and_fail_nothing(site, make_shop, tmp_path):
    """A file that is gone, one outside, a FIFO, a folder, a link to a device: a sentence each."""
    shop = make_shop(site, access=":ro")
    folder = shop.folder
    (folder / "prod.env").unlink()
    os.mkfifo(folder / "prod.env")
    (folder / "config/app.conf").unlink()
    (folder / "config/app.conf").mkdir()
    (folder / "secrets/db").unlink()
    (folder / "secrets/db").symlink_to("/etc/shadow")
    (folder / "parts/side.env").unlink()
    (folder / "parts/side.env").symlink_to("/dev/zero")
    (folder / "override.yml").unlink()
    run, unit, recipe = backed_up(site, shop, tmp_path / "out")
    (project,) = unit["compose"]
    reasons = {Path(each["path"]).name: each["reason"] for each in project["left_out"]}
    assert reasons == {
        "absent.env": "missing",
        "override.yml": "missing",
        "prod.env": "kind",
        "app.conf": "kind",
        "db": "outside",
        "side.env": "outside",
    }
    told = [warning for warning in run["warnings"] if warning.startswith("the recipe lacks")]
    assert len(told) == 5
    assert any("KOPIWATCH_RECIPE_PATHS" in each and "secrets/db" in each for each in told)
    assert "root:" not in "".join(p.read_text() for p in recipe.rglob("*") if p.is_file())
    assert unit["warnings"][-5:] == told


def test_a_folder_that_is_gone_is_said_and_not_made(site, make_shop, tmp_path):
    """The backup goes on without the project's files, and the host has no new folder."""
    shop = make_shop(site, access=":ro")
    gone = tmp_path / "elsewhere"
    shop.folder.rename(gone)
    try:
        run, unit, _ = backed_up(site, shop, tmp_path / "out")
        assert not shop.folder.exists()
    finally:
        gone.rename(shop.folder)
    assert unit["compose"][0]["files"] == []
    assert [w for w in run["warnings"] if f"{shop.folder}/compose.yml" in w]


def test_no_secret_of_a_redacted_recipe_is_in_the_repository(local_site, make_shop, tmp_path):
    """Not in Compose files, environment files, secrets or definitions; and the recipe says so."""
    shop = make_shop(local_site)
    local_site.extra["KOPIWATCH_RECIPE_SECRETS"] = "redact"
    _, unit, recipe = backed_up(local_site, shop, tmp_path / "out")
    assert unit["redacted"] is True
    texts = {p: p.read_text() for p in recipe.rglob("*") if p.is_file()}
    assert [path for path, text in texts.items() if "hunter2" in text] == []
    kept = recipe / "compose" / shop.name
    assert (kept / "prod.env").read_text() == "API_TOKEN=***\nCOLOUR=blue\n"
    assert "# a second file" in (kept / "override.yml").read_text()
    assert "purpose: test" in (kept / "compose.yml").read_text()


def test_neither_our_password_nor_our_repository_is_kept(local_site, make_shop, tmp_path):
    """A project that kopiwatch itself belongs to names its password's file, and ours lies there."""
    shop = make_shop(local_site, access=":ro")
    (shop.folder / "secrets/db").write_text(PASSWORD + "\n")
    (shop.folder / "prod.env").write_text(f"KOPIWATCH_PASSWORD={PASSWORD}\nA=1\n")
    (shop.folder / "config/app.conf").unlink()
    (shop.folder / "config/app.conf").symlink_to("state.json")
    text = (shop.folder / "compose.yml").read_text()
    state = local_site.state / "state.json"
    text = text.replace("./config/app.conf", str(state))
    (shop.folder / "compose.yml").write_text(text)
    local_site.extra["KOPIWATCH_RECIPE_PATHS"] = str(tmp_path)
    run, unit, recipe = backed_up(local_site, shop, tmp_path / "out")
    reasons = {each["path"]: each["reason"] for each in unit["compose"][0]["left_out"]}
    assert reasons[str(shop.folder / "secrets/db")] == "own"
    assert reasons[str(state)] == "own"
    assert [w for w in run["warnings"] if "the recipe lacks" in w] == []
    texts = [path.read_text() for path in recipe.rglob("*") if path.is_file()]
    assert not [text for text in texts if PASSWORD in text]
    kept = (recipe / "compose" / shop.name / "prod.env").read_text()
    assert kept == "KOPIWATCH_PASSWORD=removed-by-kopiwatch\nA=1\n"


def test_reading_the_files_is_no_part_of_the_window(local_site, make_shop):
    """Nothing of the recipe is touched from the first stop on."""
    shop = make_shop(local_site)
    (run,) = local_site.json("backup", shop.name)["runs"]
    ended = time.time()
    unit = local_site.state / "staging" / shop.name / "recipe/unit.json"
    assert run["window"] > 0
    assert unit.stat().st_mtime < ended - run["window"]
