"""Bad input: the right exit code, one clear sentence, a hint, no traceback, nothing created."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from support import docker
from support.site import COMMAND, IDLE, Site

pytestmark = pytest.mark.timeout(120)


def member(scope, site, name: str, **labels: str) -> str:
    given = {"kopi.enable": "true", "kopi.unit": name, "kopi.instance": site.instance}
    return scope.run(name, script=IDLE, labels=given | labels, volumes=[f"{name}:/data"])


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_unknown_unit_is_a_usage_error_that_lists_units(local_site, scope):
    """Exit 2, the units there are, the nearest one."""
    member(scope, local_site, "shop")
    refused(local_site.run("backup", "shpo"), 2, "'shpo'", "did you mean 'shop'?", "units: shop")


def test_backup_without_a_choice_is_a_usage_error(local_site):
    """Neither a unit nor --all."""
    refused(local_site.run("backup"), 2, "--all")


def test_misspelt_label_disables_its_unit_only(local_site, scope):
    """Named in units and check with the nearest name; others go on; check exits 3."""
    member(scope, local_site, "good")
    bad = member(scope, local_site, "bad", **{"kopi.shedule": "0 3 * * *"})
    started = docker.inspect(bad)["State"]["StartedAt"]
    check = local_site.run("check")
    assert check.returncode == 3
    for out in (check.stdout + check.stderr, local_site.run("units").stdout):
        assert "kopi.shedule" in out
        assert "kopi.schedule" in out
    done = local_site.run("backup", "--all", "--json")
    assert done.returncode == 3
    runs = {run["unit"]: run for run in json.loads(done.stdout)["runs"]}
    assert runs["good"]["verdict"] == "success"
    assert (runs["bad"]["verdict"], runs["bad"]["reason"]) == ("skipped", "labels")
    assert docker.inspect(bad)["State"]["StartedAt"] == started


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("kopi.notify", "failure"),
        ("kopi.drill", "@weekly"),
    ],
)
def test_label_of_a_later_version_disables_its_unit(local_site, scope, label, value):
    """Never ignored: not supported by this version."""
    member(scope, local_site, "early", **{label: value})
    refused(local_site.run("backup", "early"), 3)
    done = local_site.run("backup", "early")
    assert label in done.stdout + done.stderr
    assert "not supported by this version" in done.stdout + done.stderr


def test_wrong_password_is_a_repository_error(local_site, scope):
    """Exit 4, nobody stopped, the connection survives."""
    container = member(scope, local_site, "shop")
    started = docker.inspect(container)["State"]["StartedAt"]
    local_site.extra["KOPIWATCH_PASSWORD"] = "wrong"
    refused(local_site.run("backup", "shop"), 4, "password", "hint:")
    assert docker.inspect(container)["State"]["StartedAt"] == started
    del local_site.extra["KOPIWATCH_PASSWORD"]
    local_site.ok("backup", "shop")


def test_missing_repository_is_never_created(tmp_path, scope):
    """No repository: exit 4, and the place stays empty."""
    site = Site(tmp_path / "site", "namespace", scope.name)
    site.repository.mkdir(parents=True)
    member(scope, site, "shop")
    refused(site.run("backup", "shop"), 4, "repo create")
    refused(site.run("points"), 4)
    assert list(site.repository.iterdir()) == []


def test_vanished_repository_is_never_recreated(local_site, scope):
    """An unmounted disk: exit 4, nobody stopped, nothing written into the bare mount point."""
    container = member(scope, local_site, "shop")
    local_site.ok("backup", "shop")
    local_site.repository.rename(local_site.folder / "unplugged")
    local_site.repository.mkdir()
    started = docker.inspect(container)["State"]["StartedAt"]
    refused(local_site.run("backup", "shop"), 4)
    refused(local_site.run("repo", "create"), 4)
    assert list(local_site.repository.iterdir()) == []
    assert docker.inspect(container)["State"]["StartedAt"] == started


def test_unreachable_docker_is_exit_5(local_site):
    """One sentence with the address."""
    local_site.extra["DOCKER_HOST"] = f"unix://{local_site.folder}/absent.sock"
    for command in (("units",), ("check",), ("backup", "--all")):
        refused(local_site.run(*command), 5, "absent.sock", "hint:")


def test_unreadable_configuration_is_exit_3(local_site):
    """Never 'no configuration', never a default in its place."""
    broken = local_site.folder / "config.toml"
    broken.write_text("[profile\n")
    local_site.extra["KOPIWATCH_CONFIG"] = str(broken)
    refused(local_site.run("units"), 3, str(broken))
    local_site.extra["KOPIWATCH_CONFIG"] = str(local_site.folder / "absent.toml")
    refused(local_site.run("units"), 3, "absent.toml")


def test_misspelt_setting_is_exit_3(local_site):
    """An unknown KOPIWATCH_ variable is named with the nearest one."""
    local_site.extra["KOPIWATCH_REPOSITRY"] = "filesystem:/x"
    refused(local_site.run("check"), 3, "KOPIWATCH_REPOSITRY", "KOPIWATCH_REPOSITORY")


def test_missing_worker_image_is_said_before_anything_stops(local_site, scope):
    """Exit 5, the image's name, everybody up."""
    container = member(scope, local_site, "shop")
    started = docker.inspect(container)["State"]["StartedAt"]
    local_site.extra |= {
        "KOPIWATCH_ACCESS": "worker",
        "KOPIWATCH_WORKER_IMAGE": "kopiwatch-test/absent:1",
    }
    done = local_site.run("backup", "shop")
    assert done.returncode == 5, done.stderr
    assert "kopiwatch-test/absent:1" in done.stdout + done.stderr
    assert docker.inspect(container)["State"]["StartedAt"] == started


