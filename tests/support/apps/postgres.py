"""PostgreSQL, loaded by pgbench."""

from __future__ import annotations

from types import MappingProxyType

from support.apps.application import (
    FOLDER,
    PASSWORD,
    Application,
    execute,
    execute_check,
    whole_numbers,
)


class Postgres(Application):
    """Two tables in lock step, and pgbench's bank, whose four sums are equal."""

    name = "postgres"
    server = f"""
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
install -d -o postgres -m 0700 {FOLDER}
as() {{ setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }}
if [ ! -s {FOLDER}/PG_VERSION ]; then
  printf %s "$POSTGRES_PASSWORD" >/tmp/pw && chown postgres /tmp/pw
  as initdb --pgdata={FOLDER} --username=postgres --pwfile=/tmp/pw --data-checksums \\
    --auth-local="${{LOCAL_AUTH:-trust}}" --auth-host=scram-sha-256 || exit
  echo 'host all all all scram-sha-256' >>{FOLDER}/pg_hba.conf
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \\
  postgres -D {FOLDER} -c 'listen_addresses=*' -c checkpoint_timeout=30s -c max_wal_size=64MB
"""
    ready = "pg_isready --quiet --username=postgres --host=127.0.0.1"
    options = ("--stop-signal", "SIGINT", "--health-cmd", ready, "--health-interval", "1s")
    environment = MappingProxyType({"POSTGRES_PASSWORD": PASSWORD})
    dump = MappingProxyType({"kopi.dump": "postgres"})
    feed = "psql --no-psqlrc --quiet --username=postgres --dbname=postgres >/dev/null"
    client = f"""
export PGHOST=db PGUSER=postgres PGPASSWORD={PASSWORD} PGCONNECT_TIMEOUT=2
run() {{ psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --output=/dev/null --command="$1"; }}
fill() {{
  pgbench --initialize --quiet --scale=3 &&
    run 'create table one (n int primary key); create table two (n int primary key)'
}}
put() {{ run "begin; insert into one values ($1); insert into two values ($1); commit"; }}
background() {{ pgbench --no-vacuum --client=2 --rate=150 --time=5; }}
"""

    def query(self, container: str, text: str) -> str:
        """What psql prints for it."""
        return execute(container, f"psql --username=postgres -qXAt --command='{text}'")

    def prove(self, container: str) -> None:
        self.query(container, "create extension if not exists amcheck")
        amcheck = "$(echo /usr/lib/postgresql/*/bin/pg_amcheck)"  # Debian keeps it off PATH
        execute_check(container, f"{amcheck} --username=postgres --all --heapallindexed")
        execute(container, "pg_dumpall --username=postgres >/dev/null")
        sums = [
            self.query(container, f"select coalesce(sum({column}), 0) from pgbench_{table}")
            for table, column in (
                ("accounts", "abalance"),
                ("tellers", "tbalance"),
                ("branches", "bbalance"),
                ("history", "delta"),
            )
        ]
        assert len(set(sums)) == 1, f"pgbench's sums differ: {sums}"
        assert self.query(container, "select count(*) from pgbench_accounts") == "300000"

    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        one, two = (
            whole_numbers(self.query(container, f"select n from {table} order by n"))
            for table in ("one", "two")
        )
        return one, two
