"""MariaDB, whose load moves money between accounts."""

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

ACCOUNTS = 100
EACH = 1000


class MariaDb(Application):
    """Two tables in lock step, and a bank in which no money is made or lost."""

    name = "mariadb"
    server = f"""
install -d -o mysql -g mysql -m 0755 /run/mysqld {FOLDER}
if [ ! -d {FOLDER}/mysql ]; then
  mariadb-install-db --user=mysql --datadir={FOLDER} --skip-test-db \\
    --auth-root-authentication-method=normal >/dev/null || exit
fi
cat >/tmp/init.sql <<SQL
create user if not exists root@'%' identified by '$MARIADB_ROOT_PASSWORD';
grant all privileges on *.* to root@'%' with grant option;
alter user root@localhost identified by '$MARIADB_ROOT_PASSWORD';
SQL
chown mysql /tmp/init.sql
exec mariadbd --user=mysql --datadir={FOLDER} --bind-address=0.0.0.0 --init-file=/tmp/init.sql \\
  --innodb-log-file-size=8M --innodb-buffer-pool-size=32M
"""
    ready = 'mariadb-admin --password="$MARIADB_ROOT_PASSWORD" ping'
    options = ("--health-cmd", ready, "--health-interval", "1s")
    environment = MappingProxyType({"MARIADB_ROOT_PASSWORD": PASSWORD})
    dump = MappingProxyType({"kopi.dump": "mariadb"})
    feed = 'mariadb --user=root --password="$MARIADB_ROOT_PASSWORD"'
    client = f"""
export MYSQL_PWD={PASSWORD}
run() {{ mariadb --host=db --connect-timeout=2 --user=root --execute="$1"; }}
fill() {{
  run "create database shop; use shop;
    create table one (n int primary key); create table two (n int primary key);
    create table account (id int primary key, balance int not null);
    create table filler (id int primary key, text text);
    insert into account select seq, {EACH} from seq_1_to_{ACCOUNTS};
    insert into filler select seq, repeat(md5(seq), 32) from seq_1_to_20000"
}}
put() {{
  run "use shop; begin; insert into one values ($1); insert into two values ($1); commit"
}}
background() {{
  awk 'BEGIN {{ srand(); for (i = 1; i <= 200; i++) {{
    a = int(rand() * {ACCOUNTS}) + 1; b = int(rand() * {ACCOUNTS}) + 1
    print "begin; update account set balance = balance - " i " where id = " a ";"
    print "update account set balance = balance + " i " where id = " b ";"
    print "update filler set text = repeat(md5(rand()), 32) where id = " a * b "; commit;"
  }} }}' | mariadb --host=db --connect-timeout=2 --user=root shop
  sleep 0.3
}}
"""

    def query(self, container: str, text: str) -> str:
        """What the client prints for it, without the names of columns."""
        return execute(
            container,
            'mariadb --password="$MARIADB_ROOT_PASSWORD" --skip-column-names '
            f"--batch --execute='{text}' shop",
        )

    def prove(self, container: str) -> None:
        said = execute_check(
            container,
            'mariadb-check --password="$MARIADB_ROOT_PASSWORD" --all-databases --extended',
        )
        assert said.count("shop.") == 4, said
        wrong = [line for line in said.splitlines() if not line.endswith("OK")]
        assert wrong == [], said
        assert int(self.query(container, "select sum(balance) from account")) == ACCOUNTS * EACH
        assert self.query(container, "select count(*) from filler") == "20000"

    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        one, two = (
            whole_numbers(self.query(container, f"select n from {table} order by n"))
            for table in ("one", "two")
        )
        return one, two
