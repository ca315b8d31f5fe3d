# shellcheck shell=bash
# What the demo starts, in a folder of its own: compose.example.yml with an override in which db
# counts in one volume and web serves from another. All of it is found by the project's name $NAME.
# shellcheck disable=SC2016,SC2153 # programs for another shell; FOLDER, NAME are set by scripts/demo

# Counts ten times a second, and finishes what it writes when it is told to stop.
DB_PROGRAM='#!/bin/sh
trap "exit 0" TERM
cd /var/lib/postgresql/data || exit
n=$(cat count 2>/dev/null || echo 0)
[ -e journal ] || { touch journal && chown 999:998 journal && chmod 0640 journal; }
while :; do
  n=$((n + 1))
  echo "$n $(date)" >>journal
  echo "$n" >count.new && mv count.new count
  sleep 0.1
done'
WEB_PROGRAM='#!/bin/sh
trap "exit 0" TERM
[ -e /pages/200 ] ||
  for n in $(seq 200); do echo "page $n of the demo $(date)" >/pages/$n; done
while :; do sleep 0.1; done'

# An image of this machine's busybox, because none may be to be had from a registry.
make_stack_image() {
  local root=$FOLDER/image program library
  have busybox || install_packages busybox-static || give_up 1 \
    "the demo's tiny image is made of busybox, which is not here." "Debian and Ubuntu: apt install busybox-static"
  program=$(command -v busybox)
  mkdir -p "$root/bin" "$root/tmp"
  cp --dereference "$program" "$root/bin/busybox"
  for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do # none if it is static
    mkdir -p "$root${library%/*}"
    cp --dereference "$library" "$root$library"
  done
  "$program" --list | grep -vx busybox | while read -r name; do ln -s busybox "$root/bin/$name"; done
  printf '%s\n' "$DB_PROGRAM" >"$root/bin/db"
  printf '%s\n' "$WEB_PROGRAM" >"$root/bin/web"
  chmod +x "$root/bin/db" "$root/bin/web"
  tar --create --directory "$root" . |
    docker import --change 'ENV PATH=/bin' - "kopiwatch-demo/busybox:$NAME" >/dev/null
  rm -rf "$root"
}

remove_stack_image() { docker rmi "kopiwatch-demo/busybox:$NAME" >/dev/null 2>&1; }

