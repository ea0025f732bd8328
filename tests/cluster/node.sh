#!/bin/bash
# node.sh bridge-up | bridge-down | boot N | off N | kubelet N | in N CMD…
# A node = network + mount + UTS + IPC + PID + cgroup namespaces in which Debian's containerd, the kubelet and kube-proxy run
# on their default paths. What it keeps over a reboot (images, volumes, kubelet state) is in $REDFLEET_CLUSTER/nodeN.
# `off` is the pulled power plug: the cable goes first, so that no dying process can say goodbye, then every process at once.
set -euo pipefail; cd "$(dirname "$0")"; . ./env.sh
KEPT="/var/lib/kubelet /var/lib/containerd /var/lib/cni /var/lib/redfleet-disks /var/log/pods /var/log/containers"
join_netns() { nsenter --net="/run/netns/redfleet$1" "${@:2}"; }     # not `ip netns exec`: that hides /sys/fs/cgroup

bridge_up() {
  ip link add $BRIDGE type bridge; ip addr add $NET.1/24 dev $BRIDGE; ip link set $BRIDGE up
  for n in $NODES; do ip route add $PODS.$n.0/24 via $NET.1$n; done
  # Where Docker runs, the machine's firewall sees what a bridge passes on, and drops it.
  forwarding -I
}

bridge_down() { ip link del $BRIDGE 2>/dev/null || true; forwarding -D 2>/dev/null || true; }

forwarding() { iptables -w "$1" FORWARD -i $BRIDGE -o $BRIDGE -j ACCEPT; }

net_up() { # a fresh network namespace per boot: no rule, address or connection survives
  local n=$1 m
  ip netns add redfleet$n
  ip link add redfleetv$n type veth peer name eth0 netns redfleet$n
  # A machine keeps its network card over a reboot; with another address its neighbours would send to the old one for 30 s.
  ip -n redfleet$n link set eth0 address 02:00:00:00:00:0$n
  ip link set redfleetv$n master $BRIDGE up
  ip -n redfleet$n link set lo up; ip -n redfleet$n addr add $NET.1$n/24 dev eth0; ip -n redfleet$n link set eth0 up
  ip -n redfleet$n route add default via $NET.1
  join_netns $n sysctl -qw net.ipv4.ip_forward=1
  for m in $NODES; do [ "$m" = "$n" ] || ip -n redfleet$n route add $PODS.$m.0/24 via $NET.1$m; done
}

net_down() { ip link del redfleetv$1 2>/dev/null || true; ip netns del redfleet$1 2>/dev/null || true; }

power_on() {
  local n=$1 d holder; d=$(node_dir "$1"); mkdir -p "$d"; rm -f "$d/ready"
  net_up "$n"; cgroup_create "$n"
  ( cgroup_join "$n" $BASHPID                                        # join first, then make the cgroup namespace
    exec setsid unshare --cgroup "$PWD/node.sh" power $n
  ) </dev/null >"$d/init.log" 2>&1 9>&- &
  holder=$!
  until_true 10 "node $n" test -e "$d/ready" || { cat "$d/init.log" >&2; exit 1; }
  pgrep -P $holder >"$d/pid"
}

# Runs in the node's cgroup namespace and nothing else of it yet; waits for the node's process 1.
power() {
  cgroup_settle "$1" $$
  exec nsenter --net="/run/netns/redfleet$1" \
    unshare --mount --uts --ipc --pid --fork --kill-child --propagation private "$PWD/node.sh" init "$1"
}

