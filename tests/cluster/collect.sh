#!/bin/bash
# collect.sh RC : after a failure, what is needed to understand it, into $REDFLEET_EVIDENCE (default target/cluster-logs/<cluster>).
set -uo pipefail; cd "$(dirname "$0")"; . ./lib.sh; . ./env.sh
[ "${1:-1}" != 0 ] || exit 0
out=${REDFLEET_EVIDENCE:-$PWD/../../target/cluster-logs/$(basename "$REDFLEET_CLUSTER")}; mkdir -p "$out/pods"
cp -r "$LOGS" "$out/" 2>/dev/null
for n in $NODES; do cp -r "$(node_dir "$n")/var/log/pods/." "$out/pods/" 2>/dev/null; done
timeout 10 kubectl get events -A --sort-by=.lastTimestamp >"$out/events.txt" 2>&1
for kind in pods,statefulsets,pvc,pv,services,endpointslices,nodes,leases redisreplicasets; do
  timeout 10 kubectl get -A -o yaml $kind >"$out/${kind%%,*}.yaml" 2>/dev/null || rm -f "$out/${kind%%,*}.yaml"
done
say "logs and objects of the failed run: $(realpath "$out")"
