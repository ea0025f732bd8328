#!/bin/bash
# images.sh OUT PROGRAMS : image archives for the nodes into OUT, from the static programs in the directory PROGRAMS.
#
# server and operator are the final stages of the real Dockerfile: `--build-context build=…` takes the place of its builder
# stage, so that users and tests run the same image, and nothing is fetched. A tag `<version>-next` of the same server is
# what a changed image looks like to the operator. No daemon, no registry; a second altogether.
set -euo pipefail; cd "$(dirname "$0")"; . ./lib.sh
out=$(realpath -m "$1") programs=$(realpath "$2") root=$(realpath ../..)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
mkdir -p "$out"; t=$(mktemp -d /tmp/redfleet-images.XXXXXX); trap 'rm -rf "$t"' EXIT
store="--storage-driver vfs --root $t/root --runroot $t/run"

# image STAGE FILE CONTEXT REFERENCE… : builds one stage and writes one archive that holds it under every reference.
image() {
  local stage=$1 file=$2 context=$3 reference; shift 3
  buildah $store bud -q --isolation chroot --build-context "build=$t/build" --target "$stage" -f "$file" -t "$1" "$context" >"$t/log" 2>&1 ||
    { cat "$t/log" >&2; die "building the image $stage failed"; }
  for reference; do
    buildah $store push -q "$1" "oci-archive:$out/$(basename "${reference%:*}")-${reference##*:}.tar:$reference" >"$t/log" 2>&1 ||
      { cat "$t/log" >&2; die "writing the image $reference failed"; }
  done
}

# The tools of test pods: busybox (its wget does not work: static glibc) and Debian's redis-cli with its libraries.
client_root() {
  local d=$t/client lib; mkdir -p "$d"/{bin,tmp,etc,usr/local/bin}; chmod 1777 "$d/tmp"
  cp /bin/busybox "$d/bin/"; for a in $(/bin/busybox --list | grep -vx busybox); do ln -s busybox "$d/bin/$a"; done
  cp -L /usr/bin/redis-cli "$d/usr/local/bin/"
  for lib in $(ldd /usr/bin/redis-cli | grep -o '/[^ ]*'); do install -D "$(realpath "$lib")" "$d$lib"; done
  echo 'client:x:65532:65532::/tmp:/bin/sh' >"$d/etc/passwd"
}

mkdir -p "$t/build/out" "$t/pause"
strip -o "$t/pause/pause" "$programs/pause"
image pause pause.Dockerfile "$t/pause" redfleet.dev/pause:1
client_root
image client client.Dockerfile "$t/client" redfleet.dev/client:1
for p in server operator; do
  strip -o "$t/build/out/redfleet-$p" "$programs/redfleet-$p"
  references=redfleet.dev/$p:$version; [ $p = server ] && references="$references redfleet.dev/$p:$version-next"
  image $p "$root/Dockerfile" "$t/build" $references
done
