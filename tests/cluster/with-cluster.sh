#!/bin/bash
# with-cluster.sh CMD… : runs CMD with a cluster, and takes the cluster away afterwards.
#
#   tests/cluster/with-cluster.sh cargo test --workspace --test e2e -- --ignored --test-threads=3
#
# Sealed, so any number may run side by side (2.5 GB of memory each).
# With KUBECONFIG set CMD simply runs against that cluster. CMD sees:
#   KUBECONFIG           administrator of the cluster          PATH            with kubectl and helm
#   REDFLEET_BIN         our programs, static                  REDFLEET_CLUSTER  state directory, for fault.sh
# and no network but the cluster: what it needs must be built. A CMD that is `cargo test …` is built here first.
# After a failure logs and objects are in target/cluster-logs. REDFLEET_KEEP=1 keeps a failed cluster until Enter.
set -euo pipefail
from=$PWD; cd "$(dirname "$0")"; . ./lib.sh
[ $# -gt 0 ] || { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

cargo_static
if [ "$1" = cargo ] && [ "${2:-}" = test ]; then              # up to "--" are cargo's own arguments
  build=(); for a in "${@:3}"; do [ "$a" = -- ] && break; build+=("$a"); done
  say "building the tests"
  ( cd "$from" && cargo test --no-run -q "${build[@]}" )
fi
if [ -n "${KUBECONFIG:-}" ]; then cd "$from"; exec "$@"; fi

need_root; ./packages.sh cluster
REDFLEET_TOOLS=$(./build.sh)
export REDFLEET_TOOLS REDFLEET_FROM=$from
say "building our programs"; REDFLEET_BIN=$(./programs.sh dev); export REDFLEET_BIN

./sweep.sh
REDFLEET_CLUSTER=$(mktemp -d /tmp/redfleet.XXXXXX); export REDFLEET_CLUSTER
exec 8>"$REDFLEET_CLUSTER.lock"; flock 8                      # held while the cluster lives: sweep.sh leaves it alone
trap './sweep.sh "$REDFLEET_CLUSTER"' EXIT
./images.sh "$REDFLEET_CLUSTER/images" "$REDFLEET_BIN"; say "images built"
rc=0; CARGO_NET_OFFLINE=true ./sealed.sh "$@" || rc=$?
exit $rc
