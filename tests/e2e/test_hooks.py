"""Hooks on the real Docker: when they run, what ends them, and that a post hook always follows."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import docker
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(300)

HUGE = 24 * 1024**3
"""A sparse file: no space, but seconds of reading."""
NOTE = (
    "touch /data/$KOPIWATCH_HOOK.$KOPIWATCH_RUN; "
    'echo "$KOPIWATCH_HOOK $KOPIWATCH_RUN" >> /data/hooks'
)
SLOWLY = f"{NOTE}; while [ -e /data/slow-$KOPIWATCH_HOOK ]; do sleep 0.05; done"


def stack(site, scope, mode: str = "stop", **labels: str) -> dict[str, str]:
    """web depends on db; both have these labels below ``kopi.hook.``."""
    own = {"kopi.enable": "true", "kopi.unit": "shop", "kopi.instance": site.instance}
    own["kopi.strategy"] = "gate"  # the data is read in the window, however much there is
    own["kopi.mode"] = mode
    own |= {
        f"kopi.hook.{name.replace('__', '-').replace('_', '.')}": v for name, v in labels.items()
    }
    return scope.stack(
        {
            "db": {"script": IDLE, "volumes": ["data:/data"], "labels": own},
            "web": {
                "script": IDLE,
                "volumes": ["files:/data"],
                "labels": own,
                "depends_on": "db:service_started:false",
            },
        }
    )


def folder(scope, volume: str) -> Path:
    return Path(docker.inspect(scope.full(volume))["Mountpoint"])


def notes(scope, volume: str) -> list[tuple[str, str, float]]:
    """What the hooks of a member have noted: hook, run, and when (seconds, UTC)."""
    place = folder(scope, volume)
    if not (place / "hooks").exists():
        return []
    rows = [line.split() for line in (place / "hooks").read_text().splitlines()]
    return [(hook, run, (place / f"{hook}.{run}").stat().st_mtime) for hook, run in rows]


def hooks_of(scope, volume: str, run: str) -> list[str]:
    return [hook for hook, of, _ in notes(scope, volume) if of == run]


def instant(text: str) -> float:
    """Docker's time, which has nanoseconds, as seconds."""
    return datetime.fromisoformat(text[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()


def processes(container: str) -> str:
    return docker.call("exec", container, "ps", "-o", "args")


def up(made) -> bool:
    return all(docker.state(container) == "running" for container in made.values())


def journal(site) -> Path:
    return site.state / "journal" / "shop.json"


def test_hooks_run_right_before_the_stops_and_right_after_the_starts(site, scope):
    """By the times that the hooks noted and those that Docker knows; none of it is downtime."""
    made = stack(site, scope, pre_command=f"{NOTE}; sleep 0.5; echo put to rest", post_command=NOTE)
    (run,) = site.json("backup", "shop")["runs"]
    assert (run["verdict"], run["warnings"]) == ("success", [])
    state = {name: docker.inspect(container)["State"] for name, container in made.items()}
    stopped = {name: instant(each["FinishedAt"]) for name, each in state.items()}
    started = {name: instant(each["StartedAt"]) for name, each in state.items()}
    noted = {
        (hook, name): at
        for name, volume in (("db", "data"), ("web", "files"))
        for hook, _, at in notes(scope, volume)
    }
    order = [
        *(noted["pre", "web"], noted["pre", "db"], stopped["web"], stopped["db"]),
        *(started["db"], started["web"], noted["post", "db"], noted["post", "web"]),
    ]
    assert order == sorted(order)
    seconds = {phase["phase"]: phase["seconds"] for phase in run["phases"]}
    assert seconds["hooks-pre"] >= 1.0
    assert run["window"] == pytest.approx(order[5] - order[2], abs=2.0)
    assert [(h["hook"], h["output"]) for h in run["hooks"]] == [
        *[("pre", "put to rest\n")] * 2,
        *[("post", "")] * 2,
    ]
    told = site.ok("history", run["run"])
    assert "put to rest" in told
    detail = site.json("history", run["run"])["run"]
    assert detail["result"]["hooks"] == run["hooks"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["pre", "between", "window", "post"])
def test_whoever_is_ended_leaves_no_member_without_its_post_hook(local_site, scope, number, moment):
    """In a pre hook, before the second one, in the window, in a post hook."""
    site = local_site
    made = stack(site, scope, pre_command=SLOWLY, post_command=SLOWLY)
    data, files = folder(scope, "data"), folder(scope, "files")
    # Pre hooks: web, db. Post hooks: db, web.
    slow = {"pre": files / "slow-pre", "between": data / "slow-pre", "post": data / "slow-post"}
    if moment == "window":
        with (data / "huge").open("wb") as file:
            file.truncate(HUGE)
    else:
        slow[moment].touch()
    process = site.start("backup", "shop", "--json")
    expected = {
        "pre": lambda: len(notes(scope, "files")) == 1,
        "between": lambda: len(notes(scope, "data")) == 1,
        "window": lambda: not any(docker.state(c) == "running" for c in made.values()),
        "post": lambda: len(notes(scope, "data")) == 2,
    }
    wait_until(expected[moment], f"it is in {moment}")
    run = notes(scope, "files")[0][1]
    # A post hook is not cut short by a signal: it ends by itself, or at its timeout.
    if moment == "post" and number == signal.SIGTERM:
        process.send_signal(number)
        slow["post"].unlink()
    else:
        process.send_signal(number)
    if number == signal.SIGTERM:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 128 + number, errors
        assert not journal(site).exists(), journal(site).read_text()
    else:
        process.communicate()
        assert len(json_hooks(site)) == (1 if moment == "pre" else 2)
        assert len(site.json("units")["hooks_owed"]["shop"]) == len(json_hooks(site))
        assert "owes the post hook of" in site.run("units").stderr
        # A pre hook that hangs on is ended before its post hook runs.
        (data / "huge").unlink(missing_ok=True)
        if moment == "post":
            slow["post"].unlink()
        daemon = site.start("run")
        try:
            wait_until(
                lambda: "post" in hooks_of(scope, "files", run) and not json_hooks(site),
                "the daemon has run the post hooks",
                seconds=60,
            )
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)
    assert up(made)
    assert hooks_of(scope, "files", run)[-1] == "post"
    began = hooks_of(scope, "data", run)
    assert began[-1:] == ([] if moment == "pre" else ["post"])
    for container in made.values():
        assert "slow-" not in processes(container), "the hook that hung is still there"


def json_hooks(site) -> list:
    return json.loads(journal(site).read_text())["hooks"] if journal(site).exists() else []


def test_hook_that_hangs_is_killed_with_its_children_and_stops_nobody(site, scope):
    """Also one that dropped its environment, and one that is no shell command."""
    made = stack(
        site,
        scope,
        pre_command="env -i sleep 4711 & sleep 4712",
        pre_timeout="1s",
        post_command='["touch", "/data/undone"]',
    )
    began = {name: docker.inspect(c)["State"]["StartedAt"] for name, c in made.items()}
    done = site.run("backup", "shop", "--json")
    assert done.returncode == 1
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["verdict"], run["reason"]) == ("failed", "hook")
    assert run["message"].endswith("did not end within 1 s and was killed")
    assert "471" not in processes(made["web"])
    assert (folder(scope, "files") / "undone").exists()
    assert not (folder(scope, "data") / "undone").exists(), "its pre hook never began"
    assert began == {name: docker.inspect(c)["State"]["StartedAt"] for name, c in made.items()}


