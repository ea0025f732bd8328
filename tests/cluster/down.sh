#!/bin/bash
# down.sh : everything of the cluster away, its data too. May be run again, and on a cluster that is half up.
set -uo pipefail; cd "$(dirname "$0")"; . ./lib.sh; . ./env.sh; need_root
for n in $NODES; do ./node.sh off "$n"; done
for c in provisioner coredns; do stop $c; done
./cp.sh down; ip route del $SERVICES 2>/dev/null; ./node.sh bridge-down; cgroup_remove_all
[ "${1:-}" = --keep-logs ] || rm -rf "$LOGS"
rm -rf "$REDFLEET_CLUSTER"/node[0-9]* "$REDFLEET_CLUSTER"/{etcd,pki,Corefile,images}
rmdir "$REDFLEET_CLUSTER" 2>/dev/null || true