# Runs as process 1 of the node. Overlays on /etc, /var/lib and /var/log keep the machine's own files untouched.
init() {
  local n=$1 d dir version hierarchies; d=$(node_dir "$1"); version=$(cgroup_version); hierarchies=$(cgroup_hierarchies)
  mount -t proc proc /proc
  umount -R -l /sys; mount -t sysfs sysfs /sys                        # this namespace's network devices only
  cgroup_mount "$version" "$hierarchies"
  mount -t tmpfs -o mode=755 tmpfs /run
  for dir in /etc /var/lib /var/log; do
    mkdir -p "/run/overlay$dir/upper" "/run/overlay$dir/work"
    mount -t overlay -o "lowerdir=$dir,upperdir=/run/overlay$dir/upper,workdir=/run/overlay$dir/work" overlay "$dir"
  done
  for dir in $KEPT; do mkdir -p "$d$dir" "$dir"; mount --bind "$d$dir" "$dir"; done
  rm -f /etc/resolv.conf /etc/machine-id /etc/hosts
  printf '%032x\n' $((n + 1000)) >/etc/machine-id
  printf '127.0.0.1 localhost\n%s.1%s node%s\n' $NET "$n" "$n" >/etc/hosts
  echo "nameserver $NET.1" >/etc/resolv.conf
  rm -rf /etc/cni/net.d; mkdir -p /etc/cni/net.d
  sed "s#@N@#$n#g; s#@PODS@#$PODS#g" cni.conflist.in >/etc/cni/net.d/10-redfleet.conflist
  hostname "node$n"
  mount --make-rshared /                                              # last: earlier it would mirror the binds
  touch "$d/ready"; exec sh -c 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'
}

inside() {
  local n=$1; shift
  cgroup_settle "$n" $$
  exec nsenter -t "$(cat "$(node_dir "$n")/pid")" --net --mount --uts --ipc --pid --cgroup -- sh -c "$CGROUP_ENTER" sh "$@"
}

fill() { # template, node
  local total reserved; total=$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)
  reserved=$((total - total / 3))                                     # every node sees the whole machine: each offers a third
  sed "s#@N@#$2#g; s#@PKI@#$PKI#g; s#@NET@#$NET#g; s#@PODS@#$PODS#g; s#@RESERVED@#${reserved}Ki#g" "$1"
}

kubelet() {
  local n=$1 d zone; d=$(node_dir "$1"); zone=zone-$(printf '%s' "$n" | tr 123456789 abcdefghi)
  fill kubelet.yaml.in "$n" >"$d/kubelet.yaml"
  start "node$n-kubelet" ./node.sh in "$n" kubelet --config="$d/kubelet.yaml" --kubeconfig="$PKI/node$n.kubeconfig" \
    --hostname-override="node$n" --node-ip=$NET.1$n --node-labels="topology.kubernetes.io/zone=$zone,topology.kubernetes.io/region=test" --v=1
}

boot() {
  local n=$1 d image; d=$(node_dir "$1")
  power_on "$n"
  start "node$n-containerd" ./node.sh in "$n" containerd -c "$PWD/containerd.toml"
  until_true 20 "containerd of node $n" ./node.sh in "$n" ctr version
  if [ ! -e "$d/loaded" ]; then
    for image in "$REDFLEET_CLUSTER"/images/*.tar; do ./node.sh in "$n" ctr -n k8s.io images import "$image" >/dev/null; done
    touch "$d/loaded"
  fi
  kubelet "$n"
  fill proxy.yaml.in "$n" >"$d/proxy.yaml"
  start "node$n-kube-proxy" ./node.sh in "$n" kube-proxy --config="$d/proxy.yaml" --v=1
}

off() {
  local n=$1 d pid; d=$(node_dir "$1")
  ip link set redfleetv$n down 2>/dev/null || true
  cgroup_thaw "$n" 2>/dev/null || true                                # a frozen process cannot die
  pid=$(cat "$d/pid" 2>/dev/null || echo none); kill -9 "$pid" 2>/dev/null || true
  while [ -d "/proc/$pid" ]; do sleep 0.05; done
  for c in containerd kubelet kube-proxy; do stop "node$n-$c"; done
  net_down "$n"; cgroup_remove_node "$n"; rm -f "$d/ready" "$d/pid"
}

case ${1:-} in
bridge-up) bridge_up ;;
bridge-down) bridge_down ;;
boot) boot "$2" ;;
off) off "$2" ;;
kubelet) kubelet "$2" ;;
power) power "$2" ;;
init) init "$2" ;;
in) shift; inside "$@" ;;
*) sed -n '2s/^# /usage: /p' "$0" >&2; exit 2 ;;
esac
