# shellcheck shell=bash
# The image with real applications that the end-to-end tests back up: the Debian of image.sh and a
# few of its packages. Made with no registry of images, once; its tar stands in the cache.

TEST_APPS_IMAGE=kopiwatch-test/apps
APPS=(postgresql postgresql-contrib mariadb-server redis-server sqlite3 python3-lmdb lmdb-utils)

# prepare_apps: sets and exports KOPIWATCH_TEST_APPS_IMAGE.
prepare_apps() {
  local file image hash
  hash=$(hash_of scripts/lib/apps.sh)
  image=$TEST_APPS_IMAGE:$hash
  file=$(cache_dir)/apps-$hash.tar
  if ! have_image "$image"; then
    [ -f "$file" ] || make_apps "$file"
    docker import --change 'LABEL kopiwatch-test=image' "$file" "$image" >/dev/null
  fi
  remove_old_apps "$file" "$image"
  export KOPIWATCH_TEST_APPS_IMAGE=$image
  note "image of applications $image"
}

# make_apps FILE: whoever comes second waits and finds it done.
make_apps() {
  local file=$1 root=${1%.tar} log=${1%.tar}.log
  is_root || give_up 1 "the image of applications is made in a chroot, which needs root."
  make_debian_with_python
  (
    flock 9
    [ ! -f "$file" ] || exit 0
    note "installing ${APPS[*]} for the end-to-end tests; takes about a minute, once"
    rm -rf --one-file-system "$root" # of somebody who was interrupted
    mkdir "$root"
    if ! { tar --extract --numeric-owner --directory "$root" --file "$(debian_tar)" &&
      install_apps "$root"; } </dev/null >"$log" 2>&1; then
      tail -n 15 "$log" >&2
      exit 1
    fi
    tar --create --numeric-owner --one-file-system --directory "$root" --file "$file.part" . &&
      mv "$file.part" "$file" || exit 1
    rm -rf --one-file-system "$root" "$log"
  ) 9>"$file.lock" || give_up 1 "the packages of the applications could not be installed."
}

# install_apps ROOT: nothing of it is started there, and no database is made: tests make their own.
install_apps() {
  mkdir -p "$1/etc/postgresql-common"
  printf 'create_main_cluster = false\n' >"$1/etc/postgresql-common/createcluster.conf"
  printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
  chmod +x "$1/usr/sbin/policy-rc.d"
  printf 'path-exclude=/usr/share/%s/*\n' doc info locale man >"$1/etc/dpkg/dpkg.cfg.d/small"
  cp /etc/resolv.conf "$1/etc/resolv.conf"
  # The namespace takes /proc away with it, however this ends.
  # shellcheck disable=SC2016 # a program for another shell
  unshare --mount -- /bin/sh -euc 'root=$1; shift
    mount -t proc proc "$root/proc"
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    chroot "$root" apt-get update
    chroot "$root" apt-get install --yes --no-install-recommends \
      --option Dpkg::Options::=--force-confold "$@"' install "$1" "${APPS[@]}"
  rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/* \
    "$1"/var/lib/mysql/* "$1/etc/resolv.conf"
}

# Of older states of the checkout; what a container uses, Docker keeps.
remove_old_apps() {
  local file=$1 image=$2 other
  for other in "${file%/*}"/apps-*.tar; do
    [ "$other" = "$file" ] || [ -n "$(find "$other" -mtime "-$TEST_IMAGES_KEPT_DAYS")" ] ||
      rm -f "$other" "$other.lock"
  done
  docker images --format '{{.Repository}}:{{.Tag}}' "$TEST_APPS_IMAGE" | grep -vxF "$image" |
    xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
}
