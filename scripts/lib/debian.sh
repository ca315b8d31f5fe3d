# shellcheck shell=bash
# Debian packages, only those that are missing, and only where we may.

may_install() {
  is_root && have apt-get && have dpkg && [ -z "${KOPIWATCH_NO_INSTALL:-}" ]
}

installed() { dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# install_packages NAME…: returns 1 where we may not or cannot; says what it installs.
install_packages() {
  local name missing=() log
  may_install || return 1
  for name in "$@"; do installed "$name" || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  note "installing Debian packages: ${missing[*]}"
  log=$(mktemp)
  if ! {
    apt-get update &&
      DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "${missing[@]}"
  } </dev/null >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
