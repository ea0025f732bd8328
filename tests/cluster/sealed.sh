#!/bin/bash
# sealed.sh CMD… : a cluster of its own and CMD beside it, in one private network, mount and PID namespace: nothing of the
# machine is touched and everything dies with this process. $REDFLEET_CLUSTER/images must hold the image archives.
# No way out of the sealed network: build first, run here.
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh; need_root
scripts=$PWD

# Runs as process 1 of the sealed namespaces.
inside() {
  scripts=$1 outer=$2; local from=$3; shift 3             # the first two are for the trap, after this function
  ip link set lo up; mount -t tmpfs tmpfs /run; mkdir -p /run/netns
  finish() {
    rc=$?; trap - EXIT INT TERM; "$scripts/collect.sh" $rc
    if [ $rc != 0 ] && [ -n "${REDFLEET_KEEP:-}" ]; then
      echo "redfleet: the cluster stays until Enter. A shell inside:" >&2
      echo "  nsenter -t \$(pgrep -P $outer) -n -m -p env KUBECONFIG=$KUBECONFIG REDFLEET_CLUSTER=$REDFLEET_CLUSTER REDFLEET_TOOLS=$REDFLEET_TOOLS PATH=$PATH bash" >&2
      read -r || true
    fi
    "$scripts/down.sh" || true; exit $rc
  }
  export KUBECONFIG=$REDFLEET_CLUSTER/pki/admin.kubeconfig PATH=$REDFLEET_TOOLS:$PATH
  trap finish EXIT; trap 'exit 130' INT TERM
  "$scripts/up.sh"; cd "$from"; "$@"
}

exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
  bash -euo pipefail -c "$(declare -f inside); inside \"\$@\"" sealed "$scripts" $$ "${REDFLEET_FROM:-$PWD}" "$@"
