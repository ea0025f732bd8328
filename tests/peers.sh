#!/bin/bash
# Gets the real servers that the tests replicate with: Redis from the machine's own packages, Valkey
# from Debian's backports, without installing the latter.
#   tests/peers.sh [FOLDER]        (default: peers/ beside the debug build's programs)
# Result: /usr/bin/redis-server, FOLDER/valkey-server. Does nothing where both are there. Needs root
# and the package mirror that the machine's apt sources name.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-${CARGO_TARGET_DIR:-$here/target}/debug/peers}
mkdir -p "$folder"
[ -x /usr/bin/redis-server ] || {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends redis-server redis-tools >/dev/null
}
[ ! -x "$folder/valkey-server" ] || { "$folder/valkey-server" --version; exit 0; }

# A private apt configuration, so that the machine's own sources and state stay as they are.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,state,package}; touch "$work/state/status"
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' | awk '/main$/{print $1; exit}')
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
key=$(ls /usr/share/keyrings/debian-archive-keyring.*g* | head -1)
echo "deb [signed-by=$key] $mirror $release-backports main" >"$work/sources.list"
cat >"$work/apt.conf" <<E
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$work/state";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
APT::Sandbox::User "root";
E
export APT_CONFIG=$work/apt.conf
apt-get update -qq
# The server, the checker and the rest are one program that looks at its name.
( cd "$work/package" && apt-get download -qq "valkey-tools/$release-backports" && dpkg -x ./*.deb . )
cp -L "$work/package/usr/bin/valkey-check-rdb" "$folder/valkey-server.new"
# The libraries that it needs and the machine may lack.
if ldd "$folder/valkey-server.new" | grep -q 'not found'; then
  unset APT_CONFIG
  apt-get install -y -qq --no-install-recommends libjemalloc2 liblzf1 libatomic1 >/dev/null
fi
chmod +x "$folder/valkey-server.new"; mv "$folder/valkey-server.new" "$folder/valkey-server"
"$folder/valkey-server" --version
