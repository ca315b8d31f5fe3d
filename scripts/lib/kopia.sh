# shellcheck shell=bash
# The Kopia binary: the one that was named, the one on PATH, the one in the cache, or a new build.

kopia_pinned() {
  awk '$1 == "require" && $2 == "github.com/kopia/kopia" { print substr($3, 2) }' tools/kopia/go.mod
}

# Prints 0.23.1 for the program at $1; nothing if it does not run.
kopia_version_of() {
  "$1" --version 2>/dev/null </dev/null | sed -n '1s/^v\{0,1\}\([0-9][0-9.]*\).*/\1/p'
}

# Only one minor version of Kopia was measured; another one may behave differently.
kopia_fits() {
  local pinned
  pinned=$(kopia_pinned)
  [[ $(kopia_version_of "$1") == "${pinned%.*}".* ]]
}

kopia_missing() {
  give_up 4 "$1" \
    "kopiwatch works with Kopia ${2%.*}. Ways to get it:" \
    "- install it as kopia.io describes (packages for Debian, RPM, Homebrew, or a single binary)," \
    "- copy it out of the official image:" \
    "    id=\$(docker create kopia/kopia:$2) && docker cp \$id:/bin/kopia . && docker rm \$id" \
    "- or install Go, and this script builds it." \
    "Put it on PATH, or name it: KOPIWATCH_KOPIA=/path/to/kopia"
}

# build_kopia VERSION TARGET: whoever comes second waits and finds it done.
build_kopia() {
  local version=$1 target=$2 log=$2.log
  (
    flock 9
    kopia_fits "$target" && exit 0
    note "building Kopia $version from its pinned sources; takes about 2 minutes, once"
    # Static, so that the same binary runs in any image; -mod=readonly, so that go.sum decides.
    (cd tools/kopia && GOFLAGS='-mod=readonly -buildvcs=false' GOWORK=off CGO_ENABLED=0 \
      go build -trimpath -ldflags='-s -w' -o "$target.part" github.com/kopia/kopia) \
      </dev/null >"$log" 2>&1 || {
      tail -n 15 "$log" >&2
      exit 1
    }
    mv "$target.part" "$target" && rm -f "$log"
  ) 9>"$target.lock"
}

# Sets and exports KOPIWATCH_KOPIA.
prepare_kopia() {
  local pinned cached found
  pinned=$(kopia_pinned)
  cached=$(cache_dir)/kopia-$pinned
  if [ -n "${KOPIWATCH_KOPIA:-}" ]; then
    found=$(command -v "$KOPIWATCH_KOPIA" || true)
    if [ -z "$found" ] || [ -z "$(kopia_version_of "$found")" ]; then
      give_up 4 "KOPIWATCH_KOPIA=$KOPIWATCH_KOPIA is not a Kopia program that runs."
    fi
    kopia_fits "$found" || warn "this Kopia is not ${pinned%.*}; not what kopiwatch was tested with"
  elif found=$(command -v kopia) && kopia_fits "$found"; then
    :
  elif kopia_fits "$cached"; then
    found=$cached
  elif have go; then
    [ -z "$found" ] || note "$found is Kopia $(kopia_version_of "$found"), not ${pinned%.*}"
    found=$cached
    build_kopia "$pinned" "$cached" || kopia_missing "building Kopia $pinned failed." "$pinned"
  else
    kopia_missing "there is no Kopia ${pinned%.*} and no Go to build it with." "$pinned"
  fi
  export KOPIWATCH_KOPIA=$found
  note "Kopia $(kopia_version_of "$found"): $found"
}
