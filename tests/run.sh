#!/bin/bash
# run.sh : every test (docs/testing.md): all that needs no cluster, then on three nodes. Ends where something fails.
# With KUBECONFIG set the second half runs against that cluster.
# Always the whole workspace with all targets, as lint.sh: cargo compiles dependencies anew for any other choice, because
# their features differ.
set -euo pipefail; shopt -s inherit_errexit; cd "$(dirname "$0")/.."; . tests/cluster/lib.sh
cargo_static
export RUST_LIB_BACKTRACE=0                      # an error says what it was doing; thirty frames of a runtime bury that
tests/cluster/packages.sh tests
tests/peers.sh "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/debug/peers" >/dev/null
tests/clients.sh "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/debug/clients" >/dev/null
tests/cluster/build.sh >/dev/null                # the API server that some tests start themselves

say "functions, golden scripts, processes, real peers, API server"
cargo build --locked -q --workspace --all-targets
# More at once than there are processors, in two halves side by side: most tests wait for the processes that they started.
# The time that they leave is for those that copy and compare much data. No crate has tests in its documentation: looking
# for them takes as long as compiling it.
bulk=$(mktemp) half=$(mktemp) nodes=$(mktemp); trap 'rm -f "$bulk" "$half" "$nodes"' EXIT
some_tests() { cargo test --locked -q --workspace --no-fail-fast "$@"; }
RUST_TEST_THREADS=3 nice cargo test --locked -q --workspace --test processes -- with_peers:: >"$bulk" 2>&1 & bulk_pid=$!
RUST_TEST_THREADS=6 some_tests --test 'p*' -- --skip with_peers:: >"$half" 2>&1 & half_pid=$!
failed=0
RUST_TEST_THREADS=4 some_tests --lib --bins --test '[!p]*' || failed=$?
say "processes"; wait "$half_pid" || failed=$?; cat "$half"
say "replication with peers"; wait "$bulk_pid" || failed=$?; cat "$bulk"
[ "$failed" = 0 ] || die "tests failed"

say "three nodes"
tests/cluster/with-cluster.sh cargo test --locked --no-fail-fast --workspace --test e2e -- --ignored --test-threads=3 --nocapture 2>&1 |
  tee "$nodes" || { say "what failed:"; grep -A4 -E '^Error: | panicked at |\.\.\. FAILED$' "$nodes" >&2; die "tests on three nodes failed"; }
say "all tests passed"
