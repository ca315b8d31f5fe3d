"""What lies in deploy/, judged by the programs that read it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def judged(program: str, *args: str, **variables: str) -> str:
    """What a program says; it must exit 0."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.fail(f"there is no {program} here; scripts/test installs it")
    done = subprocess.run(
        [found, *args],
        cwd=DEPLOY,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration_and_the_rules():
    """With every lint of promtool as an error."""
    lint = ("--lint=all", "--lint-fatal")
    out = judged("promtool", "check", "rules", *lint, "prometheus/kopiwatch.rules.yml")
    assert "8 rules found" in out
    out = judged("promtool", "check", "config", *lint, "prometheus/prometheus.yml")
    assert "1 rule files found" in out


def test_each_alert_fires_when_it_should():
    """Never, too early, in time, and no longer: kopiwatch.rules.test.yml."""
    judged("promtool", "test", "rules", "prometheus/kopiwatch.rules.test.yml")


def test_each_alert_has_a_test():
    """An alert without one is only a hope."""
    rules = (DEPLOY / "prometheus" / "kopiwatch.rules.yml").read_text()
    tests = (DEPLOY / "prometheus" / "kopiwatch.rules.test.yml").read_text()
    names = [line.split()[-1] for line in rules.splitlines() if "- alert:" in line]
    assert len(names) == 8
    fired = [
        line.split()[-1] for line in tests.splitlines() if line.strip().startswith("alertname:")
    ]
    assert sorted(names) == sorted(fired)


def test_alertmanager_takes_its_configuration():
    judged("amtool", "check-config", "alertmanager/alertmanager.yml")


def test_haproxy_takes_the_socket_proxy():
    """Without a warning."""
    out = judged(
        *("haproxy", "-c", "-dW", "-f", "socket-proxy/haproxy.cfg"),
        SOCKET_PROXY_LISTEN=":2375",
        SOCKET_PROXY_DOCKER="/var/run/docker.sock",
    )
    assert "valid" in out
