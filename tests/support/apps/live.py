"""An application that runs as the only member of a unit, under load, and what its backups hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from support import docker
from support.apps.application import SAID, Application
from support.site import Site, wait_until

UNIT = "app"

LOAD = f"""
trap 'exit 0' TERM
(while :; do background >/dev/null 2>&1; sleep 0.1; done) &
n=0
while :; do
  n=$((n + 1))
  if put $n 2>>{SAID}/refused; then echo "$n $(date +%s.%N)" >>{SAID}/acknowledged
  fi
  sleep 0.05
done
"""
"""One number after the other; a number that was refused, or got no answer, is not used again."""


@dataclass(frozen=True)
class Backup:
    """One run that was a success.

    ``read_at`` and ``dumped_at`` are when it began to read and to dump, in seconds since 1970;
    ``dumped_at`` is 0 where nothing was dumped.
    """

    run: str
    read_at: float
    dumped_at: float
    window: float
    document: Mapping[str, Any]


class Live:
    """``application`` in the unit ``app``, on the volume ``data`` of the scope or on a folder."""

    def __init__(
        self,
        site: Site,
        scope: docker.Scope,
        application: Application,
        labels: Mapping[str, str],
        *,
        data: Path | None = None,
    ) -> None:
        self.site = site
        self.scope = scope
        self.application = application
        self._place = f"volumes/{scope.full('data')}"
        if data is not None:
            self._place = f"binds/{str(data).strip('/').replace('/', '~')}"
        self._said = site.folder / "said"
        self._said.mkdir()
        network = scope.network("net") if application.client else "none"
        own = {"kopi.enable": "true", "kopi.unit": UNIT, "kopi.instance": site.instance}
        self.container = application.start(
            scope,
            "db",
            data=str(data or "data"),
            network=network,
            labels=own | labels,
            volumes=() if application.client else (f"{self._said}:{SAID}",),
            options=("--network-alias", "db") if application.client else (),
        )
        if application.client:
            fill = "until fill; do sleep 0.2; done"
            self.scope.run(
                "load",
                script=f"{application.client}{fill}{LOAD}",
                volumes=[f"{self._said}:{SAID}"],
                network=network,
            )
        self.wait_for_more(20)

    def acknowledged(self, before: float = float("inf")) -> list[int]:
        """The numbers that had been acknowledged before this time (seconds since 1970)."""
        file = self._said / "acknowledged"
        if not file.exists():
            return []
        whole = file.read_text().rpartition("\n")[0]
        pairs = [line.split() for line in whole.splitlines()]
        return [int(number) for number, at in pairs if float(at) < before]

    def wait_for_more(self, count: int) -> None:
        """Wait until the load has written this many more."""
        wanted = len(self.acknowledged()) + count
        wait_until(lambda: len(self.acknowledged()) >= wanted, "the load is acknowledged", 60)

    def backup(self) -> Backup:
        """Back it up while it is loaded; it must run and take its load again afterwards."""
        (run,) = self.site.json("backup", UNIT)["runs"]
        assert (run["verdict"], run["message"]) == ("success", "")
        self.wait_for_more(10)
        began = {
            phase["phase"]: datetime.fromisoformat(phase["began"]).timestamp()
            for phase in run["phases"]
        }
        return Backup(run["run"], began["read"], began.get("dumps", 0), run["window"], run)

    def restored(self, backup: Backup, target: Path) -> str:
        """Restore it into a folder, and start the same application on that. Returns its id."""
        self.site.ok("restore", UNIT, "--at", backup.run, "--to", str(target))
        data = target / self._place
        self.application.prove_files(self.scope, data)
        return self.application.start(self.scope, f"restored-{backup.run}", data=str(data))

    def restored_from_dump(self, backup: Backup, target: Path) -> str:
        """Restore it into a folder, and feed the dump in it to the same application, empty."""
        self.site.ok("restore", UNIT, "--at", backup.run, "--to", str(target))
        (dump,) = (target / "dumps").iterdir()
        empty = target / "empty"
        empty.mkdir()
        name = f"from-dump-{backup.run}"
        return self.application.start_from_dump(self.scope, name, dump, empty)

    def prove(self, backup: Backup, container: str) -> None:
        """The application finds nothing wrong, and what had been acknowledged is there."""
        self.application.prove(container)
        self.prove_numbers(backup.read_at, container)

    def prove_numbers(self, read_at: float, container: str) -> None:
        """What was acknowledged before this time is there, and nothing without what it follows."""
        one, two = self.application.numbers(container)
        assert one == two, "the two places are not in lock step"
        promised = self.acknowledged(before=read_at)
        assert promised
        assert one
        lost = set(promised) - set(one)
        assert not lost, f"acknowledged, and lost: {sorted(lost)[:20]}"
        gaps = {number for number in self.acknowledged() if number <= one[-1]} - set(one)
        assert not gaps, f"later ones are there, these are not: {sorted(gaps)[:20]}"
