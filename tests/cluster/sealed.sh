#!/bin/bash
# sealed.sh CMD… : a cluster of its own and CMD beside it, in one private network, mount and PID namespace: nothing of the
# machine is touched and everything dies with this process. $REDFLEET_CLUSTER/images must hold the image archives.
# No way out of the sealed network: build first, run here.
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh; need_root
scripts=$PWD
exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private bash -euo pipefail -c '
  scripts=$1 from=$2; shift 2
  ip link set lo up; mount -t tmpfs tmpfs /run; mkdir -p /run/netns
  finish() { rc=$?; trap - EXIT; "$scripts/collect.sh" $rc; "$scripts/down.sh" || true; exit $rc; }
  trap finish EXIT; trap "exit 130" INT TERM
  "$scripts/up.sh"
  cd "$from"; KUBECONFIG=$REDFLEET_CLUSTER/pki/admin.kubeconfig PATH=$REDFLEET_TOOLS:$PATH "$@"
' sealed "$scripts" "${REDFLEET_FROM:-$PWD}" "$@"
