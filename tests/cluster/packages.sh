#!/bin/bash
# packages.sh [cluster|tests] : installs the Debian packages that the cluster (or all tests) needs, if any is missing.
# The clusters need only these; Rust and Go are the user's own (README).
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh
cluster="containerd runc containernetworking-plugins buildah iptables nftables iproute2 kmod procps util-linux openssl curl
  ca-certificates busybox-static redis-tools gcc libc6-dev make binutils"
tests="$cluster git redis-server python3"
wanted=$cluster; [ "${1:-cluster}" = tests ] && wanted=$tests

missing=
for p in $wanted; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"; done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || die "these programs are needed and this is no Debian:$missing"
[ "$(id -u)" = 0 ] || die "packages are missing:$missing; install them, or run this as root"
say "installing packages:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp); trap 'rm -f "$log"' EXIT
{ apt-get -q update && apt-get -q -y --no-install-recommends install $missing; } >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; die "apt-get failed"; }
say "packages installed"
