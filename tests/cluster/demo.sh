#!/bin/bash
# demo.sh up | env | status | down : Redfleet on a three-node Kubernetes of this machine (`make demo`, `make demo-env` …).
# State is in .demo of the checkout. With KUBECONFIG set, `up` installs into that cluster instead, and `down` removes what `up`
# installed there, and nothing else; the images must be where its nodes can pull them: REDFLEET_OPERATOR_IMAGE and
# REDFLEET_SERVER_IMAGE name them (README.md).
set -euo pipefail; shopt -s inherit_errexit; cd "$(dirname "$0")"; . ./lib.sh
root=$(realpath ../..) state=$(realpath ../..)/.demo
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
operator=${REDFLEET_OPERATOR_IMAGE:-redfleet.dev/operator:$version} server=${REDFLEET_SERVER_IMAGE:-redfleet.dev/server:$version}
profile=${REDFLEET_PROFILE:-release}              # dev: what `make test` builds
NAMESPACE=redfleet-system
READY_WITHIN=180                                  # seconds from the apply until the set must be Ready
GONE_WITHIN=120                                   # seconds from its deletion until its pods must be gone
LABEL=made-by=redfleet-demo                       # of the releases, so that `down` knows them
example=$root/examples/quickstart.yaml
set=$(sed -n 's/^  name: //p' "$example")
members=app.kubernetes.io/name=redfleet-server,app.kubernetes.io/instance=$set

local_cluster() { case ${KUBECONFIG:-} in "" | "$state"/*) ;; *) false ;; esac; }
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

# kubectl and helm for the cluster of KUBECONFIG: its user's own, where there are both.
foreign_tools() {
  if command -v helm >/dev/null && command -v kubectl >/dev/null; then return; fi
  REDFLEET_TOOLS=$(./build.sh); PATH=$REDFLEET_TOOLS:$PATH
}

ours_installed() { helm list -a -q -n $NAMESPACE -l $LABEL; }

# Nothing of the cluster's owner may be changed here, and be removed by `down`.
foreign_cluster() {
  [ -n "${REDFLEET_OPERATOR_IMAGE:-}" ] && [ -n "${REDFLEET_SERVER_IMAGE:-}" ] || die "nobody publishes the images yet: push both to \
where the nodes of this cluster can pull them (README.md, \"Install on your cluster\"), and set REDFLEET_OPERATOR_IMAGE and \
REDFLEET_SERVER_IMAGE to their names. Without KUBECONFIG, make demo starts a cluster of its own, which needs neither"
  foreign_tools
  say "using the cluster of KUBECONFIG=$KUBECONFIG, images $operator and $server"
  local installed; installed=$(ours_installed)
  [ -z "$installed" ] || return 0
  if helm status redfleet -n $NAMESPACE >/dev/null 2>&1 || helm status redfleet-crds -n $NAMESPACE >/dev/null 2>&1; then
    die "Redfleet is installed in this cluster already: kubectl apply -f examples/quickstart.yaml makes a set"
  fi
  local found; found=$(kubectl get -f "$example" -o name 2>/dev/null || true; kubectl get pods,persistentvolumeclaims -l "$members" -o name)
  [ -z "$found" ] || die "there is a set $set in this cluster, or what is left of one: "$found
}

install_chart() {
  local images
  mapfile -t images < <(image_values image "$operator"; image_values serverImage "$server")
  say "installing the charts redfleet-crds and redfleet"
  helm upgrade --install redfleet-crds "$root/charts/redfleet-crds" -n $NAMESPACE --create-namespace --labels $LABEL >/dev/null
  helm upgrade --install redfleet "$root/charts/redfleet" -n $NAMESPACE --wait --timeout 120s --labels $LABEL "${images[@]}" >/dev/null ||
    { kubectl -n $NAMESPACE get pods,events >&2; die "the operator did not become ready$(pulled "$operator" REDFLEET_OPERATOR_IMAGE)"; }
  say "the operator is ready"
}

# The end of an error that an image may be the cause of.
pulled() { local_cluster || printf ': can the nodes pull %s (%s)?' "$1" "$2"; }

# Prints a line whenever what the set says of itself changes, until it is Ready.
watch_until_ready() {
  local line last= deadline=$((SECONDS + READY_WITHIN))
  while [ $SECONDS -lt $deadline ]; do
    line=$(kubectl get rrs "$set" --no-headers 2>/dev/null | tr -s ' ') || line=
    [ "$line" = "$last" ] || { say "  $line"; last=$line; }
    kubectl wait rrs "$set" --for=condition=Ready --timeout=1s >/dev/null 2>&1 && { say "$set is Ready"; return; }
  done
  kubectl get rrs "$set" -o yaml | sed -n '/^status:/,$p' >&2; kubectl get pods >&2
  die "$set did not become Ready within $READY_WITHIN s$(pulled "$server" REDFLEET_SERVER_IMAGE)"
}

up() {
  if local_cluster; then cluster_up; else foreign_cluster; fi
  install_chart
  say "kubectl apply -f examples/quickstart.yaml"
  kubectl apply -f "$example" >/dev/null
  watch_until_ready
  kubectl get rrs "$set"; kubectl get pods -o wide -l "$members"
  next
}

next() {
  local secret
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
  make demo-down                             # the set, its data and the operator away
T
  fi
}

# Unset variables of a cluster that is not up would send kubectl somewhere else: say so instead.
environment() {
  is_up || die "there is no demo cluster; make demo starts one"
  . "$state/up"
  printf 'export KUBECONFIG=%q\nexport PATH=%q:$PATH\nexport REDFLEET_CLUSTER=%q REDFLEET_TOOLS=%q\n' "$state/pki/admin.kubeconfig" "$REDFLEET_TOOLS" "$state" "$REDFLEET_TOOLS"
}

# The definition stays: with it would go every set of the cluster, with or without its data.
foreign_down() {
  foreign_tools
  local installed others
  installed=$(ours_installed)
  [ -n "$installed" ] || die "make demo has installed nothing in the cluster of KUBECONFIG=$KUBECONFIG; without KUBECONFIG, demo-down is \
for a cluster of this machine"
  say "removing set $set and its data"
  kubectl delete -f "$example" --ignore-not-found >/dev/null
  kubectl wait --for=delete pods -l "$members" --timeout=${GONE_WITHIN}s >/dev/null
  kubectl delete persistentvolumeclaims -l "$members" >/dev/null
  others=$(kubectl get rrs -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {end}')
  [ -z "$others" ] || die "the operator stays, since there are other sets: $others; helm uninstall ${installed//$'\n'/ } -n $NAMESPACE removes it"
  helm uninstall $installed -n $NAMESPACE >/dev/null
  say "the operator is removed. Left: namespace $NAMESPACE, and the definition (kubectl delete crd redisreplicasets.redfleet.dev)"
}

down() {
  local_cluster || { foreign_down; return; }
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
