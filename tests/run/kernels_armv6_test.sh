#!/usr/bin/env bash
# That the kernels compile for a Raspberry Pi Zero's ARM1176, and use its SMLAD: what a change made on another machine
# breaks unseen. What they compute is tested under emulation by scripts/test-arm. Skipped without the cross compiler.
set -euo pipefail

source=$(cd "$(dirname "$0")/../.." && pwd)
if ! command -v arm-linux-gnueabi-g++ >/dev/null; then
  echo 'SKIPPED: no arm-linux-gnueabi-g++ (scripts/test --arm installs it)'
  exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/thimble-armv6-XXXXXX")
trap 'rm -rf "$work"' EXIT
# Highway's headers alone: the others beside them are this machine's.
ln -s "$(pkg-config --variable=includedir libhwy)/hwy" "$work/hwy"
read -r -a flags < <(sed -n 's/^set(flags "\(.*\)")$/\1/p' "$source/cmake/toolchain-armel.cmake")
arm-linux-gnueabi-g++ "${flags[@]}" -std=c++20 -O2 -Wall -Wextra -Wno-psabi -Werror -I"$source" -isystem "$work" -S \
  -o "$work/kernels.s" "$source/daemon/run/kernels.cc"
count=$(grep -cw smlad "$work/kernels.s" || true)
printf '%s SMLAD instructions\n' "$count"
[ "$count" -gt 0 ]
