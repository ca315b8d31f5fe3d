# shellcheck shell=bash
# The demo's stack: db counts in one volume, web serves from another, both carry kopi.* labels.
# Everything in it carries the label kopiwatch-demo=$NAME, by which it is found and removed.
# It wears Compose's labels without Compose, which may not be installed.

# The reading of a file that the shell does not read: busybox without any link to other libraries.
static_busybox() {
  local program
  install_packages busybox-static || true
  for program in /bin/busybox /usr/bin/busybox.static /bin/busybox.static; do
    # A dynamic program names its loader; a static one names none.
    if [ -x "$program" ] && ! LC_ALL=C grep -qa '/ld-linux\|/ld-musl' "$program"; then
      printf '%s\n' "$program"
      return
    fi
  done
  give_up 1 "the demo's tiny image is made of a static busybox, and there is none here." \
    "Debian and Ubuntu: apt install busybox-static"
}
