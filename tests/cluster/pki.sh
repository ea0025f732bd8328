#!/bin/bash
# pki.sh : one CA for everything, ECDSA keys; certificates and kubeconfigs in $REDFLEET_CLUSTER/pki.
set -euo pipefail; . "$(dirname "$0")/env.sh"
mkdir -p "$PKI"; chmod 700 "$PKI"; cd "$PKI"; [ -f done ] && exit 0
DAYS=3650

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

leaf() { # name, subject, extendedKeyUsage, [subjectAltName]
  key "$1"; openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=%s\n%s' "$3" "${4:+subjectAltName=$4}" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days $DAYS -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

# Files are embedded, so that a kubeconfig can be copied anywhere.
conf() { cat >"$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: redfleet
contexts: [{name: redfleet, context: {cluster: redfleet, user: $1}}]
clusters: [{name: redfleet, cluster: {server: "https://$NET.1:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
Y
}

key ca
openssl req -x509 -new -key ca.key -days $DAYS -subj /CN=redfleet-test-ca -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
leaf apiserver /CN=kube-apiserver serverAuth "IP:$NET.1,IP:127.0.0.1,IP:${SERVICES%.0/*}.1,DNS:localhost,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
leaf kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
leaf front-proxy /CN=front-proxy clientAuth
leaf admin /O=system:masters/CN=admin clientAuth; conf admin
leaf kcm /CN=system:kube-controller-manager clientAuth; conf kcm
leaf scheduler /CN=system:kube-scheduler clientAuth; conf scheduler
leaf proxy /CN=system:kube-proxy clientAuth; conf proxy
for n in $NODES; do                              # names the Node authorizer knows
  leaf "node$n" "/O=system:nodes/CN=system:node:node$n" clientAuth; conf "node$n"
  leaf "node$n-serving" "/O=system:nodes/CN=system:node:node$n" serverAuth "IP:$NET.1$n,DNS:node$n"
done
openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
touch done
