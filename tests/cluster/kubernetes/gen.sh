#!/bin/bash
# gen.sh KUBERNETES ETCD : writes go.mod and go.sum here for one Kubernetes version, e.g. `gen.sh 1.36.3 v3.6.8`.
# Only needed to change the version; the results are committed. Use the etcd version that the release pins itself.
#
# No Go code of our own: `tool` lines name the programs. k8s.io/kubernetes asks for its staging modules at v0.0.0 and its
# own `replace` lines do not count for dependents, so each staging module is replaced by its published twin.
# A missing one shows as "k8s.io/NAME@v0.0.0: unknown revision v0.0.0": add that name.
set -euo pipefail
cd "$(dirname "$0")"
v=$1 minor=${1#1.} etcd=$2
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap code-generator
  component-base component-helpers controller-manager cri-api cri-client cri-streaming csi-translation-lib
  dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy kube-scheduler
  kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-controller streaming"
rm -f go.mod go.sum
go mod init redfleet.dev/tests/cluster/kubernetes
go mod edit -go=1.26.0
edits=(-require="k8s.io/kubernetes@v$v" -require="go.etcd.io/etcd/server/v3@$etcd" -tool=go.etcd.io/etcd/server/v3)
for m in $staging; do edits+=(-replace="k8s.io/$m=k8s.io/$m@v0.$minor"); done
for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do edits+=(-tool="k8s.io/kubernetes/cmd/$c"); done
go mod edit "${edits[@]}"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go get "k8s.io/kubernetes@v$v"
go list -deps tool >/dev/null                    # fills the indirect requirements and go.sum
