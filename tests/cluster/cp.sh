#!/bin/bash
# cp.sh up | down | api-up | api-down : the control plane, on the machine's side of the bridge.
set -euo pipefail; . "$(dirname "$0")/env.sh"
ETCD=http://127.0.0.1:22379
as() { printf -- '--kubeconfig=%s --authentication-kubeconfig=%s --authorization-kubeconfig=%s' "$PKI/$1.kubeconfig" "$PKI/$1.kubeconfig" "$PKI/$1.kubeconfig"; }
api_ready() { curl -sk --max-time 5 "https://$NET.1:6443/readyz" | grep -q '^ok'; }

api_up() {
  start apiserver kube-apiserver --etcd-servers=$ETCD \
    --bind-address=$NET.1 --advertise-address=$NET.1 --secure-port=6443 \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-cluster-ip-range=$SERVICES --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --enable-aggregator-routing=true --allow-privileged=true --profiling=false
  until_true 60 "the API server" api_ready || { tail -n 5 "$LOGS/apiserver.log" >&2; exit 1; }
}

case $1 in
up)
  start etcd etcd --data-dir="$REDFLEET_CLUSTER/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=$ETCD --advertise-client-urls=$ETCD --listen-peer-urls=http://127.0.0.1:0
  api_up
  start kcm kube-controller-manager $(as kcm) --bind-address=127.0.0.1 --leader-elect=false --profiling=false \
    --use-service-account-credentials=true --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --allocate-node-cidrs=false --node-monitor-period=1s --node-monitor-grace-period=12s --pvclaimbinder-sync-period=2s \
    --controllers='*,-bootstrap-signer-controller,-token-cleaner-controller'
  start scheduler kube-scheduler $(as scheduler) --bind-address=127.0.0.1 --leader-elect=false --profiling=false ;;
api-up) api_up ;;
api-down) stop apiserver ;;          # killed, not asked: a graceful one first waits for its watchers
down) for c in scheduler kcm apiserver etcd; do stop $c; done ;;
*) echo "usage: $0 up | down | api-up | api-down" >&2; exit 2 ;;
esac
