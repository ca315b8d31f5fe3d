"""How each engine is dumped: what runs inside the member, and how its dump is known to be whole.

What runs is a shell script, because only there the container's own variables and secret files can
be read: their values never leave it, and stand in no argument. Names that come from labels are
arguments of the script, never parts of its text.
"""

from __future__ import annotations

import msgspec

from kopiwatch.backup.dump import mark
from kopiwatch.units.dump import DumpEngine, DumpSettings


class Client(msgspec.Struct, frozen=True):
    """One engine. ``script`` writes the dump to its standard output.

    It finds ``KOPI_USER``, ``KOPI_DATABASE`` and ``KOPI_PATH`` as the labels have them or empty,
    ``given`` the password that came by standard input or empty, the helpers of :data:`PREAMBLE`,
    and the user's own command as its arguments. ``starting`` are words of a server that is not
    ready yet. ``format`` and ``feed`` are for the recipe: what the dump is, and the shell command
    that takes it back inside the member, the dump on its standard input.
    """

    script: str
    check: mark.Check
    format: str
    feed: str = ""
    starting: tuple[str, ...] = ()


PREAMBLE = """\
set -e
echo "kopiwatch-pid $$" >&2
end=$1 KOPI_USER=$2 KOPI_DATABASE=$3 KOPI_PATH=$4 given=
export KOPI_USER KOPI_DATABASE KOPI_PATH
shift 4
fail() { echo "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# The variable of this name, or what the file holds that <name>_FILE names.
value() {
  eval "set -- \\"\\${$1-}\\" \\"\\${${1}_FILE-}\\""
  if [ -n "$1" ]; then printf %s "$1"; elif [ -n "$2" ]; then cat "$2"; fi
}
first() {
  for program in "$@"; do if have "$program"; then return; fi; done
  fail "none of these programs is in this container: $*"
}
"""
READ_PASSWORD = "IFS= read -r given\n"  # noqa: S105 - a line of shell
EPILOGUE = 'printf %s "$end"\n'

_POSTGRES = """\
first pg_dumpall
KOPI_USER=${KOPI_USER:-${POSTGRES_USER:-${PGUSER:-postgres}}}
password=$given
[ -n "$password" ] || password=${PGPASSWORD:-$(value POSTGRES_PASSWORD)}
if [ -n "$password" ]; then PGPASSWORD=$password; export PGPASSWORD; fi
program=pg_dumpall
if [ -n "$KOPI_DATABASE" ]; then program='pg_dump --dbname="$KOPI_DATABASE"'; fi
line="exec $program --clean --if-exists --no-password --username=\\"\\$KOPI_USER\\""
# Debian's own configuration lets a role in only as the user of the system with its name.
if [ "$(id -u)" = 0 ] && id postgres >/dev/null 2>&1 && have su
then su -s /bin/sh -c "$line" postgres
else sh -c "$line"
fi
"""

_MYSQL = """\
root=$(value MARIADB_ROOT_PASSWORD)
[ -n "$root" ] || root=$(value MYSQL_ROOT_PASSWORD)
own=${MARIADB_USER:-${MYSQL_USER:-}}
own_password=$(value MARIADB_PASSWORD)
[ -n "$own_password" ] || own_password=$(value MYSQL_PASSWORD)
empty=${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-${MYSQL_ALLOW_EMPTY_PASSWORD:-}}
if [ -z "$KOPI_USER" ]; then
  KOPI_USER=root
  if [ -z "$given$root$empty" ] && [ -n "$own" ] && [ -n "$own_password" ]; then KOPI_USER=$own; fi
fi
if [ "$KOPI_USER" = "$own" ] && [ "$own" != root ] && [ -z "$KOPI_DATABASE" ]; then
  KOPI_DATABASE=${MARIADB_DATABASE:-${MYSQL_DATABASE:-}}
fi
password=$given
if [ -z "$password" ]; then
  case $KOPI_USER in root) password=$root;; "$own") password=$own_password;; esac
fi
if [ -n "$password" ]; then MYSQL_PWD=$password; export MYSQL_PWD; fi
set -- --user="$KOPI_USER" --single-transaction --quick --routines --events --triggers \\
  --no-tablespaces --comments --loose-set-gtid-purged=OFF
if [ -n "$KOPI_DATABASE" ]
then "$program" "$@" --databases "$KOPI_DATABASE"
else "$program" "$@" --all-databases
fi
"""