# What a user makes by hand: the example, its secrets, a repository; .env says what differs here.
make_site() {
  local secret
  mkdir "$FOLDER/secrets" "$FOLDER/repository" "$FOLDER/restored"
  chmod 0700 "$FOLDER/secrets"
  for secret in kopia-password db-password grafana-password; do
    head -c 32 /dev/urandom | base64 >"$FOLDER/secrets/$secret"
  done
  cp compose.example.yml "$FOLDER/compose.yml"
  cat >"$FOLDER/.env" <<ENV
COMPOSE_PROJECT_NAME=$NAME
KOPIWATCH_IMAGE=$KOPIWATCH_TEST_WORKER_IMAGE
KOPIWATCH_SOCKET=${DOCKER_HOST#unix://}
KOPIWATCH_REPOSITORY_FOLDER=./repository
ENV
  override >"$FOLDER/compose.override.yml"
}

# With an instance of its own, kopiwatch sees the demo's containers and nobody else's.
override() {
  cat <<YAML
services:
  kopiwatch: &own
    pull_policy: never
    environment: {KOPIWATCH_INSTANCE: $NAME}
  restore: *own
  db:
    image: kopiwatch-demo/busybox:$NAME
    pull_policy: never
    command: [db]
    healthcheck: {test: [CMD, test, -s, /var/lib/postgresql/data/count], interval: 1s}
    labels: {kopi.instance: $NAME, kopi.schedule: every 1m}
  web:
    image: kopiwatch-demo/busybox:$NAME
    pull_policy: never
    command: [web]
    depends_on: [db]
    volumes: [pages:/pages]
    labels: {kopi.enable: "true", kopi.instance: $NAME}
volumes:
  pages:
YAML
}

# in_site COMMAND…: in the demo's folder; 'docker compose' is the Compose that was found.
in_site() (
  cd "$FOLDER" || exit
  [ "$1 $2" != "docker compose" ] || set -- "$KOPIWATCH_TEST_COMPOSE" "${@:3}"
  "$@" </dev/null
)

# show COMMAND…: the way a person would see it, without what Compose is only about to do.
show() {
  printf '\n    $ %s\n' "$*"
  in_site "$@" 2>&1 | sed -e '/^ \(Container\|Network\|Volume\) .*ing *$/d' -e 's/^/    /'
}

# begin_log: for a new container, whose log none was shown of.
begin_log() { LOG_SHOWN=0; }

# follow_log WORD SECONDS: kopiwatch's log as it comes, until a line has the word.
follow_log() {
  local lines='' end=$((SECONDS + $2))
  printf '\n    $ docker compose logs --follow --no-log-prefix kopiwatch\n'
  until [[ $lines == *"$1"* ]]; do
    [ "$SECONDS" -lt "$end" ] || give_up 1 "kopiwatch's log has no $1 after $2 s."
    sleep 0.5
    lines=$(in_site docker compose logs --no-log-prefix kopiwatch | tail -n "+$((LOG_SHOWN + 1))")
    [ -n "$lines" ] || continue
    note "${lines//$'\n'/$'\n'    }"
    LOG_SHOWN=$((LOG_SHOWN + $(wc -l <<<"$lines")))
  done
}

# The port is not published, so whoever asks is in the network of kopiwatch, as Prometheus would be.
show_metrics() {
  local get="wget -q -O - http://kopiwatch:9187/metrics" text
  local names="unit_(last_run_success|last_success|last_downtime|deadline|next_run|restore_points|overdue)"
  printf "\n    \$ docker compose exec web %s | grep -E '%s'\n" "$get" "^kopiwatch_$names"
  # shellcheck disable=SC2086 # words of a command
  text=$(in_site docker compose exec web $get | grep -E "^kopiwatch_$names")
  note "${text//$'\n'/$'\n'    }"
  [[ $text == *"last_run_success{unit=\"$NAME\"} 1"* ]] || give_up 1 "the metrics do not show a success."
}

running_of_application() {
  docker ps --format '{{.Names}}' --filter "label=com.docker.compose.project=$NAME" \
    --filter label=kopi.enable=true
}

# in_volumes COMMAND: a shell command that may read the volumes at /stack/db and /stack/web.
in_volumes() {
  docker run --rm --network none --volume "${NAME}_data:/stack/db:ro" \
    --volume "${NAME}_pages:/stack/web:ro" "kopiwatch-demo/busybox:$NAME" sh -c "$1" </dev/null
}

# Of the content of every file, and of the name, mode, owner and time of everything.
hash_of_stack() {
  in_volumes 'cd /stack && { find . -type f | sort | xargs sha256sum
    find db web | sort | xargs stat -c "%n %f %u:%g %s %Y"; } | sha256sum' | cut -c 1-32
}

count_of_db() { in_volumes 'cat /stack/db/count'; }

wait_for_count() {
  local since=$SECONDS
  until [ "$(count_of_db 2>/dev/null || echo 0)" -ge "$1" ]; do
    [ $((SECONDS - since)) -lt 30 ] || give_up 1 "the demo's database does not count."
    sleep 0.2
  done
}

# From the folder into which it was restored; the volumes were made by 'docker compose create'.
fill_volumes() {
  show docker run --rm --network none --volume "$FOLDER/restored/$NAME/volumes:/from:ro" \
    --volume "${NAME}_data:/to/${NAME}_data" --volume "${NAME}_pages:/to/${NAME}_pages" \
    "kopiwatch-demo/busybox:$NAME" cp -a /from/. /to/
}

# Ids of the project's containers, and of whoever else has its volumes: workers, and in_volumes.
containers_of_stack() {
  local filter
  for filter in "label=com.docker.compose.project=$NAME" "volume=$NAME"_{data,pages,state,cache}; do
    docker ps --all --quiet --filter "$filter" || return
  done | sort --unique
}

# Everything of it that is on this Docker, a line each; fails where Docker does not say.
parts_of_stack() {
  containers_of_stack &&
    docker network ls --quiet --filter "label=com.docker.compose.project=$NAME" &&
    docker volume ls --quiet --filter "label=com.docker.compose.project=$NAME"
}

# kopiwatch goes first and in order: it ends its worker, and starts nobody any more. A one-off that
# was interrupted may remove itself at the same time, so only what stays is an error.
remove_stack() {
  local project="label=com.docker.compose.project=$NAME"
  docker ps --quiet --filter "$project" --filter label=com.docker.compose.service=kopiwatch |
    xargs --no-run-if-empty docker stop >/dev/null 2>&1
  containers_of_stack | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1
  docker network ls --quiet --filter "$project" | xargs --no-run-if-empty docker network rm >/dev/null &&
    docker volume ls --quiet --filter "$project" | xargs --no-run-if-empty docker volume rm >/dev/null
}
