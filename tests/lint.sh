#!/bin/bash
# lint.sh : formatting and lints of the whole workspace; every warning is an error.
set -euo pipefail; cd "$(dirname "$0")/.."; . tests/cluster/lib.sh
cargo_static
command -v clippy-driver >/dev/null || die "clippy is missing: rustup component add clippy rustfmt"
say "cargo fmt --check"; cargo fmt --all --check
say "compiling with clippy"
warnings=$(mktemp); trap 'rm -f "$warnings"' EXIT
# Quiet, cargo prints warnings and errors only; those of crates that are compiled already are printed again.
cargo build --locked -q --workspace --all-targets 2>&1 | tee "$warnings" >&2
[ ! -s "$warnings" ] || die "warnings are errors here"
if command -v shellcheck >/dev/null; then say "shellcheck"; shellcheck -S error -x tests/*.sh tests/cluster/*.sh .ci/run; fi
say "lints passed"