_MONGODB = """\
first mongodump
[ -n "$KOPI_USER" ] || KOPI_USER=$(value MONGO_INITDB_ROOT_USERNAME)
password=$given
[ -n "$password" ] || password=$(value MONGO_INITDB_ROOT_PASSWORD)
set -- --archive
if [ -n "$KOPI_DATABASE" ]; then set -- "$@" --db="$KOPI_DATABASE"; fi
if [ -n "$KOPI_USER" ]
then
  set -- "$@" --username="$KOPI_USER" --authenticationDatabase=admin
  printf '%s\\n' "$password" | mongodump "$@"
else mongodump "$@"
fi
"""

_REDIS = """\
first redis-cli valkey-cli keydb-cli
password=$given
[ -n "$password" ] || password=${REDISCLI_AUTH:-$(value REDIS_PASSWORD)}
if [ -n "$password" ]; then
  REDISCLI_AUTH=$password VALKEYCLI_AUTH=$password; export REDISCLI_AUTH VALKEYCLI_AUTH
fi
set --
if [ -n "$KOPI_USER" ]; then set -- --user "$KOPI_USER"; fi
"$program" "$@" --rdb -
"""

# A backup inside of a read transaction sees one moment and need not begin anew at each write.
_SQLITE = """\
first sqlite3
[ -f "$KOPI_PATH" ] || fail "there is no file $KOPI_PATH in this container"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 143' TERM INT HUP
sqlite3 -batch -bail "$KOPI_PATH" ".timeout 30000" "BEGIN" "SELECT count(*) FROM sqlite_master" \\
  ".backup main $copy/db" >/dev/null
cat "$copy/db"
"""

_COMMAND = """\
if [ -n "$given" ]; then KOPI_DUMP_PASSWORD=$given; export KOPI_DUMP_PASSWORD; fi
"$@"
"""

CLIENTS: dict[DumpEngine, Client] = {
    "postgres": Client(
        _POSTGRES,
        mark.postgres,
        "SQL of pg_dump, or of pg_dumpall with all databases and roles",
        'psql --no-psqlrc --username="${USER}" --dbname="${DATABASE:-postgres}"',
        starting=(
            "the database system is starting up",
            "could not connect",
            "connection to server",
        ),
    ),
    "mysql": Client(
        "first mysqldump mariadb-dump\n" + _MYSQL,
        mark.mysql,
        "SQL of mysqldump",
        'mysql --user="${USER}" --password',
        starting=("Can't connect",),
    ),
    "mariadb": Client(
        "first mariadb-dump mysqldump\n" + _MYSQL,
        mark.mysql,
        "SQL of mariadb-dump",
        'mariadb --user="${USER}" --password',
        starting=("Can't connect",),
    ),
    "mongodb": Client(
        _MONGODB,
        mark.mongodb,
        "archive of mongodump",
        'mongorestore --archive --drop --username="${USER}" --authenticationDatabase=admin',
        starting=("connection refused", "server selection error"),
    ),
    "redis": Client(
        _REDIS,
        mark.redis,
        "RDB file",
        starting=("LOADING", "Connection refused"),
    ),
    "sqlite": Client(
        _SQLITE, mark.sqlite, "SQLite database file", starting=("database is locked",)
    ),
    "command": Client(_COMMAND, mark.anything, "what the command prints"),
}


def dump_argv(dump: DumpSettings, end: str, *, with_password: bool) -> tuple[str, ...]:
    """What is run inside the member. ``end`` is printed behind the dump, after a success only.

    ``with_password``: the first line of standard input is the password.
    """
    script = PREAMBLE + (READ_PASSWORD if with_password else "")
    script += CLIENTS[dump.engine].script + EPILOGUE
    labels = (dump.user, dump.database, dump.path)
    return ("/bin/sh", "-c", script, "kopiwatch-dump", end, *labels, *dump.command)


def kill_argv(pid: int) -> tuple[str, ...]:
    """What ends a dump that is not wanted any more: Docker itself cannot end an exec.

    A command that Docker runs leads a process group of its own (runc calls setsid).
    """
    script = (
        'kill -s TERM -- "-$1" 2>/dev/null; for n in 1 2 3; do '
        'kill -s 0 -- "-$1" 2>/dev/null || exit 0; sleep 1; done; '
        'kill -s KILL -- "-$1" 2>/dev/null'
    )
    return ("/bin/sh", "-c", script, "kopiwatch-end", str(pid))
