#!/bin/bash
# demo.sh up | env | status | down : Redfleet on a three-node Kubernetes of this machine (`make demo`, `make demo-env` …).
# State is in .demo of the checkout. With KUBECONFIG set, `up` installs into that cluster instead; the images must be where
# its nodes can pull them: REDFLEET_OPERATOR_IMAGE and REDFLEET_SERVER_IMAGE name them (docs/testing.md).
set -euo pipefail; shopt -s inherit_errexit; cd "$(dirname "$0")"; . ./lib.sh
root=$(realpath ../..) state=$(realpath ../..)/.demo
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
operator=${REDFLEET_OPERATOR_IMAGE:-redfleet.dev/operator:$version} server=${REDFLEET_SERVER_IMAGE:-redfleet.dev/server:$version}
profile=${REDFLEET_PROFILE:-release}              # dev: what `make test` builds
NAMESPACE=redfleet-system
READY_WITHIN=180                                  # seconds from the apply until the set must be Ready

local_cluster() { [ -z "${foreign:-}" ]; }
is_up() { [ -e "$state/up" ] && curl -sk --max-time 2 https://10.55.0.1:6443/readyz | grep -q '^ok'; }

cluster_up() {
  need_root
  [ ! -e "$state/up" ] || is_up || { say "the demo cluster is not running any more (reboot?): starting anew"; down; }
  ./packages.sh cluster
  REDFLEET_TOOLS=$(./build.sh); export REDFLEET_TOOLS
  export REDFLEET_CLUSTER=$state KUBECONFIG=$state/pki/admin.kubeconfig PATH=$REDFLEET_TOOLS:$PATH
  if is_up; then say "the demo cluster is up already"; return; fi
  say "building the server and the operator ($profile)"
  REDFLEET_BIN=$(./programs.sh "$profile"); export REDFLEET_BIN
  mkdir -p "$state/bin"; cp "$REDFLEET_BIN/redfleet-provisioner" "$state/bin/"      # a later build must not pull it away
  say "building the images"; ./images.sh "$state/images" "$REDFLEET_BIN"
  say "starting Kubernetes: three nodes, three zones"
  REDFLEET_BIN=$state/bin ./up.sh
  echo "REDFLEET_TOOLS=$REDFLEET_TOOLS" >"$state/up"
}

install_chart() {
  say "installing the charts redfleet-crds and redfleet"
  helm upgrade --install redfleet-crds "$root/charts/redfleet-crds" -n $NAMESPACE --create-namespace >/dev/null
  helm upgrade --install redfleet "$root/charts/redfleet" -n $NAMESPACE --wait --timeout 120s \
    --set "image.repository=${operator%:*},image.tag=${operator##*:},serverImage.repository=${server%:*},serverImage.tag=${server##*:}" >/dev/null ||
    { kubectl -n $NAMESPACE get pods,events >&2; die "the operator did not become ready"; }
  say "the operator is ready"
}

# Prints a line whenever what the set says of itself changes, until it is Ready.
watch_until_ready() {
  local set=$1 line last= deadline=$((SECONDS + READY_WITHIN))
  while [ $SECONDS -lt $deadline ]; do
    line=$(kubectl get rrs "$set" --no-headers 2>/dev/null | tr -s ' ') || line=
    [ "$line" = "$last" ] || { say "  $line"; last=$line; }
    kubectl wait rrs "$set" --for=condition=Ready --timeout=1s >/dev/null 2>&1 && { say "$set is Ready"; return; }
  done
  kubectl get rrs "$set" -o yaml | sed -n '/^status:/,$p' >&2; kubectl get pods >&2
  die "$set did not become Ready within $READY_WITHIN s"
}

up() {
  case ${KUBECONFIG:-} in "" | "$state"/*) ;; *) foreign=yes ;; esac
  if local_cluster; then cluster_up; else
    if ! command -v helm >/dev/null || ! command -v kubectl >/dev/null; then REDFLEET_TOOLS=$(./build.sh); PATH=$REDFLEET_TOOLS:$PATH; fi
    say "using the cluster of KUBECONFIG=$KUBECONFIG, images $operator and $server"
  fi
  install_chart
  local example=$root/examples/quickstart.yaml set
  say "kubectl apply -f examples/quickstart.yaml"
  kubectl apply -f "$example" >/dev/null
  set=$(kubectl get -f "$example" -o jsonpath='{range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}{.kind}/{.metadata.name}{"\n"}' | sed -n 's|^RedisReplicaSet/||p' | head -n 1)
  watch_until_ready "$set"
  kubectl get rrs "$set"; kubectl get pods -o wide -l "app.kubernetes.io/instance=$set"
  next "$set"
}

next() {
  local set=$1 secret
  secret=$(kubectl get rrs "$set" -o jsonpath='{.spec.auth.clientSecretName}'); secret=${secret:-$set-client}
  echo; echo "Next:"; echo
  local_cluster && echo '  eval "$(make -s demo-env)"                 # kubectl, helm and KUBECONFIG for this shell'
  cat <<T
  kubectl get rrs -w                         # who is master, who follows
  export REDISCLI_AUTH=\$(kubectl get secret $secret -o jsonpath='{.data.password}' | base64 -d)
T
  if local_cluster; then cat <<T
  redis-cli -h \$(kubectl get service $set -o jsonpath='{.spec.clusterIP}') set greeting hello
  redis-cli -h \$(kubectl get service $set-replicas -o jsonpath='{.spec.clusterIP}') get greeting
  tests/cluster/demo.sh fault node-off 1     # pull the plug of a node …
  tests/cluster/demo.sh fault node-boot 1    # … and put it back
  make demo-down                             # everything away
T
  else cat <<T
  kubectl port-forward service/$set 6379 &   # then: redis-cli set greeting hello
T
  fi
}

# Unset variables of a cluster that is not up would send kubectl somewhere else: say so instead.
environment() {
  is_up || die "there is no demo cluster; make demo starts one"
  . "$state/up"
  printf 'export KUBECONFIG=%q\nexport PATH=%q:$PATH\nexport REDFLEET_CLUSTER=%q REDFLEET_TOOLS=%q\n' "$state/pki/admin.kubeconfig" "$REDFLEET_TOOLS" "$state" "$REDFLEET_TOOLS"
}

down() {
  [ -d "$state" ] || { say "there is no demo cluster"; return; }
  need_root
  REDFLEET_TOOLS=$(./build.sh --print) REDFLEET_CLUSTER=$state ./down.sh
  rm -rf "$state"; say "the demo cluster and its data are gone"
}

case ${1:-} in
up) up ;;
env) environment ;;
status) eval "$(environment)"; kubectl get nodes -L topology.kubernetes.io/zone; echo; kubectl get rrs -A; echo; kubectl get pods -A -o wide ;;
fault) shift; eval "$(environment)"; ./fault.sh "$@" ;;
down) down ;;
*) sed -n '2s/^# /usage: /p' "$0" >&2; exit 2 ;;
esac
