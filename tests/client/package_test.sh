#!/usr/bin/env bash
# The C++ client library as another project meets it: package_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY
# Installs into a prefix, builds tests/client/outside against it with find_package, moves the prefix
# (nothing in it may name its own place) and runs the program against a daemon.
set -euo pipefail

build=$1
source=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/thimble-package-XXXXXX")
daemon=
cleanup() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap cleanup EXIT

cmake --install "$build" --prefix "$scratch/first" --component development >"$scratch/log" || {
  cat "$scratch/log"
  exit 1
}
mv "$scratch/first" "$scratch/prefix"
# Neither gRPC nor Protobuf shows in what a program includes.
if grep -rnE '#include.*(grpc|google|\.pb\.h|daemon/|storage/)' "$scratch/prefix/include"; then
  echo 'FAILED: a header of the installation includes what is not installed'
  exit 1
fi
cmake -S "$source/tests/client/outside" -B "$scratch/outside" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_PREFIX_PATH="$scratch/prefix" >"$scratch/log" 2>&1 || {
  cat "$scratch/log"
  exit 1
}
cmake --build "$scratch/outside" >"$scratch/log" 2>&1 || {
  tail -n 40 "$scratch/log"
  exit 1
}

"$build/thimbled" --config /dev/null --enforcement none --state-dir "$scratch/state" --listen "unix:$scratch/socket" \
  --http off 2>"$scratch/daemon.log" &
daemon=$!
for _ in $(seq 300); do
  "$build/thimble" --connect "unix:$scratch/socket" health --quiet 2>/dev/null && break
  sleep 0.1
done
said=$("$scratch/outside/outside" "unix:$scratch/socket" 'Once upon a time') || {
  cat "$scratch/daemon.log"
  exit 1
}
printf '%s\n' "$said"
[ "$(tail -n 1 <<<"$said")" = ok ]
