"""Redis with its append-only file, loaded by redis-benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import MappingProxyType

from support import docker
from support.apps.application import (
    FOLDER,
    Application,
    execute,
    execute_check,
    whole_numbers,
)

KEYS = 20_000


class Redis(Application):
    """Two lists in lock step, and some thousand keys that are written over and over.

    Nothing is acknowledged before it is in the file (``appendfsync always``), and a file that ends
    in the middle of a command is refused (``aof-load-truncated no``).
    """

    name = "redis"
    server = f"""
chown redis {FOLDER}
exec setpriv --reuid=redis --regid=redis --init-groups redis-server --dir {FOLDER} \\
  --bind 0.0.0.0 --protected-mode no --save '60 1000' \\
  --appendonly "${{APPEND_ONLY:-yes}}" --appendfsync always \\
  --aof-load-truncated no --auto-aof-rewrite-min-size 4mb
"""
    ready = "redis-cli -e set ready 1"
    dump = MappingProxyType({"kopi.dump": "redis"})
    client = f"""
fill() {{ redis-benchmark -h db -q -t set -r {KEYS} -n {KEYS * 2} -d 400 -c 4 -P 16 >/dev/null; }}
put() {{
  redis-cli -h db -t 2 -e eval "redis.call('rpush', 'one', ARGV[1])
    return redis.call('rpush', 'two', ARGV[1])" 0 "$1" >/dev/null
}}
background() {{
  redis-benchmark -h db -q -t set -r {KEYS} -n 500 -d 400 -c 2 >/dev/null
  sleep 0.3
}}
"""

    def prove_files(self, scope: docker.Scope, folder: Path) -> None:
        # It opens what it checks for writing, and writes only if it is told to repair.
        container = scope.run("checker", volumes=[f"{folder}:{FOLDER}"])
        manifest = f"{FOLDER}/appendonlydir/appendonly.aof.manifest"
        said = execute_check(container, f"redis-check-aof {manifest}")
        assert "All AOF files and manifest are valid" in said, said
        docker.call("rm", "--force", container)

    def start_from_dump(self, scope: docker.Scope, name: str, dump: Path, folder: Path) -> str:
        # With an append-only file Redis looks at no other, even if it has none yet.
        shutil.copyfile(dump, folder / "dump.rdb")
        return self.start(scope, name, data=str(folder), options=("--env", "APPEND_ONLY=no"))

    def prove(self, container: str) -> None:
        size = int(execute(container, "redis-cli dbsize"))
        keys = whole_numbers(execute(container, "redis-cli --scan | wc -l"))
        assert keys == [size]
        assert size > KEYS / 2

    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        one, two = (
            whole_numbers(execute(container, f"redis-cli lrange {key} 0 -1"))
            for key in ("one", "two")
        )
        return one, two
