"""The real Prometheus on the real daemon: an overdue unit alarms, a backup ends that."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.sidecar import sidecar
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(180)

RULES = {
    "groups": [
        {
            "name": "kopiwatch",
            "interval": "1s",
            "rules": [
                {
                    "alert": "BackupOverdue",
                    "expr": "time() > kopiwatch_unit_deadline_timestamp_seconds",
                }
            ],
        }
    ]
}


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """Debian's Prometheus, scraping each second; its port."""
    program = shutil.which("prometheus")
    assert program, "scripts/test installs Debian's prometheus"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "rules.yml").write_text(json.dumps(RULES))
    scrape = {"job_name": "kopiwatch", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    pace = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(
        json.dumps({"global": pace, "rule_files": ["rules.yml"], "scrape_configs": [scrape]})
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def firing(port: int) -> list[str]:
    """The units whose alert fires, or why Prometheus cannot be asked."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=5) as answer:
            alerts = json.load(answer)["data"]["alerts"]
    except OSError as error:
        return [type(error).__name__]
    return [alert["labels"]["unit"] for alert in alerts if alert["state"] == "firing"]


def test_overdue_unit_fires_and_a_backup_resolves_it(local_site, scope, tmp_path):
    """The alert is about the age of the data, and about nothing else."""
    labels = {"kopi.enable": "true", "kopi.unit": "app", "kopi.instance": local_site.instance}
    labels |= {"kopi.max-age": "25s", "kopi.schedule": "off"}
    scope.stack({"app": {"script": IDLE, "volumes": ["data:/data"], "labels": labels}})
    with sidecar(local_site) as daemon, prometheus(tmp_path / "prometheus", daemon.port) as port:
        wait_until(lambda: firing(port) == [], "nothing is overdue yet", 20)
        wait_until(lambda: firing(port) == ["app"], "the alert fires", 45)
        assert "overdue" in local_site.run("status").stderr
        local_site.ok("backup", "app")
        wait_until(lambda: firing(port) == [], "the alert resolves", 20)
        local_site.ok("status")
