# Sourced by the scripts of this directory: progress lines and checks. Defines nothing about a cluster (that is env.sh).

# say TEXT : one progress line on stderr, with the seconds since the first script of this run began.
: "${REDFLEET_STARTED:=$(date +%s.%N)}"; export REDFLEET_STARTED
say() { printf '%s\n' "$*" | awk -v now="$(date +%s.%N)" -v start="$REDFLEET_STARTED" '{ printf "[%6.1f s] %s\n", now - start, $0 }' >&2; }

# die TEXT : the error and its cure, then out.
die() { printf 'redfleet: %s\n' "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "$(basename "$0") makes namespaces, mounts and network devices: run it as root"; }

# The programs of other projects (Kubernetes, etcd, Helm, CoreDNS) live outside the checkout and are built once.
cache_root() { printf '%s' "${REDFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/redfleet}"; }

# cargo_static : from here on cargo builds static programs (no shared library, fit for an empty image), in
# target/<triple>. `make` and the cluster scripts use this one setting for lints, tests and images, so that a dependency
# is compiled once. Without --target the flag would reach procedural macros too, which cannot be static.
# Our own crates are compiled by clippy's driver, which is the compiler with lints: so a lint needs no build of its own.
cargo_static() {
  if command -v clippy-driver >/dev/null; then export RUSTC_WORKSPACE_WRAPPER=clippy-driver; fi
  CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p'); export CARGO_BUILD_TARGET
  export "CARGO_TARGET_$(printf '%s' "$CARGO_BUILD_TARGET" | tr a-z- A-Z_)_RUSTFLAGS=-C target-feature=+crt-static"
}

# image_values PREFIX IMAGE : arguments of helm that set PREFIX.repository and PREFIX.tag. A tag is what follows a colon behind
# the last slash (the colon of host:5000/name is a port's); a digest stands where the chart puts the tag.
image_values() {
  local repository=${2%:*} tag=${2##*:}
  case $tag in */* | "$2") repository=$2 tag=latest ;; esac
  printf '%s\n' --set-string "$1.repository=$repository,$1.tag=$tag"
}
