# shellcheck shell=bash
# A Docker daemon: the one that answers, else one of our own that leaves nothing behind.

DOCKERD_PID=
DOCKERD_FOLDER=
DOCKERD_START_SECONDS=60
DOCKERD_STOP_SECONDS=60

docker_answers() { have docker && timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# prepare_docker isolated|shared: exports DOCKER_HOST. The word says how much network a daemon of
# our own gets: none but loopback, or the machine's, where no other daemon uses that.
prepare_docker() {
  unset DOCKER_CONTEXT # it would win over DOCKER_HOST
  export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
  if ! docker_answers; then
    refuse_a_denied_socket
    note "no Docker daemon answers at $DOCKER_HOST"
    require_docker_programs
    docker_answers || start_dockerd "$1"
  fi
  note "Docker $(docker version --format '{{.Server.Version}}') at $DOCKER_HOST"
}

# A daemon that is there but closed to us is not a missing one.
refuse_a_denied_socket() {
  local socket=${DOCKER_HOST#unix://}
  [ -S "$socket" ] && [ ! -w "$socket" ] || return 0
  give_up 5 "the Docker socket $socket is there, but $(id -un) may not use it." \
    "Run this as root, or as a member of the socket's group."
}

require_docker_programs() {
  local programs=(docker.io iptables iproute2) program missing=
  for program in docker dockerd containerd iptables ip; do have "$program" || missing=yes; done
  [ -n "$missing" ] || return 0
  is_root || give_up 5 "Docker is needed, and there is none for $(id -un)." \
    "Install and start Docker (docs.docker.com/engine/install), or run this as root on Debian."
  # Newer Debian releases keep the command line client in a package of its own.
  if ! have docker && apt-cache show docker-cli >/dev/null 2>&1; then programs+=(docker-cli); fi
  install_packages "${programs[@]}" || give_up 5 "Docker is needed, and could not be installed here." \
    "Install and start Docker (docs.docker.com/engine/install), then run this again."
  # Where there is a service manager, the package has started the daemon by itself.
  [ -d /run/systemd/system ] || return 0
  for _ in {1..15}; do
    if docker_answers; then return; fi
    sleep 1
  done
}

# Two daemons in one network namespace take each other's bridge away.
other_dockerd_in_our_network() {
  local file process
  for file in /proc/[0-9]*/comm; do
    [ "$(cat "$file" 2>/dev/null)" = dockerd ] || continue
    process=${file%/comm}
    [ "$(readlink "$process/ns/net")" != "$(readlink /proc/self/ns/net)" ] || return 0
  done
  return 1
}

start_dockerd() {
  local isolate=(unshare --net)
  is_root || give_up 5 "no Docker daemon answers, and only root can start one." \
    "Start Docker, or run this as root."
  if [ "$1" = shared ] && ! other_dockerd_in_our_network; then isolate=(); fi
  DOCKERD_FOLDER=$(mktemp -d /var/tmp/kopiwatch-docker.XXXXXX)
  note "starting one just for this, in $DOCKERD_FOLDER${isolate[0]:+, with a network of its own}"
  [ ${#isolate[@]} -gt 0 ] || remember_network
  # A session of its own: Ctrl-C reaches us, and we end the daemon in order.
  setsid "${isolate[@]}" "${BASH_SOURCE[0]%/*}/own-dockerd" "$DOCKERD_FOLDER" \
    </dev/null >"$DOCKERD_FOLDER/log" 2>&1 &
  DOCKERD_PID=$!
  export DOCKER_HOST=unix://$DOCKERD_FOLDER/docker.sock
  wait_for_dockerd
}

# The number alone could by now be somebody else's process.
our_dockerd_runs() {
  { tr '\0' ' ' <"/proc/$DOCKERD_PID/cmdline"; } 2>/dev/null | grep -qF "own-dockerd $DOCKERD_FOLDER "
}

wait_for_dockerd() {
  local since=$SECONDS
  until docker_answers; do
    sleep 0.3
    if ! our_dockerd_runs || [ $((SECONDS - since)) -gt "$DOCKERD_START_SECONDS" ]; then
      tail -n 15 "$DOCKERD_FOLDER/log" >&2
      give_up 5 "the Docker daemon did not start; its last words are above." \
        "Start Docker yourself, and run this again."
    fi
  done
}

# Ends the daemon that we started, if we did, and removes all it made. Nobody else's is touched.
stop_dockerd() {
  local since=$SECONDS
  [ -n "$DOCKERD_PID" ] || return 0
  empty_dockerd
  if our_dockerd_runs; then kill -TERM "$DOCKERD_PID" || true; fi
  while our_dockerd_runs; do
    if [ $((SECONDS - since)) -gt "$DOCKERD_STOP_SECONDS" ]; then
      kill -KILL -- "-$DOCKERD_PID" 2>/dev/null || true # its session is its group
      break
    fi
    sleep 0.2
  done
  DOCKERD_PID=
  unmount_below "$DOCKERD_FOLDER"
  restore_network
  rm -rf --one-file-system "$DOCKERD_FOLDER"
}

# It is ours alone, so all that is in it may go; bridges of its networks would outlive it.
empty_dockerd() {
  local containers
  containers=$(timeout 20 docker ps --all --quiet 2>/dev/null) || return 0
  # shellcheck disable=SC2086 # one word per container
  [ -z "$containers" ] || timeout 60 docker rm --force $containers >/dev/null 2>&1 || true
  timeout 20 docker network prune --force >/dev/null 2>&1 || true
}

unmount_below() {
  local point
  awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    while read -r point; do umount --lazy "$point" || true; done
}

# A daemon in the machine's network leaves its bridge and its firewall rules behind: what was not
# there before it is taken away after it.
remember_network() {
  NETWORK_FORWARD=$(cat /proc/sys/net/ipv4/ip_forward)
  NETWORK_BRIDGE=$(ip link show docker0 2>/dev/null || true)
  NETWORK_RULES=$(iptables-save 2>/dev/null | grep -c '^:DOCKER' || true)
  NETWORK_POLICY=$(iptables -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p')
  NETWORK_REMEMBERED=yes
}

restore_network() {
  [ "${NETWORK_REMEMBERED:-}" = yes ] || return 0
  [ -n "$NETWORK_BRIDGE" ] || ip link delete docker0 2>/dev/null || true
  [ "$NETWORK_RULES" != 0 ] || remove_docker_rules
  [ -z "$NETWORK_POLICY" ] || iptables -P FORWARD "$NETWORK_POLICY" || true
  printf '%s\n' "$NETWORK_FORWARD" >/proc/sys/net/ipv4/ip_forward || true
}

remove_docker_rules() {
  local table rule chain
  for table in filter nat; do
    iptables -t "$table" -S 2>/dev/null | grep -E '^-A .*(DOCKER|docker0|172\.17\.0\.0/16)' |
      while read -ra rule; do iptables -t "$table" -D "${rule[@]:1}" 2>/dev/null || true; done
    for chain in $(iptables -t "$table" -S 2>/dev/null | sed -n 's/^-N \(DOCKER.*\)/\1/p'); do
      iptables -t "$table" -F "$chain" && iptables -t "$table" -X "$chain"
    done
  done 2>/dev/null || true
}
