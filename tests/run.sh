#!/bin/bash
# run.sh : every test, lowest tier first (docs/testing.md): all that needs no cluster, then against an API server, then on
# three nodes. Ends at the first tier that fails. With KUBECONFIG set the last two run against that cluster.
set -euo pipefail; shopt -s inherit_errexit; cd "$(dirname "$0")/.."; . tests/cluster/lib.sh
cargo_static
tests/cluster/packages.sh tests
[ ! -x tests/peers.sh ] || tests/peers.sh

say "tier 1: functions, golden scripts, processes, real peers"
cargo build --locked -q -p redfleet-server -p redfleet-operator -p redfleet-tests --bins
cargo test --locked -q --workspace --no-fail-fast

say "tier 2: API server"
tests/cluster/with-cluster.sh --api-only cargo test -q --no-fail-fast -p redfleet-tests --test 'api_*' -- --ignored

say "tier 3: three nodes"
tests/cluster/with-cluster.sh cargo test --no-fail-fast -p redfleet-tests --test 'e2e_*' -- --ignored --test-threads=1 --nocapture
say "all tests passed"
