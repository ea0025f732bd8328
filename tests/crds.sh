#!/bin/bash
# crds.sh : writes the files generated from the API's Rust types; `cargo test -p redfleet-operator` proves them fresh.
set -euo pipefail; cd "$(dirname "$0")/.."; . tests/cluster/lib.sh; cargo_static
crd() { cargo run --locked -q -p redfleet-operator -- crd --form "$1" >"$2.new" && mv "$2.new" "$2"; }
crd plain crds/redisreplicasets.yaml
crd chart charts/redfleet-crds/templates/redisreplicasets.yaml
crd reference docs/crd.md
