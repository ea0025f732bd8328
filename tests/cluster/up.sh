#!/bin/bash
# up.sh : the whole cluster from nothing, from the image archives in $REDFLEET_CLUSTER/images.
# Ready means: nodes Ready, DNS answering, volumes of the default StorageClass `disk` being provisioned.
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh; . ./env.sh; need_root
all_ready() { [ "$(kubectl get nodes --no-headers | grep -c ' Ready')" = "$(echo $NODES | wc -w)" ]; }

./pki.sh; ./node.sh bridge-up
./cp.sh up & waits=$!
for n in $NODES; do ./node.sh boot $n & waits="$waits $!"; done
for p in $waits; do wait $p; done
sed "s#@NET@#$NET#g; s#@PKI@#$PKI#g" Corefile.in >"$REDFLEET_CLUSTER/Corefile"
start coredns coredns -conf "$REDFLEET_CLUSTER/Corefile"
kubectl apply --server-side -f storageclass.yaml >/dev/null
start provisioner "$REDFLEET_BIN/redfleet-provisioner" --disks "$REDFLEET_CLUSTER/{node}/var/lib/redfleet-disks" --mount-root /var/lib/redfleet-disks
./fault.sh service-route
until_true 60 "3 Ready nodes" all_ready
until_true 20 "DNS" curl -s --max-time 1 -f http://$NET.1:8181/ready
say "cluster ready: $(kubectl get nodes --no-headers -L topology.kubernetes.io/zone | awk '{ printf "%s %s, ", $1, $6 }')$(kubectl version -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p' | tail -n 1)"
