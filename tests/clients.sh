#!/bin/bash
# Gets the client libraries that the tests use from their registries, at the versions that
# tests/clients pins, without installing them on the machine.
#   tests/clients.sh [FOLDER]      (default: clients/ beside the debug build's programs)
# Result: FOLDER/ioredis/node_modules, FOLDER/redis-py. Does nothing where both are there at the pinned
# versions. Installs node, npm, python3 and pip from Debian's packages where one is missing (root).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${CARGO_TARGET_DIR:-$here/../target}/debug/clients}

packages=
node --version >/dev/null 2>&1 || packages="$packages nodejs"
npm --version >/dev/null 2>&1 || packages="$packages npm"
python3 --version >/dev/null 2>&1 || packages="$packages python3"
python3 -m pip --version >/dev/null 2>&1 || packages="$packages python3-pip"
if [ -n "$packages" ]; then
  [ "$(id -u)" = 0 ] || { echo "missing:$packages; install them, or run this as root" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

# current NAME FILE… : whether FOLDER/NAME was made from just these files.
current() { name=$1; shift; [ "$(cat "$folder/$name/pinned" 2>/dev/null)" = "$(cat "$@" | sha256sum)" ]; }
# fresh NAME : an empty folder in which NAME is built before it takes its place.
fresh() { rm -rf "$folder/$1.new"; mkdir -p "$folder/$1.new"; }
# done NAME FILE… : it is complete.
finish() { name=$1; shift; cat "$@" | sha256sum >"$folder/$name.new/pinned"; rm -rf "${folder:?}/$name"; mv "$folder/$name.new" "$folder/$name"; }

node_files="$here/clients/ioredis/package.json $here/clients/ioredis/package-lock.json"
current ioredis $node_files || {
  fresh ioredis
  cp $node_files "$folder/ioredis.new/"
  ( cd "$folder/ioredis.new" && npm ci --silent --ignore-scripts --no-audit --no-fund --no-update-notifier )
  finish ioredis $node_files
}

python_files=$here/clients/redis-py/requirements.txt
current redis-py "$python_files" || {
  fresh redis-py
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
    --only-binary :all: --target "$folder/redis-py.new" --requirement "$python_files"
  finish redis-py "$python_files"
}
echo "ioredis $(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$folder/ioredis/node_modules/ioredis/package.json")" \
  "and $(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$folder/ioredis/node_modules/ioredis-5/package.json")," \
  "$(sed -n 's/^redis==\([^ ]*\).*/redis-py \1/p' "$python_files")"
