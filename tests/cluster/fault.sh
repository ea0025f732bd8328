#!/bin/bash
# fault.sh FAULT ARGUMENTS… : breaks one thing of the cluster in $REDFLEET_CLUSTER, or mends it. Returns when it is done.
#
#   node-off N              power gone: no process of the node says goodbye, nothing answers
#   node-boot N             power back: its pods are restarted in place, volumes kept, addresses new
#   node-freeze N           all its processes stand still, clocks run on        node-thaw N
#   cable-out N             the node's network cable is pulled                  cable-in N
#   drop FROM TO            packets from address FROM to pod address TO vanish, one way, established connections too
#   heal                    takes back every drop
#   signal UID SIGNAL [NAME]  to the processes of the pod with this UID (only those called NAME, if given); KILL STOP CONT …
#   api-down | api-up       the API server, killed and started again on the same etcd
#   kubelet-down N          the kubelet dies, containers live on                kubelet-up N
#   mend                    undoes all of the above and waits for Ready nodes
#   service-route           (no fault) routes ClusterIPs from the machine through the first node that is up
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh; . ./env.sh

is_up() { [ -e "$(node_dir "$1")/ready" ]; }
need_node() { case " $NODES " in *" ${1:-none} "*) ;; *) die "no node '${1:-}'; the nodes are: $NODES" ;; esac; }

# The node that pods of an address live on: 10.244.N.x
node_of_pod() { case $1 in "$PODS".*) echo "$1" | cut -d. -f3 ;; *) die "$1 is no pod address ($PODS.N.x)" ;; esac; }

service_route() {
  local n
  for n in $NODES; do is_up "$n" && { ip route replace $SERVICES via $NET.1$n; return; }; done
  ip route del $SERVICES 2>/dev/null || true
}

signal() { # the pause process of the pod is left alone: it stands for the pod's network, not for the program
  local pid name hit=
  for pid in $(cgroup_pod_pids "$1"); do
    name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
    if [ "$name" = pause ] || { [ -n "${3:-}" ] && [ "$name" != "${3:0:15}" ]; }; then continue; fi
    kill "-$2" "$pid" && hit=yes
  done
  [ -n "$hit" ] || die "the pod $1 has no process ${3:-} on any node here"
}

drop() {
  local n; n=$(node_of_pod "$2")
  ./node.sh in "$n" nft -f - <<N
add table inet redfleet_fault
add chain inet redfleet_fault cut { type filter hook forward priority -10; }
add rule inet redfleet_fault cut ip saddr $1 ip daddr $2 drop
N
}

heal() {
  local n
  for n in $NODES; do is_up "$n" && ./node.sh in "$n" sh -c 'nft delete table inet redfleet_fault 2>/dev/null || true'; done; true
}

nodes_ready() { [ "$(kubectl get nodes --no-headers | grep -c ' Ready')" = "$(echo $NODES | wc -w)" ]; }

api_answers() { curl -sk --max-time 5 "https://$NET.1:6443/readyz" | grep -q '^ok'; }

mend() {
  local n
  # Only one that was stopped is started: one that answers late on a busy machine would lose its watches for nothing.
  [ -e "$LOGS/apiserver.pid" ] || ./cp.sh api-up
  until_true 60 "the API server" api_answers
  for n in $NODES; do
    if ! is_up "$n"; then ./node.sh boot "$n"; continue; fi
    cgroup_thaw "$n"; ip link set "redfleetv$n" up
    [ -e "$LOGS/node$n-kubelet.pid" ] || ./node.sh kubelet "$n"
  done
  service_route; heal; until_true 60 "Ready nodes" nodes_ready
}

case ${1:-} in
node-off) need_node "${2:-}"; ./node.sh off "$2"; service_route ;;
node-boot) need_node "${2:-}"; is_up "$2" || { ./node.sh boot "$2"; service_route; } ;;
node-freeze) need_node "${2:-}"; cgroup_freeze "$2" ;;
node-thaw) need_node "${2:-}"; cgroup_thaw "$2" ;;
cable-out) need_node "${2:-}"; ip link set "redfleetv$2" down ;;
cable-in) need_node "${2:-}"; ip link set "redfleetv$2" up ;;
drop) drop "$2" "$3" ;;
heal) heal ;;
signal) signal "$2" "$3" "${4:-}" ;;
api-down) ./cp.sh api-down ;;
api-up) ./cp.sh api-up ;;
kubelet-down) need_node "${2:-}"; stop "node$2-kubelet" ;;
kubelet-up) need_node "${2:-}"; ./node.sh kubelet "$2" ;;
mend) mend ;;
service-route) service_route ;;
*) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
