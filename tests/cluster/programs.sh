#!/bin/bash
# programs.sh dev|release : builds our static programs and prints the directory they are in.
set -euo pipefail; cd "$(dirname "$0")/../.."; . tests/cluster/lib.sh
cargo_static
cargo build --locked -q --profile "$1" -p redfleet-server -p redfleet-operator -p redfleet-tests --bins
dir=$1; [ "$1" = dev ] && dir=debug
realpath "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/$dir"
