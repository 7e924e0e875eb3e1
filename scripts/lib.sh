# What the other scripts share: one progress line a step, errors that name the log, missing packages
# installed on Debian 12. Sourced, never run.
# shellcheck shell=bash disable=SC2034

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
log_dir=$root/build/log

# Debian 12's packages for building, and for running the tests.
build_packages=(cmake ninja-build g++ pkg-config libboost1.81-dev libboost-json1.81-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc liblmdb-dev libhwy-dev
  libedit-dev liburing-dev libpcre2-dev libxxhash-dev libcli11-dev libc-ares-dev zlib1g-dev libgtest-dev
  libgmock-dev libbenchmark-dev python3)
test_packages=(python3-numpy python3-grpcio python3-protobuf python3-yaml)
# Another Node.js (NodeSource's) brings npm along and refuses Debian's.
command -v npm >/dev/null || test_packages+=(nodejs npm)
package_packages=(dpkg-dev file)
lint_packages=(clang-format clang-tidy)
# For the status page's test; fonts, because Chromium without any measures no text.
page_packages=(chromium fonts-dejavu-core)
arm_packages=(g++-arm-linux-gnueabi)

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    printf 'not root, and no sudo: cannot run %s\n' "$*" >&2
    return 1
  fi
}

# On a terminal: the seconds so far, and ninja's count where the log has one, in place.
tick() {
  local text=$1 log=$2 started=$SECONDS count
  while sleep 1; do
    count=$(tail -c 300 "$log" 2>/dev/null | tr '\r' '\n' | grep -o '^\[[0-9]*/[0-9]*\]' | tail -n 1) || true
    printf '\r%s ... %s s %s ' "$text" $((SECONDS - started)) "$count"
  done
}

# step TEXT COMMAND...: runs the command quietly. Its output goes to a log, whose last lines are
# shown if it fails; then the script ends with the command's status.
step() {
  local text=$1 log started=$SECONDS ticker='' status=0
  shift
  mkdir -p "$log_dir"
  log=$log_dir/$(printf '%s' "$text" | tr -cs 'A-Za-z0-9\n' '-').log
  printf '%s ...' "$text"
  : >"$log"
  if [ -t 1 ]; then
    tick "$text" "$log" &
    ticker=$!
  fi
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ -n "$ticker" ]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r\033[K%s ...' "$text"
  fi
  if [ "$status" != 0 ]; then
    printf ' failed after %s s\n' $((SECONDS - started))
    printf -- '--- the end of %s\n' "$log" >&2
    tail -n 40 "$log" >&2
    exit "$status"
  fi
  printf ' %s s\n' $((SECONDS - started))
}

# require_packages NAME...: installs those of Debian's packages that are missing.
require_packages() {
  local name missing=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    printf 'Not Debian: these packages, or what they hold, must be there: %s\n' "$*" >&2
    return 0
  fi
  for name in "$@"; do
    if [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$name" 2>/dev/null)" != 'ii ' ]; then
      missing+=("$name")
    fi
  done
  if [ ${#missing[@]} = 0 ]; then
    return 0
  fi
  step 'Fetching package lists' as_root apt-get -q update
  step "Installing ${#missing[@]} packages" as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y --no-install-recommends install "${missing[@]}"
}

# promtool into build/tools, without the Prometheus server that its package would start.
fetch_promtool() {
  local directory=$root/build/tools
  if command -v promtool >/dev/null || [ -x "$directory/usr/bin/promtool" ]; then
    return 0
  fi
  mkdir -p "$directory"
  (cd "$directory" && apt-get -q download prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb)
}

# How many compilers at once: one a core, but no more than have 1 GiB of memory each.
parallel_jobs() {
  local cores available
  cores=$(nproc)
  available=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  if [ "$available" -lt "$cores" ]; then
    cores=$((available > 0 ? available : 1))
  fi
  printf '%s\n' "$cores"
}

# build_preset NAME [TARGET...]: configures (once) and builds build/NAME, all of it or these targets.
build_preset() {
  local preset=$1 launcher=() targets=()
  shift
  [ $# = 0 ] || targets=(--target "$@")
  cd "$root"
  if [ ! -f "build/$preset/build.ninja" ]; then
    if command -v ccache >/dev/null; then
      launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    step "Configuring ($preset)" cmake --preset "$preset" "${launcher[@]}"
  fi
  step "Building ($preset)" cmake --build "build/$preset" -j "$(parallel_jobs)" "${targets[@]}"
}
