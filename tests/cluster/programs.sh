#!/bin/bash
# programs.sh dev|release : builds our static programs and prints the directory they are in.
set -euo pipefail; cd "$(dirname "$0")/../.."; . tests/cluster/lib.sh
cargo_static
built=${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET
case ${1:-} in
  dev)
    cargo build --locked -q --workspace --all-targets # programs alone would be compiled anew, with other features
    built=$built/debug ;;
  release)                                        # as the Dockerfile does it
    unset RUSTC_WORKSPACE_WRAPPER
    cargo build --locked -q --release -p redfleet-server
    cargo build --locked -q --profile small -p redfleet-operator -p redfleet-tests --bins
    for program in redfleet-operator redfleet-provisioner pause; do ln -f "$built/small/$program" "$built/release/"; done
    built=$built/release ;;
  *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
esac
realpath "$built"
