"""What happens in the window, and what does not."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import docker
from support.kopia import find_kopia
from support.site import PASSWORD, make_stack, wait_until

pytestmark = pytest.mark.timeout(180)

RECORDER = """#!/bin/sh
echo "$(date +%s.%N) start $*" >> {log}
"{kopia}" "$@"
code=$?
echo "$(date +%s.%N) end $*" >> {log}
exit $code
"""


@pytest.fixture
def recorder(local_site):
    """Puts a script in Kopia's place that notes each launch's begin and end; returns the note."""
    log = local_site.folder / "launches"
    script = local_site.folder / "recording-kopia"
    script.write_text(RECORDER.format(log=log, kopia=find_kopia()))
    script.chmod(0o755)
    local_site.extra["KOPIWATCH_KOPIA"] = str(script)
    log.touch()
    return log


def launches(log: Path, what: str) -> list[tuple[float, float]]:
    """Begin and end (epoch seconds) of each Kopia whose arguments hold ``what``."""
    begun: dict[str, float] = {}
    spans = []
    for line in log.read_text().splitlines():
        at, event, arguments = line.split(" ", 2)
        if what in arguments:
            if event == "start":
                begun[arguments] = float(at)
            else:
                spans.append((begun.pop(arguments), float(at)))
    return spans


class Events:
    """The scope's container events while the block runs; the daemon itself keeps only 256."""

    def __init__(self, scope: docker.Scope) -> None:
        self._process = subprocess.Popen(
            ["docker", "events", "--format={{json .}}", f"--filter=label={scope.label}"],
            env=os.environ | {"DOCKER_HOST": docker.URL},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._events: list[dict] = []

    def __enter__(self) -> Events:
        time.sleep(0.5)  # docker events says nowhere that it listens
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self._process.terminate()
        out, _errors = self._process.communicate()
        self._events = [json.loads(line) for line in out.splitlines()]

    def times(self, *actions: str) -> list[float]:
        """Epoch seconds of these actions."""
        return sorted(e["timeNano"] / 1e9 for e in self._events if e["Action"] in actions)


def test_window_lies_inside_one_kopia(local_site, scope, recorder):
    """Kopia is launched once for the data, before the first stop; it ends after the last start.

    The repository was opened before: Kopia speaks at the gate only after that. The newest blob is
    written after the last start: the flush.
    """
    make_stack(local_site, scope)
    with Events(scope) as events:
        run = local_site.json("backup", "shop")["runs"][0]
    ((began, ended),) = launches(recorder, "snapshot create")
    stops = events.times("kill", "die")
    starts = events.times("start")
    assert len(starts) == 2
    phases = {phase["phase"]: phase for phase in run["phases"]}
    order = [phase["phase"] for phase in run["phases"]]
    wanted = ["check", "ready", "stop", "read", "start", "health", "flush"]
    assert order == [*wanted, "verify", "keep", "report"]
    assert phases["ready"]["began"] < phases["stop"]["began"]
    assert began < stops[0]
    assert stops[-1] < starts[0]
    assert starts[-1] < ended
    blobs = [p.stat().st_mtime for p in (local_site.repository / "kopia").rglob("*.f")]
    assert starts[-1] < max(blobs) <= ended + 0.1


def test_window_sees_no_other_kopia(local_site, scope, recorder):
    """Every other launch (policy, list, reading back) is over before the stop or begins after."""
    make_stack(local_site, scope)
    local_site.ok("backup", "shop")
    recorder.write_text("")
    with Events(scope) as events:
        local_site.ok("backup", "shop")
    ((began, ended),) = launches(recorder, "snapshot create")
    first_stop = events.times("kill")[0]
    last_start = events.times("start")[-1]
    others = [span for span in launches(recorder, "") if span != (began, ended)]
    assert others
    assert all(end < first_stop or begin > last_start for begin, end in others)


def test_members_stop_and_start_in_dependency_order(local_site, scope, recorder):
    """web needs db: it stops first and starts last."""
    stack = make_stack(local_site, scope)
    local_site.ok("backup", "shop")
    state = {name: docker.inspect(container)["State"] for name, container in stack.items()}
    assert state["web"]["FinishedAt"] < state["db"]["FinishedAt"]
    assert state["db"]["StartedAt"] < state["web"]["StartedAt"]


def test_health_check_is_waited_for(local_site, scope):
    """A member that was healthy must be healthy again; our own probe is quicker than Docker's."""
    labels = {"kopi.enable": "true", "kopi.unit": "sick", "kopi.instance": local_site.instance}
    options = ["--health-cmd=test -e /tmp/up", "--health-interval=1s"]
    script = (
        "trap 'exit 0' TERM; rm -f /tmp/up; sleep 0.5; touch /tmp/up; while :; do sleep 0.1; done"
    )
    container = scope.run(
        "sick", labels=labels, volumes=["v:/data"], options=options, script=script
    )
    wait_until(
        lambda: docker.inspect(container)["State"]["Health"]["Status"] == "healthy", "healthy"
    )
    run = local_site.json("backup", "sick")["runs"][0]
    (member,) = run["members"]
    assert member["healthy"] is True
    assert run["window"] >= 0.5


def test_secrets_are_nowhere_to_be_seen(site, scope, tmp_path):
    """No worker, command line, log or output shows the password, or its base64."""
    make_stack(site, scope)
    secrets = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode())]
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and int(process.name) != os.getpid():
                    try:
                        line = (process / "cmdline").read_bytes()
                    except OSError:
                        continue
                    seen.extend(repr(line) for secret in secrets if secret in line)
            for worker in site.workers():
                try:
                    text = json.dumps(docker.inspect(worker)).encode()
                except RuntimeError:
                    continue
                inspected.append(worker)
                seen.extend(f"inspect {worker}" for secret in secrets if secret in text)

    inspected: list[str] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = site.run("backup", "shop", "--json")
    finally:
        stop.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert seen == []
    assert bool(inspected) == (site.access == "worker")
    for text in (done.stdout, done.stderr):
        assert not any(secret.decode() in text for secret in secrets)
    for path in [*site.state.rglob("*"), *(site.folder / "cache").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
