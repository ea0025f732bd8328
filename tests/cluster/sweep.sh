#!/bin/bash
# sweep.sh [DIRECTORY] : removes what sealed clusters left behind that were killed (empty cgroups and files; their processes,
# mounts and devices died with them). Without argument: of every cluster whose lock nobody holds.
set -uo pipefail; cd "$(dirname "$0")"; . ./cgroup.sh

sweep() {
  local d=$1 n; CGROUP=redfleet-$(basename "$d" | tr -d .)
  for n in 1 2 3; do cgroup_remove_node $n; done
  cgroup_remove_all; rm -rf "$d" "$d.lock"
}
if [ -n "${1:-}" ]; then sweep "$1"; exit 0; fi
for lock in /tmp/redfleet.??????.lock; do
  [ -e "$lock" ] || continue
  ( if flock -n 8; then sweep "${lock%.lock}"; fi ) 8<"$lock"      # held: that cluster lives
done
