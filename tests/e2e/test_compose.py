"""compose.example.yml: what users copy is valid, and it runs, with real Docker Compose."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from support import compose, docker
from support.site import wait_until

pytestmark = pytest.mark.timeout(180)
PROFILES = ("", "monitoring", "proxy", "restore", "*")
FORBIDDEN = """
import sys, urllib.request, urllib.error
def status(method, path):
    request = urllib.request.Request("http://socket-proxy:2375" + path, method=method)
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
for line in sys.argv[1:]:
    method, path = line.split(" ")
    print(status(method, path), line)
"""


@pytest.fixture
def project(scope, tmp_path):
    """The example in a folder of its own; nothing of it is left afterwards."""
    with compose.project(scope, tmp_path / "site") as made:
        yield made
    assert made.remaining() == []


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_accepts_the_example(project, profile):
    """As it is, without any substitute, in every profile."""
    done = project.run("--profile", profile, "config", "--quiet", files=())
    assert (done.returncode, done.stderr) == (0, "")


def test_no_image_of_the_example_is_without_a_version(project):
    """And none of them publishes a port beyond this machine; the metrics' port is not published."""
    services = json.loads(project.ok("--profile", "*", "config", "--format", "json"))["services"]
    for name, service in services.items():
        assert ":" in service["image"].rpartition("/")[2], name
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name
    assert "ports" not in services["kopiwatch"]
    assert "ports" not in services["socket-proxy"]


def test_one_off_commands_back_up_and_restore_without_powers(project):
    """No capability to back up; owners, modes and set-id bits come back by the restore service."""
    project.ok("run", "--rm", "kopiwatch", "repo", "create")
    project.ok("up", "--detach", "db")
    wait_until(lambda: health(project, "db") == "healthy", "db is healthy")
    runs = json.loads(project.ok("run", "--rm", "kopiwatch", "backup", "--all", "--json"))["runs"]
    assert [(run["unit"], run["verdict"]) for run in runs] == [(project.name, "success")]
    into = f"/restored/{project.name}"
    project.ok("run", "--rm", "restore", project.name, "--to", into)
    data = project.folder / "restored" / project.name / "volumes" / f"{project.name}_data"
    table, shared = (data / "table").stat(), (data / "shared").stat()
    assert (data / "table").read_text() == "row\n"
    assert (table.st_uid, table.st_gid, stat.S_IMODE(table.st_mode)) == (999, 998, 0o600)
    assert (shared.st_uid, shared.st_gid, stat.S_IMODE(shared.st_mode)) == (5, 6, 0o2770)


def test_the_example_runs_as_a_sidecar(project):
    """Plain 'up' makes it healthy, 'exec' backs up, 'stop' ends it in time and in order."""
    project.ok("run", "--rm", "kopiwatch", "repo", "create")
    project.ok("up", "--detach")
    wait_until(lambda: health(project, "kopiwatch") == "healthy", "kopiwatch is healthy", 60)
    own = project.inspect("kopiwatch")["HostConfig"]
    assert (own["CapDrop"], own["CapAdd"], own["ReadonlyRootfs"]) == (["ALL"], None, True)
    done = project.ok("exec", "kopiwatch", "kopiwatch", "backup", project.name, "--json")
    assert [run["verdict"] for run in json.loads(done)["runs"]] == ["success"]
    project.ok("exec", "kopiwatch", "kopiwatch", "status")
    before = time.monotonic()
    project.ok("stop", "kopiwatch")
    assert time.monotonic() - before < 20
    assert project.inspect("kopiwatch")["State"]["ExitCode"] in (0, 143)
    assert docker.state(project.container("db")) == "running"
    project.ok("down")
    assert project.remaining() == []


