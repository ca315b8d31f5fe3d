# shellcheck shell=bash
# The image that tests and demo run, from the Dockerfile of the product, with no registry, no network:
# Debian's Python stands in for python:3.13-slim, the local Kopia for the official Kopia image.
# KOPIWATCH_TEST_PYTHON_IMAGE names another base; the build then takes its packages from outside.

TEST_IMAGE=kopiwatch-test/kopiwatch
TEST_BUILD_IMAGE=kopiwatch-test/build
TEST_PYTHON_IMAGE=kopiwatch-test/python
TEST_KOPIA_IMAGE=kopiwatch-test/kopia
TEST_IMAGES_KEPT_DAYS=1
DEBIAN_WITH_PYTHON=trixie # has Python 3.13

have_image() { [ -n "$(docker images --quiet "$1")" ]; }

# hash_of PATH…: of names and contents.
hash_of() {
  find "$@" -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort --zero-terminated |
    xargs --null sha256sum | sha256sum | cut -c 1-12
}

# prepare_image: sets and exports KOPIWATCH_TEST_WORKER_IMAGE; builds only what changed.
prepare_image() {
  local base plain kopia tag
  kopia=$TEST_KOPIA_IMAGE:$(sha256sum "$KOPIWATCH_KOPIA" | cut -c 1-12)
  plain=${KOPIWATCH_TEST_PYTHON_IMAGE:-$TEST_PYTHON_IMAGE:$DEBIAN_WITH_PYTHON}
  base=${KOPIWATCH_TEST_PYTHON_IMAGE:-$TEST_PYTHON_IMAGE:$(hash_of uv.lock tools/image scripts/lib/image.sh)}
  tag=$TEST_IMAGE:$(printf '%s %s %s' "$base" "$kopia" \
    "$(hash_of Dockerfile pyproject.toml uv.lock tools/image README.md LICENSE CHANGELOG.md kopiwatch)" |
    sha256sum | cut -c 1-12)
  if ! have_image "$tag"; then
    have_image "$base" || [ -n "${KOPIWATCH_TEST_PYTHON_IMAGE:-}" ] || make_python_image "$base"
    have_image "$kopia" || make_kopia_image "$kopia"
    note "building $tag from the Dockerfile"
    # The build stage gets a name, so that it can be found and removed when it is old.
    build_image "$TEST_BUILD_IMAGE:${tag##*:}" --target build
    build_image "$tag" --build-arg VERSION=test
  fi
  remove_old_images "$tag" "$TEST_BUILD_IMAGE:${tag##*:}" "$base" "$kopia"
  export KOPIWATCH_TEST_WORKER_IMAGE=$tag
  note "worker image $tag"
}

# build_image NAME [OPTION…]: uses the variables of prepare_image.
build_image() {
  docker_build "$1" . "${@:2}" --build-arg "PYTHON_IMAGE=$plain" --build-arg "BUILD_IMAGE=$base" \
    --build-arg "KOPIA_IMAGE=$kopia"
}

# docker_build NAME CONTEXT [OPTION…]: the classic builder, which finds local images by name.
docker_build() {
  local log
  log=$(mktemp)
  DOCKER_BUILDKIT=0 docker build --force-rm --tag "$1" "${@:3}" "$2" </dev/null >"$log" 2>&1 || {
    tail -n 25 "$log" >&2
    rm -f "$log"
    give_up 1 "the image $1 could not be built."
  }
  rm -f "$log"
}

make_kopia_image() {
  tar --create --dereference --transform "s|.*|bin/kopia|" --absolute-names "$KOPIWATCH_KOPIA" |
    docker import - "$1" >/dev/null
}

# A Debian with Python, and beside it every package that the Dockerfile installs: pip is told to
# look nowhere else, so the same Dockerfile needs no network.
make_python_image() {
  local context plain=$TEST_PYTHON_IMAGE:$DEBIAN_WITH_PYTHON
  if ! have_image "$plain"; then
    make_debian_with_python
    docker import "$(debian_tar)" "$plain" >/dev/null
  fi
  context=$(mktemp -d)
  collect_wheels "$context/wheels"
  printf '[global]\nno-index = true\nfind-links = /opt/wheels\n' >"$context/pip.conf"
  printf 'FROM %s\nCOPY pip.conf /etc/pip.conf\nCOPY wheels /opt/wheels\n' "$plain" >"$context/Dockerfile"
  docker_build "$1" "$context"
  rm -rf "$context"
}

debian_tar() { printf '%s\n' "$(cache_dir)/debian-$DEBIAN_WITH_PYTHON-python.tar"; }

# A root file system as a tar, made once; whoever comes second waits and finds it done.
make_debian_with_python() {
  local file root log
  file=$(debian_tar)
  root=${file%.tar}
  log=$root.log
  have debootstrap || [ -f "$file" ] || give_up 1 \
    "the image is built with debootstrap, which is not here." \
    "Install debootstrap, or name an image like python:3.13-slim: KOPIWATCH_TEST_PYTHON_IMAGE=…"
  (
    flock 9
    [ ! -f "$file" ] || exit 0
    note "making a small Debian with Python for the test image; takes about a minute, once"
    rm -rf --one-file-system "$root" # of somebody who was interrupted
    debootstrap --variant=minbase --include=python3,python3-venv "$DEBIAN_WITH_PYTHON" "$root" \
      </dev/null >"$log" 2>&1 || {
      tail -n 15 "$log" >&2
      exit 1
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar --create --numeric-owner --one-file-system --directory "$root" --file "$file.part" . &&
      mv "$file.part" "$file" || exit 1
    rm -rf --one-file-system "$root" "$log"
  ) 9>"$file.lock" || give_up 1 "debootstrap could not make a Debian $DEBIAN_WITH_PYTHON."
}

# collect_wheels FOLDER: everything that the Dockerfile installs, for the image's Python.
collect_wheels() {
  local machine options
  machine=$(uname -m)
  options=(--dest "$1" --quiet --python-version 3.13 --implementation cp --abi cp313 --abi abi3
    --abi none --only-binary=:all: --platform "manylinux2014_$machine" --platform "linux_$machine")
  for glibc in 17 24 27 28 31 34 36 39; do options+=(--platform "manylinux_2_${glibc}_$machine"); done
  "$UV" export --quiet --frozen --no-dev --no-emit-project --output-file "$1.txt"
  pip_of_uv download "${options[@]}" --no-deps --require-hashes --requirement "$1.txt"
  pip_of_uv download "${options[@]}" --no-deps --require-hashes --requirement tools/image/requirements.txt
}

pip_of_uv() { "$UV" run --quiet --no-project --with pip python -m pip --disable-pip-version-check "$@"; }

# Images of older states of the checkout; what a container uses, Docker keeps.
remove_old_images() {
  local reference created
  docker images --format '{{.Repository}}:{{.Tag}}' | grep -E "^kopiwatch-test/(kopiwatch|build|python|kopia):" |
    while read -r reference; do
      case " $* $TEST_PYTHON_IMAGE:$DEBIAN_WITH_PYTHON " in *" $reference "*) continue ;; esac
      created=$(date --date "$(docker inspect --format '{{.Created}}' "$reference")" +%s)
      [ $(($(date +%s) - created)) -lt $((TEST_IMAGES_KEPT_DAYS * 86400)) ] ||
        docker rmi "$reference" >/dev/null 2>&1 || true
    done
}
