# shellcheck shell=bash
# Docker Compose, for the tests and the demo: the one that was named, the Docker command's own
# plugin, the one in the cache, or a new build.

COMPOSE_AT_LEAST=24 # v2.24, as compose.example.yml needs it

compose_pinned() {
  awk '$1 == "require" && $2 == "github.com/docker/compose/v2" { print substr($3, 2) }' tools/compose/go.mod
}

# Prints 2.40.3 for the program at $1; nothing if it is no Compose or does not run.
compose_version_of() {
  "$1" version --short 2>/dev/null </dev/null | sed -n '1s/^v\{0,1\}\([0-9][0-9.]*\).*/\1/p'
}

compose_fits() {
  local major minor
  IFS=. read -r major minor _ < <(compose_version_of "$1") || return 1
  [ "${major:-0}" -gt 2 ] || { [ "${major:-0}" -eq 2 ] && [ "${minor:-0}" -ge "$COMPOSE_AT_LEAST" ]; }
}

compose_plugin() {
  have docker || return 1
  timeout 20 docker info --format '{{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Path}}{{end}}{{end}}' \
    2>/dev/null
}

compose_missing() {
  give_up 5 "$1" "Install the Compose plugin of Docker, version 2.$COMPOSE_AT_LEAST or newer, or Go to build it with," \
    "or name the program: KOPIWATCH_TEST_COMPOSE=/path/to/docker-compose"
}

# build_compose VERSION TARGET: whoever comes second waits and finds it done.
build_compose() {
  local version=$1 target=$2 log=$2.log
  (
    flock 9
    compose_fits "$target" && exit 0
    note "building Docker Compose $version from its pinned sources; takes 1 to 3 minutes, once"
    # -mod=readonly, so that go.sum decides. Without the name it would not know its own version.
    (cd tools/compose && GOFLAGS='-mod=readonly -buildvcs=false' GOWORK=off CGO_ENABLED=0 \
      go build -trimpath -ldflags="-s -w -X github.com/docker/compose/v2/internal.Version=v$version" \
      -o "$target.part" github.com/docker/compose/v2/cmd) </dev/null >"$log" 2>&1 || {
      tail -n 15 "$log" >&2
      exit 1
    }
    mv "$target.part" "$target" && rm -f "$log"
  ) 9>"$target.lock"
}

# Sets and exports KOPIWATCH_TEST_COMPOSE: a program that is called like 'docker compose'.
prepare_compose() {
  local pinned cached found
  pinned=$(compose_pinned)
  cached=$(cache_dir)/docker-compose-$pinned
  if [ -n "${KOPIWATCH_TEST_COMPOSE:-}" ]; then
    found=$(command -v "$KOPIWATCH_TEST_COMPOSE" || true)
    if [ -z "$found" ] || ! compose_fits "$found"; then
      give_up 5 "KOPIWATCH_TEST_COMPOSE=$KOPIWATCH_TEST_COMPOSE is not a Docker Compose" \
        "of version 2.$COMPOSE_AT_LEAST or newer that runs."
    fi
  elif found=$(compose_plugin) && [ -n "$found" ] && compose_fits "$found"; then
    :
  elif compose_fits "$cached"; then
    found=$cached
  elif have go; then
    found=$cached
    build_compose "$pinned" "$cached" || compose_missing "building Docker Compose $pinned failed."
  else
    compose_missing "there is no Docker Compose and no Go to build it with."
  fi
  export KOPIWATCH_TEST_COMPOSE=$found
  note "Docker Compose $(compose_version_of "$found"): $found"
}