def test_the_sidecar_that_is_stopped_in_a_window_leaves_nothing_down(project):
    """Its own 'stop' comes while db is on its way down: db runs when kopiwatch is gone."""
    slow = project.folder / "substitutes.json"
    given = json.loads(slow.read_text())
    command = given["services"]["db"]["command"]
    command[2] = command[2].replace("trap 'exit 0' TERM", "trap 'sleep 3; exit 0' TERM")
    slow.write_text(json.dumps(given))
    project.ok("run", "--rm", "kopiwatch", "repo", "create")
    project.ok("up", "--detach")
    wait_until(lambda: health(project, "kopiwatch") == "healthy", "kopiwatch is healthy", 60)
    wait_until(lambda: health(project, "db") == "healthy", "db is healthy")
    since = project.inspect("db")["State"]["StartedAt"]
    project.ok("exec", "--detach", "kopiwatch", "kopiwatch", "backup", project.name)
    journal = docker.call(
        "volume", "inspect", "--format", "{{.Mountpoint}}", f"{project.name}_state"
    )
    wait_until(lambda: holds_somebody(f"{journal}/journal"), "the journal names db", 60)
    project.ok("stop", "kopiwatch")
    assert project.inspect("kopiwatch")["State"]["ExitCode"] in (0, 143)
    assert project.inspect("db")["State"]["Status"] == "running"
    assert project.inspect("db")["State"]["StartedAt"] != since
    assert not holds_journals(f"{journal}/journal")


def test_a_backup_through_the_socket_proxy(project):
    """kopiwatch without the socket: the proxy lets through what it needs, and nothing else."""
    compose.proxy_image()
    project.extra = {
        "COMPOSE_PROFILES": "proxy",
        "KOPIWATCH_DOCKER": "tcp://socket-proxy:2375",
        "KOPIWATCH_SOCKET": "/dev/null",
    }
    project.ok("up", "--detach", "db", "socket-proxy")
    wait_until(lambda: health(project, "db") == "healthy", "db is healthy")
    project.ok("run", "--rm", "kopiwatch", "repo", "create")
    runs = json.loads(project.ok("run", "--rm", "kopiwatch", "backup", "--all", "--json"))["runs"]
    assert [(run["unit"], run["verdict"]) for run in runs] == [(project.name, "success")]
    assert refusals(project) == []
    db = project.container("db")
    forbidden = [
        *("GET /_ping", "GET /secrets", "GET /images/json", f"GET /containers/{db}/logs"),
        *(f"GET /containers/{db}/archive?path=/etc", f"GET /containers/{db}/../json"),
        *(f"POST /containers/{db}/kill", f"POST /containers/{db}/%2e%2e/{db}/stop"),
        *("POST /build", "POST /volumes/prune", "POST /images/create", "PUT /containers/json"),
        *(f"DELETE /containers/{db}?force=1&v=1", f"DELETE /volumes/{project.name}_data"),
        "DELETE /volumes/kopiwatch-stage-x?force=1",
    ]
    options = ("--entrypoint", "python3", "kopiwatch", "-c", FORBIDDEN)
    answers = project.ok("run", "--rm", *options, "GET /version", *forbidden).splitlines()
    assert answers == ["200 GET /version", *(f"403 {line}" for line in forbidden)]
    assert len(refusals(project)) == len(forbidden)
    assert docker.state(db) == "running"


def test_the_proxy_takes_nobody_from_another_network(project):
    """Its network is its own and leads nowhere; a container of the default network has no way."""
    compose.proxy_image()
    project.extra = {"COMPOSE_PROFILES": "proxy"}
    project.ok("up", "--detach", "db", "socket-proxy")
    proxy = project.inspect("socket-proxy")["NetworkSettings"]["Networks"]
    assert list(proxy) == [f"{project.name}_socket"]
    assert docker.inspect(f"{project.name}_socket")["Internal"] is True
    address = proxy[f"{project.name}_socket"]["IPAddress"]
    knock = f"wget -q -T 3 -O - http://{address}:2375/version"
    done = project.run("exec", "db", "/bin/sh", "-c", knock)
    assert done.returncode != 0, done.stdout
    inside = ("--entrypoint", "python3", "kopiwatch", "-c", FORBIDDEN, "GET /version")
    assert project.ok("run", "--rm", *inside) == "200 GET /version\n"


def health(project, service):
    return project.inspect(service)["State"].get("Health", {}).get("Status", "none")


def refusals(project):
    """What the proxy wrote to its log: it writes down what it refuses."""
    return [
        line
        for line in project.ok("logs", "--no-log-prefix", "socket-proxy").splitlines()
        if " 403 " in line
    ]


def holds_somebody(folder):
    """Whether a journal in this folder names a member: it is written again as the window opens."""
    texts = [file.read_text() for file in Path(folder).glob("*.json")]
    return any(json.loads(text)["members"] for text in texts)


def holds_journals(folder):
    """Whether a folder of a volume holds a journal."""
    return any(Path(folder).glob("*.json"))
