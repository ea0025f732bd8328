#!/bin/bash
# Gets the real servers that the tests replicate with: Redis from the machine's own packages, Valkey 8
# from Debian's backports and Valkey 9 from Debian's unstable suite, neither of them installed.
#   tests/peers.sh [FOLDER]        (default: peers/ beside the debug build's programs)
# Result: /usr/bin/redis-server, FOLDER/valkey-server (8), FOLDER/valkey9/valkey-server. Does nothing
# where all are there. Needs root and the package mirror that the machine's apt sources name.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-${CARGO_TARGET_DIR:-$here/target}/debug/peers}
mkdir -p "$folder"; folder=$(cd "$folder" && pwd)
[ -x /usr/bin/redis-server ] || {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends redis-server redis-tools >/dev/null
}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

# suite NAME : a private apt configuration for one suite of the machine's mirror, so that the machine's own
# sources and state stay as they are.
suite() {
  local mirror key
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' | awk '/main$/{print $1; exit}')
  key=$(ls /usr/share/keyrings/debian-archive-keyring.*g* | head -1)
  mkdir -p "$work/$1"/{lists/partial,cache/archives/partial,state}; touch "$work/$1/state/status"
  echo "deb [signed-by=$key] $mirror $1 main" >"$work/$1/sources.list"
  cat >"$work/$1/apt.conf" <<E
Dir::Etc::sourcelist "$work/$1/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$work/$1/state";
Dir::State::Lists "$work/$1/lists";
Dir::State::status "$work/$1/state/status";
Dir::Cache "$work/$1/cache";
APT::Sandbox::User "root";
E
  export APT_CONFIG="$work/$1/apt.conf"
  apt-get update -qq
}
# unpack FOLDER PACKAGE… : the packages' files into FOLDER.
unpack() {
  local to=$1 deb; shift
  mkdir -p "$to" "$work/debs"
  ( cd "$work/debs" && rm -f ./*.deb && apt-get download -qq "$@" )
  for deb in "$work/debs"/*.deb; do dpkg -x "$deb" "$to"; done
}

# The server, the checker and the rest are one program that looks at its name.
valkey8() {
  local suite; suite=$(. /etc/os-release && echo "$VERSION_CODENAME")-backports
  suite "$suite"
  unpack "$work/valkey8" "valkey-tools/$suite"
  unset APT_CONFIG
  cp -L "$work/valkey8/usr/bin/valkey-check-rdb" "$folder/valkey-server.new"
  # The libraries that it needs and the machine may lack.
  if ldd "$folder/valkey-server.new" | grep -q 'not found'; then
    apt-get install -y -qq --no-install-recommends libjemalloc2 liblzf1 libatomic1 >/dev/null
  fi
  chmod +x "$folder/valkey-server.new"; mv "$folder/valkey-server.new" "$folder/valkey-server"
}

# A program of a newer suite brings its own C library: the loader is told where everything is.
valkey9() {
  local new=$folder/valkey9.new
  suite sid
  unpack "$work/valkey9" valkey-tools libc6 libssl3t64 libjemalloc2 liblzf1 libatomic1 libstdc++6 libsystemd0 \
    libgcc-s1 libcap2 zlib1g libzstd1 liblzma5 liblz4-1 libgcrypt20 libgpg-error0
  unset APT_CONFIG
  rm -rf "$new"; mkdir -p "$new/lib"
  cp -L "$(dirname "$(find "$work/valkey9/usr" -name libc.so.6 | head -1)")"/*.so* "$new/lib/"
  cp -L "$work/valkey9/usr/bin/valkey-check-rdb" "$new/program"; chmod +x "$new/program"
  cat >"$new/valkey-server" <<'E'
#!/bin/sh
here=$(dirname "$0")
exec "$here/lib/ld-linux-x86-64.so.2" --library-path "$here/lib" --argv0 valkey-server "$here/program" "$@"
E
  chmod +x "$new/valkey-server"
  "$new/valkey-server" --version >/dev/null
  rm -rf "$folder/valkey9"; mv "$new" "$folder/valkey9"
}

[ -x "$folder/valkey-server" ] || valkey8
[ -x "$folder/valkey9/valkey-server" ] || valkey9
"$folder/valkey-server" --version; "$folder/valkey9/valkey-server" --version
