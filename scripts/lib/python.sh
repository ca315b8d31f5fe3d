# shellcheck shell=bash
# The Python environment in .venv, exactly as uv.lock says.

UV_PINNED=0.13.9 # used only where no uv is installed

python_is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the path of a Python that can run kopiwatch.
find_python() {
  local name
  for name in ${KOPIWATCH_PYTHON:+"$KOPIWATCH_PYTHON"} python3 python3.13 python3.12 python3.11; do
    if have "$name" && python_is_new_enough "$name"; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

require_python() {
  PYTHON=$(find_python) || give_up 1 \
    "kopiwatch needs Python 3.11 or newer; $(python3 --version 2>/dev/null || echo 'no python3') is here." \
    "Install one (Debian 12: apt install python3 python3-venv), or name it: KOPIWATCH_PYTHON=/path/to/python3"
}

uv_is_new_enough() {
  local major minor
  IFS=' .' read -r _ major minor _ < <("$1" --version 2>/dev/null) || return 1
  [ "${major:-0}" -gt 0 ] || [ "${minor:-0}" -ge 5 ]
}

uv_of_our_own() {
  local home
  home=$(cache_dir)/uv-$UV_PINNED
  UV=$home/bin/uv
  "$UV" --version >/dev/null 2>&1 && return
  note "no uv here: installing uv $UV_PINNED into the cache"
  make_bare_venv "$home"
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_PINNED" ||
    give_up 1 "uv $UV_PINNED could not be installed from the Python package index." \
      "Install uv yourself and run this again."
}

# Some distributions ship python3 without what 'venv' needs.
make_bare_venv() {
  "$PYTHON" -m venv --clear "$1" >/dev/null 2>&1 && return
  install_packages python3-venv || true
  "$PYTHON" -m venv --clear "$1" >&2 ||
    give_up 1 "$PYTHON cannot make virtual environments." "Debian and Ubuntu: apt install python3-venv"
}

find_uv() {
  if have uv && uv_is_new_enough uv; then UV=uv; else uv_of_our_own; fi
}

# prepare_python dev|run: sets PYTHON and UV, and puts .venv/bin first on PATH. 'run' leaves the
# developer's tools in place where they are installed already.
prepare_python() {
  local arguments=(sync --frozen --quiet)
  require_python
  find_uv
  [ "$1" = dev ] || arguments+=(--no-dev --inexact)
  python_is_new_enough .venv/bin/python || arguments+=(--python "$PYTHON")
  env -u VIRTUAL_ENV -u UV_PROJECT_ENVIRONMENT UV_PYTHON_DOWNLOADS=never \
    "$UV" "${arguments[@]}" </dev/null ||
    give_up 1 "the Python packages of uv.lock could not be installed." \
      "The Python package index must be reachable, directly or as your uv settings say."
  PATH=$PWD/.venv/bin:$PATH
  export PATH
  note "Python $(python -c 'import platform; print(platform.python_version())') in .venv, as uv.lock says"
}