def test_container_without_a_shell_has_hooks_as_json_arrays_only(local_site, scope):
    """A string says so; an array that hangs cannot be ended, which is said, and the run goes on."""
    made = stack(
        local_site,
        scope,
        mode="live",  # such a container could not be started again
        pre_command='["sleep", "4711"]',
        pre_timeout="1s",
        pre_on__error="continue",
        post_command="true",
        post_on__error="continue",
    )
    for container in made.values():
        docker.call("exec", container, "/bin/rm", "/bin/sh", "/bin/ash")
    (run,) = local_site.json("backup", "shop")["runs"]
    assert run["verdict"] == "success"
    assert sum("it could not be ended" in warning for warning in run["warnings"]) == 2
    assert sum("there is no sh in the container" in warning for warning in run["warnings"]) == 2
    assert "JSON array" in run["hooks"][-1]["hint"]


@pytest.mark.parametrize(
    ("labels", "outcome"),
    [
        ({"pre_command": "echo why; exit 7"}, ("failed", 1, "the pre hook in")),
        ({"post_command": "echo why; exit 7"}, ("partial", 1, "the post hook in")),
        ({"pre_command": "no-such-tool"}, ("failed", 1, "exit code 127")),
        ({"pre_command": '["no-such-tool"]'}, ("failed", 1, "cannot execute 'no-such-tool'")),
        ({"pre_command": "id", "pre_user": "nobody-here"}, ("failed", 1, "no user 'nobody-here'")),
        ({"pre_user": "root"}, ("skipped", 3, "no command to run")),
        ({"pre_command": "[]"}, ("skipped", 3, "JSON array of words")),
    ],
)
def test_hook_that_fails_is_the_verdict(local_site, scope, labels, outcome):
    """Exit code, sentence, history and restore point say the same."""
    verdict, code, words = outcome
    made = stack(local_site, scope, **labels)
    done = local_site.run("backup", "shop")
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert up(made)
    last = local_site.json("history", "--unit", "shop")["runs"][-1]
    assert last["verdict"] == verdict
    states = [point["state"] for point in local_site.json("points")["points"]]
    assert states == (["bad"] if verdict == "partial" else [])
    if "exit 7" in str(labels):
        assert "| why" in local_site.ok("history", last["run"])


