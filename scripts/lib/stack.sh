# shellcheck shell=bash
# The demo's stack: db counts in one volume, web serves from another, both carry kopi.* labels.
# Everything in it carries the label kopiwatch-demo=$NAME, by which it is found and removed.
# It wears Compose's labels without Compose, which may not be installed.
# shellcheck disable=SC2016,SC2153 # programs for another shell; NAME is set by scripts/demo

# Counts ten times a second, and finishes what it writes when it is told to stop.
DB_PROGRAM='trap "exit 0" TERM
n=$(cat /data/count 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  echo "$n $(date)" >>/data/journal
  echo "$n" >/data/count.new && mv /data/count.new /data/count
  sleep 0.1
done'
WEB_PROGRAM='trap "exit 0" TERM
mkdir -p /data/pages
[ -e /data/pages/200 ] ||
  for n in $(seq 200); do echo "page $n of the demo $(date)" >/data/pages/$n; done
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
  tar --create --directory "$root" . |
    docker import --change 'ENV PATH=/bin' - "kopiwatch-demo/busybox:$NAME" >/dev/null
  rm -rf "$root"
}

remove_stack_image() { docker rmi "kopiwatch-demo/busybox:$NAME" >/dev/null 2>&1; }

make_stack() {
  step "Start a small stack: db writes ten times a second, web depends on db"
  make_stack_image
  make_volumes
  make_container db "$DB_PROGRAM"
  make_container web "$WEB_PROGRAM" --label com.docker.compose.depends_on=db:service_started:false
  start_stack
  wait_for_count 5
  note "each of them carries the label kopi.enable=true; that is all that kopiwatch needs:"
  show kopiwatch units "$NAME"
}

make_volumes() {
  local name
  for name in db web; do docker volume create --label "kopiwatch-demo=$NAME" "$NAME-$name" >/dev/null; done
}

# make_container SERVICE PROGRAM [OPTION…]
make_container() {
  docker create --name "$NAME-$1" --network none --volume "$NAME-$1:/data" \
    --label "kopiwatch-demo=$NAME" --label kopi.enable=true --label "kopi.instance=$NAME" \
    --label "com.docker.compose.project=$NAME" --label "com.docker.compose.service=$1" \
    --label com.docker.compose.container-number=1 --label com.docker.compose.oneoff=False \
    "${@:3}" "kopiwatch-demo/busybox:$NAME" sh -c "$2" >/dev/null
}

start_stack() { docker start "$NAME-db" "$NAME-web" >/dev/null; }
stop_stack() { docker stop "$NAME-web" "$NAME-db" >/dev/null; }

# in_volumes COMMAND [DOCKER OPTION…]: a shell command with the volumes at /stack/db and /stack/web.
in_volumes() {
  docker run --rm --network none --label "kopiwatch-demo=$NAME" "${@:2}" \
    --volume "$NAME-db:/stack/db" --volume "$NAME-web:/stack/web" \
    "kopiwatch-demo/busybox:$NAME" sh -c "$1" </dev/null
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

# fill_volumes_from FOLDER: new volumes and containers, with what was restored.
fill_volumes_from() {
  make_volumes
  in_volumes "cp -a /from/$NAME-db/. /stack/db/ && cp -a /from/$NAME-web/. /stack/web/" \
    --volume "$1/volumes:/from:ro"
  make_container db "$DB_PROGRAM"
  make_container web "$WEB_PROGRAM" --label com.docker.compose.depends_on=db:service_started:false
}

# Everything of the stack that is on this Docker, a line each.
parts_of_stack() {
  docker ps --all --quiet --filter "label=kopiwatch-demo=$NAME"
  docker volume ls --quiet --filter "label=kopiwatch-demo=$NAME"
}

remove_stack() {
  docker ps --all --quiet --filter "label=kopiwatch-demo=$NAME" |
    xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker volume ls --quiet --filter "label=kopiwatch-demo=$NAME" |
    xargs --no-run-if-empty docker volume rm >/dev/null
}
