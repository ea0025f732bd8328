# Sourced by every script that touches a cluster: names and numbers, and background processes.
#
# One cluster = one state directory, $REDFLEET_CLUSTER: certificates, logs, and a directory per node with all that the
# node keeps over a reboot. Two kinds of cluster, from the same scripts:
#   sealed  everything in one private network, mount and PID namespace (sealed.sh); the tests. Any number side by side.
#   plain   in the machine's own network (bridge redfleet0, 10.55.0.0/24); `make demo`. One per machine.
# Node N has the address 10.55.0.1N and the pods 10.244.N.0/24; the control plane listens on 10.55.0.1. Plain routes, no
# NAT, no overlay: tests reach pods directly and pods reach the machine.
: "${REDFLEET_CLUSTER:?the state directory of the cluster}"
: "${REDFLEET_TOOLS:?the directory of kube-apiserver … kubectl (tests/cluster/build.sh prints it)}"
NODES="1 2 3"
NET=10.55.0
PODS=10.244
SERVICES=10.96.0.0/16
BRIDGE=redfleet0
PKI=$REDFLEET_CLUSTER/pki
LOGS=$REDFLEET_CLUSTER/log
CGROUP=redfleet-$(basename "$REDFLEET_CLUSTER" | tr -d .)   # one per cluster: sealing does not separate cgroups
export KUBECONFIG=$PKI/admin.kubeconfig PATH=$REDFLEET_TOOLS:$PATH:/usr/sbin:/sbin

. "$(dirname "${BASH_SOURCE[0]}")/cgroup.sh"

node_dir() { printf '%s/node%s' "$REDFLEET_CLUSTER" "$1"; }

# start NAME CMD… : a background process in a session of its own, with log and pid file, started again when it ends (as any
# cluster's control plane is: kube-scheduler, for one, exits when it doubts its cache after an outage of the API server).
start() {
  local name=$1; shift; mkdir -p "$LOGS"
  ( exec setsid bash -c 'while :; do "$@"; echo "--- ended with $?, starting again"; sleep 0.3; done' "$name" "$@" \
      >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- ) & echo $! >"$LOGS/$name.pid"
}

# stop NAME : kills the whole process group (a killed nsenter alone would leave its child running in the node) and waits.
stop() {
  local pid; pid=$(cat "$LOGS/$1.pid" 2>/dev/null) || return 0
  kill -9 -- "-$pid" 2>/dev/null || true
  while pgrep -g "$pid" -r D,R,S,T >/dev/null; do sleep 0.05; done
  rm -f "$LOGS/$1.pid"
}

# until_true SECONDS WHAT CMD… : polls CMD; names WHAT when the time is up.
until_true() {
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "redfleet: gave up waiting for $what" >&2; return 1; }
    sleep 0.1
  done
}