def test_programs_of_the_configuration_run_around_runs_and_restores(local_site, scope, tmp_path):
    """With what they are told, and no secret; one that others may change is refused."""
    site = local_site
    stack(site, scope)
    program = tmp_path / "tool"
    program.write_text(f'#!/bin/sh\nenv | grep ^KOPIWATCH_ > {tmp_path}/"$KOPIWATCH_HOOK"\n')
    program.chmod(0o755)
    names = ("before_run", "after_run", "before_restore", "after_restore")
    config = tmp_path / "config.toml"
    config.write_text("".join(f'[[hooks.{n}]]\ncommand = ["{program}", "x"]\n' for n in names))
    site.extra["KOPIWATCH_CONFIG"] = str(config)
    (run,) = site.json("backup", "shop")["runs"]
    assert [h["hook"] for h in run["hooks"]] == ["before_run", "after_run"]
    done = site.json("restore", "shop", "--to", str(tmp_path / "out"))
    assert [h["hook"] for h in done["hooks"]] == ["before_restore", "after_restore"]
    told = {
        name: dict(line.split("=", 1) for line in (tmp_path / name).read_text().splitlines())
        for name in names
    }
    assert told["before_run"]["KOPIWATCH_RUN"] == run["run"]
    assert told["after_run"]["KOPIWATCH_VERDICT"] == "success"
    assert told["after_run"]["KOPIWATCH_SNAPSHOT"] == run["snapshot"]
    assert told["before_restore"]["KOPIWATCH_TARGET"] == str(tmp_path / "out")
    assert told["after_restore"]["KOPIWATCH_VERDICT"] == "success"
    for each in told.values():
        assert each["KOPIWATCH_REPOSITORY"] == f"filesystem:{site.repository}"
        assert not [name for name in each if "PASS" in name]
    program.write_text("#!/bin/sh\nexit 9\n")
    refused = site.run("backup", "shop")
    assert refused.returncode == 1
    assert f"the before_run hook {program} failed with exit code 9" in refused.stdout
    refused = site.run("restore", "shop", "--to", str(tmp_path / "none"))
    assert refused.returncode == 1
    assert not (tmp_path / "none").exists()
    program.chmod(0o777)
    refused = site.run("points")
    assert refused.returncode == 3
    assert "hooks.before_run[1].command" in refused.stderr
    assert f"others may write {program}" in refused.stderr
