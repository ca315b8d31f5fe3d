# shellcheck shell=bash
# Talking to the person in front of the terminal, and leaving with a reason.

step() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '    note: %s\n' "$*" >&2; }

# give_up CODE SENTENCE [HINT…]: exit codes are those of kopiwatch itself
# (1 failed, 2 usage, 4 Kopia, 5 Docker).
give_up() {
  local code=$1 hint
  printf '\nstopped: %s\n' "$2" >&2
  shift 2
  for hint in "$@"; do printf '  %s\n' "$hint" >&2; done
  exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# What may be thrown away at any time; it costs only time to make it again.
cache_dir() {
  local folder=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kopiwatch
  mkdir -p "$folder"
  printf '%s\n' "$folder"
}
