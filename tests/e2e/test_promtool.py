"""Prometheus' own tool and Prometheus itself have nothing to say against what is exposed."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from support.boards import full, large, unit

from kopiwatch.config import Listen, Secret
from kopiwatch.report.board import Board
from kopiwatch.report.exposition import Exposition
from kopiwatch.report.web import Web

pytestmark = pytest.mark.timeout(120)


def program(name: str) -> str:
    """Where it is; both come with Debian's package ``prometheus``."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"there is no {name} here; install Debian's package 'prometheus'")
    return found


def text_of(board: Board) -> bytes:
    exposition = Exposition()
    exposition.update(board)
    return asyncio.run(exposition.body()).body


@pytest.mark.parametrize(
    "board",
    [full(), large(50), full((unit(unit='a"b\\c\nd\x00é'),))],
    ids=["everything", "fifty units", "odd names"],
)
def test_promtool_finds_nothing(board):
    """``promtool check metrics`` is silent and content."""
    result = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text_of(board),
        capture_output=True,
        check=False,
    )
    assert (result.stdout.decode(), result.stderr.decode(), result.returncode) == ("", "", 0)


def test_promtool_does_find_what_is_wrong():
    """The same check complains of a counter by a wrong name, so it does look."""
    text = text_of(full()).replace(b"unit_runs_total", b"unit_runs")
    result = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert result.returncode == 3
    assert b"unit_runs" in result.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def query(port: int, expression: str) -> dict[str, str]:
    """The values of an instant query, by unit (or by name where there is none)."""
    words = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{words}") as answer:
        found = json.load(answer)["data"]["result"]
    return {
        row["metric"].get("unit", row["metric"].get("__name__", "")): row["value"][1]
        for row in found
    }


@pytest.mark.anyio
async def test_prometheus_scrapes_it(tmp_path: Path):
    """OpenMetrics in gzip with a token: the target is up, and each series is in it once."""
    exposition = Exposition()
    board = full()
    exposition.update(board)
    web = Web(exposition, listen=Listen("127.0.0.1", 0), token=Secret("t0ken"))
    async with web.serving() as bound:
        configuration = tmp_path / "prometheus.yml"
        configuration.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s"},
                    "scrape_configs": [
                        {
                            "job_name": "kopiwatch",
                            "authorization": {"credentials": "t0ken"},
                            "static_configs": [{"targets": [f"127.0.0.1:{bound.port}"]}],
                        }
                    ],
                }
            )
        )
        port = free_port()
        with (tmp_path / "log").open("wb") as log:
            prometheus = await asyncio.create_subprocess_exec(
                program("prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        if (await asyncio.to_thread(query, port, "up")).get("up") == "1":
                            break
                    except OSError:
                        assert prometheus.returncode is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.2)
            deadlines = await asyncio.to_thread(
                query, port, "kopiwatch_unit_deadline_timestamp_seconds"
            )
            assert deadlines.keys() == {unit.unit for unit in board.units if unit.deadline}
            overdue = await asyncio.to_thread(
                query, port, "time() > kopiwatch_unit_deadline_timestamp_seconds"
            )
            assert "late" in overdue
            assert "off" not in overdue
            added = await asyncio.to_thread(query, port, "scrape_samples_scraped")
            text = (await exposition.body()).body
            lines = [line for line in text.splitlines() if not line.startswith(b"#")]
            assert added == {"scrape_samples_scraped": str(len(lines))}
        finally:
            prometheus.terminate()
            await prometheus.wait()
    assert b"duplicate" not in (tmp_path / "log").read_bytes().lower()
