"""The daemon as a process: how soon a unit is in its metrics, and what it costs when it rests."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from support.sidecar import Sidecar, sidecar
from support.site import Site, wait_until

from watching.host import Host, row

SCRAPE_SECONDS = 15.0
SETTLE_SECONDS = 15.0
"""From the last change until nothing of it is left to be done."""
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}


class Figures(msgspec.Struct, frozen=True):
    """CPU seconds since the start, and what they were spent on.

    ``children`` are the programs that the daemon started (Kopia), living ones included. ``lists``
    are full lists of the containers, ``probed`` is when the repository was looked at last.
    """

    own: float
    children: float
    lists: float
    probed: float | None


def measure_daemon(host: Host, others: int, rounds: int, units: int, idle: float) -> None:
    """Start it beside what is there, and print both."""
    for number in range(units):
        host.create(f"unit-{number}", labelled=True)
    with a_daemon(host) as scraped:
        until_shown(host, scraped, others, rounds)
        with a_daemon(host) as alone:
            rest(scraped, alone, idle)


@contextmanager
def a_daemon(host: Host) -> Iterator[Sidecar]:
    """One on this Docker that backs nothing up, with a state and a repository of its own."""
    with TemporaryDirectory(prefix="kwbench-") as folder:
        extra = {"DOCKER_HOST": host.url, "KOPIWATCH_SCHEDULE": "off"}
        site = Site(Path(folder), "namespace", host.prefix, extra)
        site.repository.mkdir(parents=True)
        site.ok("repo", "create")
        with sidecar(site) as daemon:
            daemon.wait_metric(1, "repository_up", 60)
            yield daemon


def until_shown(host: Host, daemon: Sidecar, others: int, rounds: int) -> None:
    """A labelled container is created and started, one at a time: when its unit is in /metrics.

    The metrics are asked for each 20 ms, which slows the daemon down, if anything.
    """
    started, shown = [], []
    for number in range(rounds):
        time.sleep(SETTLE_SECONDS)
        asked = time.monotonic()
        host.start(host.create(f"shown-{number}", labelled=True))
        started.append(time.monotonic() - asked)
        unit = f"{host.prefix}-shown-{number}"
        wait_until(partial(shows, daemon, unit), f"{unit} is in /metrics", 60)
        shown.append(time.monotonic() - asked)
    print(f"the daemon, beside {others} others")
    print(row("  asked to create and start until started", started, "s"))
    print(row("  asked until its unit is in /metrics", shown, "s"))


def shows(daemon: Sidecar, unit: str) -> bool:
    """Its unit is there: one look at the text, for parsing it takes longer."""
    return f'kopiwatch_unit_present{{unit="{unit}"}} 1\n' in daemon.get("/metrics")[1]


def rest(scraped: Sidecar, alone: Sidecar, seconds: float) -> None:
    """Nothing happens for so long; one daemon is scraped, the other one is left alone.

    Both at the same time, so that the regular lists of both fall inside.
    """
    time.sleep(SETTLE_SECONDS)
    units = scraped.get("/metrics")[1].count("kopiwatch_unit_present{")
    begun = figures(alone), figures(scraped)
    scrape_for(scraped, seconds)
    ended = figures(alone), figures(scraped)
    print(f"the daemon at rest for {seconds:g} s, {units} units")
    names = "not scraped", f"scraped each {SCRAPE_SECONDS:g} s"
    for name, before, after in zip(names, begun, ended, strict=True):
        print(row_of_rest(name, before, after, seconds))
    for name, daemon in zip(names, (alone, scraped), strict=True):
        now, most = memory(daemon.process.pid)
        print(f"{f'  memory, {name}':<44}{now:>10.1f} MB, at most {most:.1f} MB")
    print(
        f"{'  its start, with one probe':<44}{begun[0].own:>10.2f} s of CPU, "
        f"and {begun[0].children:.2f} s of Kopia"
    )


def scrape_for(daemon: Sidecar, seconds: float) -> None:
    """Ask for the metrics as Prometheus does: at regular times, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.request("GET", "/metrics", headers=HEADERS)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        time.sleep(min(SCRAPE_SECONDS, left))
    connection.close()


def row_of_rest(name: str, before: Figures, after: Figures, seconds: float) -> str:
    own, children = after.own - before.own, after.children - before.children
    lists, probes = after.lists - before.lists, int(after.probed != before.probed)
    return (
        f"{f'  CPU, {name}':<44}{100 * (own + children) / seconds:>10.3f} % of a core "
        f"({own:.2f} s, children {children:.2f} s; {lists:g} full lists, {probes} probes)"
    )


def figures(daemon: Sidecar) -> Figures:
    """What it did until now. To ask for it costs a scrape."""
    lists = daemon.metric("watcher_resyncs_total", reason="interval") or 0
    probed = daemon.metric("repository_last_check_timestamp_seconds")
    own, children = cpu(daemon.process.pid)
    return Figures(own, children, lists, probed)


def cpu(pid: int) -> tuple[float, float]:
    """Seconds of user and system time of a process, and of all that it ever started."""
    user, system, ended_user, ended_system = (int(word) for word in stat(pid)[11:15])
    children = (ended_user + ended_system) * TICK_SECONDS
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            children += sum(cpu(int(child)))
    return (user + system) * TICK_SECONDS, children


def stat(pid: int) -> list[str]:
    """What follows the program's name in its stat, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory(pid: int) -> tuple[float, float]:
    """VmRSS and VmHWM in MB (of 10^6 bytes)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return int(found["VmRSS"][0]) * 1024 / 1e6, int(found["VmHWM"][0]) * 1024 / 1e6