def test_volume_with_driver_options_is_refused_without_a_worker_image(local_site, scope):
    """Its folder on the host would be silently empty; the hint names the way out."""
    scope.volume("opts", "--opt", "type=tmpfs", "--opt", "device=tmpfs")
    labels = {"kopi.enable": "true", "kopi.unit": "opts", "kopi.instance": local_site.instance}
    container = scope.run("opts", script=IDLE, labels=labels, volumes=["opts:/data"])
    done = local_site.run("backup", "opts")
    assert done.returncode == 1
    assert "KOPIWATCH_WORKER_IMAGE" in done.stderr
    assert docker.state(container) == "running"


def test_container_with_rm_is_refused(local_site, scope):
    """Its stop would remove it."""
    labels = {"kopi.enable": "true", "kopi.unit": "gone", "kopi.instance": local_site.instance}
    container = scope.run("gone", script=IDLE, labels=labels, volumes=["v:/data"], options=["--rm"])
    done = local_site.run("backup", "gone")
    assert done.returncode == 1
    assert "--rm" in done.stdout
    assert docker.state(container) == "running"


def test_restore_refuses_a_target_that_is_not_empty(local_site, scope, tmp_path):
    """A restore never mixes with what is there."""
    member(scope, local_site, "shop")
    local_site.ok("backup", "shop")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    refused(local_site.run("restore", "shop", "--to", str(tmp_path / "full")), 2, "not empty")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]
    refused(local_site.run("restore", "nope", "--to", str(tmp_path / "x")), 2, "nope")
    refused(local_site.run("restore", "shop", "--at", "never", "--to", str(tmp_path / "x")), 2)
    early = ("restore", "shop", "--at", "2001-01-01T00:00Z", "--to", str(tmp_path / "x"))
    refused(local_site.run(*early), 2, "oldest")
    assert not (tmp_path / "x").exists()


