#!/bin/bash
# lint.sh : formatting and lints of the whole workspace; every warning is an error.
set -euo pipefail; cd "$(dirname "$0")/.."; . tests/cluster/lib.sh
cargo_static
say "cargo fmt --check"; cargo fmt --all --check
say "cargo clippy"; cargo clippy --locked -q --workspace --all-targets -- -D warnings
if command -v shellcheck >/dev/null; then say "shellcheck"; shellcheck -S error -x tests/*.sh tests/cluster/*.sh .ci/run; fi
say "lints passed"
