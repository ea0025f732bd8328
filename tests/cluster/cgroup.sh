# Sourced by env.sh: the cgroups of nodes, for cgroup v1 (one hierarchy per controller) and v2 (one for all).
# The v1 half is what the tests run on; of the v2 half docs/testing.md says what was tried.

cgroup_version() { [ -e /sys/fs/cgroup/cgroup.controllers ] && echo 2 || echo 1; }

# v1: the mounted hierarchies by directory name (cpu memory pids … systemd).
cgroup_hierarchies() { awk '$3 == "cgroup" { n = split($2, a, "/"); print a[n] }' /proc/mounts | sort -u; }

# cgroup_share GROUP : lets the children of a v2 group have controllers, one by one: some machines lack some.
cgroup_share() {
  local f
  for f in cpu memory pids io cpuset hugetlb; do echo "+$f" >"$1/cgroup.subtree_control" 2>/dev/null || true; done
}

# cgroup_create NODE : the node's group, from the machine's side. In v2 a group with controllers for its children must
# hold no process itself, so the node's processes live in its child `init`, see cgroup_settle.
cgroup_create() {
  local h f base
  if [ "$(cgroup_version)" = 2 ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP/node$1/init"
    cgroup_share /sys/fs/cgroup; cgroup_share "/sys/fs/cgroup/$CGROUP"
    return
  fi
  for h in $(cgroup_hierarchies); do
    base=/sys/fs/cgroup/$h/$CGROUP; mkdir -p "$base"
    if [ "$h" = cpuset ]; then
      for f in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"$base/cpuset.$f"; done
      echo 1 >"$base/cgroup.clone_children"
    fi
    mkdir -p "$base/node$1"
  done
}

# cgroup_join NODE PID : puts a process of the machine into the node's group (before it makes its cgroup namespace).
cgroup_join() {
  local h
  if [ "$(cgroup_version)" = 2 ]; then echo "$2" >"/sys/fs/cgroup/$CGROUP/node$1/cgroup.procs"; return; fi
  for h in $(cgroup_hierarchies); do echo "$2" >"/sys/fs/cgroup/$h/$CGROUP/node$1/cgroup.procs"; done
}

# cgroup_settle NODE PID : moves a process into `init` in v2, once the cgroup namespace is made (whose root is the node's
# group, since the process was there) or before it enters that namespace; from then on the node's children have controllers.
cgroup_settle() {
  [ "$(cgroup_version)" = 2 ] || return 0
  echo "$2" >"/sys/fs/cgroup/$CGROUP/node$1/init/cgroup.procs"
  cgroup_share "/sys/fs/cgroup/$CGROUP/node$1"
}

# cgroup_mount VERSION HIERARCHIES : inside the node's namespaces, over a fresh /sys: only the node's own groups are seen.
cgroup_mount() {
  local h o
  if [ "$1" = 2 ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; return; fi
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  for h in $2; do
    mkdir "/sys/fs/cgroup/$h"; o=$h; [ "$h" = systemd ] && o=none,name=systemd
    mount -t cgroup -o "$o" cgroup "/sys/fs/cgroup/$h"
  done
}

# What a process entering a node runs first: joins the node's groups from the inside (in v2 cgroup_settle has done that).
CGROUP_ENTER='[ -e /sys/fs/cgroup/cgroup.controllers ] || for g in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >"$g"; done; exec "$@"'

# cgroup_remove_node NODE : after its processes are gone. Left-over groups of pods would make the next kubelet wait 3 s each.
cgroup_remove_node() {
  local i dirs
  for i in 1 2 3 4 5 6 7 8 9 10; do
    dirs=$(ls -d "/sys/fs/cgroup/$CGROUP/node$1" /sys/fs/cgroup/*/"$CGROUP/node$1" 2>/dev/null) || true
    [ -n "$dirs" ] || return 0
    find $dirs -depth -type d -exec rmdir {} + 2>/dev/null && return 0
    sleep 0.1
  done
}
cgroup_remove_all() { rmdir "/sys/fs/cgroup/$CGROUP" /sys/fs/cgroup/*/"$CGROUP" 2>/dev/null || true; }

# cgroup_freeze NODE | cgroup_thaw NODE : all processes of the node stand still; its network stack goes on.
cgroup_freeze() { cgroup_freezer "$1" 1 FROZEN; }
cgroup_thaw() { cgroup_freezer "$1" 0 THAWED; }
cgroup_freezer() {
  if [ "$(cgroup_version)" = 2 ]; then echo "$2" >"/sys/fs/cgroup/$CGROUP/node$1/cgroup.freeze"
  else echo "$3" >"/sys/fs/cgroup/freezer/$CGROUP/node$1/freezer.state"; fi
}

# cgroup_pod_pids POD_UID : the processes of a pod, its pause process included, as numbers of the calling PID namespace.
cgroup_pod_pids() {
  local root=/sys/fs/cgroup/memory/$CGROUP
  [ "$(cgroup_version)" = 2 ] && root=/sys/fs/cgroup/$CGROUP
  find "$root" -path "*/pod$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -nu
}