def test_error_as_json_is_one_document(local_site):
    """With --json an error is data, too."""
    done = local_site.run("backup", "nope", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "unknown-unit"


def test_help_is_quick_and_shows_an_example():
    """Every command's help shows an example; the first page answers well under 200 ms."""
    environment = {"PATH": os.environ["PATH"]}

    def timed(*args: str) -> tuple[float, str]:
        begun = time.perf_counter()
        done = subprocess.run(
            [COMMAND, *args], env=environment, capture_output=True, text=True, check=True
        )
        return time.perf_counter() - begun, done.stdout

    text = timed("--help")[1]
    assert "backup" in text
    for command in ("backup", "restore", "points", "units", "explain", "check", "repo"):
        assert "xample" in timed(command, "--help")[1], command
    for command in ("create", "connect", "status"):
        assert "xample" in timed("repo", command, "--help")[1], command


def test_help_imports_nothing_heavy():
    """What would make --help slow is not imported: Docker, the event loop, rich, msgspec."""
    probe = (
        "import sys\nfrom kopiwatch.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'aiodocker', 'anyio', 'asyncio', 'rich', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    python = Path(COMMAND).parent / "python"
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("lost", ["closed", "full"])
def test_lost_output_breaks_no_run(local_site, scope, lost):
    """Every unit is backed up although nobody reads the results; the exit code tells."""
    container = member(scope, local_site, "one")
    member(scope, local_site, "two")
    redirection = {"closed": ">&- 2>&-", "full": ">/dev/full 2>/dev/full"}[lost]
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {COMMAND} backup --all {redirection}"],
        env=local_site.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert [p["unit"] for p in local_site.json("points")["points"]] == ["one", "two"]
    assert docker.state(container) == "running"


def test_check_and_dry_run_know_what_a_run_would_refuse(local_site, scope):
    """A volume that this access cannot reach is a problem before the night, not in it."""
    member(scope, local_site, "good")
    scope.volume("opts", "--opt", "type=tmpfs", "--opt", "device=tmpfs")
    labels = {"kopi.enable": "true", "kopi.unit": "opts", "kopi.instance": local_site.instance}
    scope.run("opts", script=IDLE, labels=labels, volumes=["opts:/data"])
    scope.run(
        "brief",
        script=IDLE,
        volumes=["v:/data"],
        options=["--rm"],
        labels=labels | {"kopi.unit": "brief"},
    )
    check = local_site.run("check")
    assert check.returncode == 3
    assert "1 of 3 units can be backed up" in check.stdout
    done = local_site.run("backup", "--all", "--dry-run", "--json")
    assert done.returncode == 3
    records = {record["unit"]: record["problems"] for record in json.loads(done.stdout)["units"]}
    assert records["good"] == []
    assert "driver options" in records["opts"][0]
    assert "--rm" in records["brief"][0]


def test_restore_plan_as_json_writes_nothing(local_site, scope, tmp_path):
    """What would be restored, as one document."""
    member(scope, local_site, "shop")
    local_site.ok("backup", "shop")
    target = tmp_path / "out"
    plan = local_site.json("restore", "shop", "--to", str(target), "--dry-run")["plan"]
    assert plan["target"] == str(target)
    assert not target.exists()


def test_points_of_another_host_are_not_called_none(local_site, scope):
    """A fresh machine is told where the points are."""
    member(scope, local_site, "shop")
    local_site.ok("backup", "shop")
    local_site.extra |= {
        "KOPIWATCH_STATE_DIR": str(local_site.folder / "fresh"),
        "KOPIWATCH_HOSTNAME": "newborn",
    }
    refused(local_site.run("points"), 2, "testhost")
    assert len(local_site.json("points", "--host", "testhost")["points"]) == 1


def test_fresh_machine_restores_without_docker(local_site, scope, tmp_path):
    """The repository and its password are all that it takes."""
    member(scope, local_site, "shop")
    local_site.ok("backup", "shop")
    local_site.extra |= {
        "KOPIWATCH_STATE_DIR": str(local_site.folder / "fresh"),
        "DOCKER_HOST": "unix:///absent.sock",
    }
    local_site.without.add("KOPIWATCH_HOSTNAME")
    local_site.ok("restore", "shop", "--host", "testhost", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out" / "recipe" / "unit.json").exists()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
