#!/usr/bin/env bash
# The installed service as systemd sees it, without running it: systemd_test.sh BUILD_DIRECTORY
# Installs into a temporary root and holds the unit, sysusers and the environment file against it.
# Exit status 77: systemd's tools are not here.
set -euo pipefail

build=$1
for tool in systemd-analyze systemd-sysusers; do
  if ! command -v "$tool" >/dev/null; then
    echo "skipped: no $tool here"
    exit 77
  fi
done

root=$(mktemp -d "${TMPDIR:-/tmp}/thimble-systemd-XXXXXX")
trap 'rm -rf "$root"' EXIT
failures=0
fail() {
  printf 'FAILED: %s\n' "$*"
  failures=$((failures + 1))
}

DESTDIR=$root/tree cmake --install "$build" --prefix /usr >"$root/install.log" || {
  cat "$root/install.log"
  exit 1
}
tree=$root/tree
unit=$tree/usr/lib/systemd/system/thimbled.service
# verify wants what the unit refers to; targets and other units are the system's own.
mkdir -p "$tree/usr/lib/systemd/system"
for name in sysinit basic shutdown multi-user sockets paths timers slices; do
  [ -e "$tree/usr/lib/systemd/system/$name.target" ] ||
    printf '[Unit]\nDescription=%s\n' "$name" >"$tree/usr/lib/systemd/system/$name.target"
done
# One that is not right must be found, or the check says nothing.
sed 's/^WatchdogSec=.*/WatchdogSex=1/' "$unit" >"$tree/usr/lib/systemd/system/wrong.service"
said=$(systemd-analyze verify --root="$tree" --man=no wrong.service 2>&1) || true
grep -q "WatchdogSex" <<<"$said" || fail "verify overlooks an unknown key: $said"
rm "$tree/usr/lib/systemd/system/wrong.service"
status=0
said=$(systemd-analyze verify --root="$tree" --man=no thimbled.service 2>&1) || status=$?
if [ "$status" != 0 ] || grep -q thimbled <<<"$said"; then
  fail "verify ($status): $said"
fi

# --threshold is in tenths.
status=0
said=$(systemd-analyze security --offline=true --threshold=20 "$unit" 2>&1) || status=$?
[ "$status" = 0 ] || fail "exposure above 2.0: $(tail -n 1 <<<"$said")"
tail -n 1 <<<"$said"
if systemd-analyze security --offline=true --threshold=1 "$unit" >/dev/null 2>&1; then
  fail 'the threshold lets everything through'
fi

# What the daemon needs and hardening could take away.
allowed=$(systemd-analyze syscall-filter @system-service @default @aio @memlock)
for call in io_uring_setup io_uring_enter io_uring_register io_submit mlock2 prlimit64; do
  grep -qw "$call" <<<"$allowed" || fail "the unit's groups of system calls lack $call"
done

# The group that the unit and the socket name.
mkdir -p "$tree/etc"
systemd-sysusers --root="$tree" "$tree/usr/lib/sysusers.d/thimble.conf" || fail 'sysusers'
group=$(sed -n 's/^Group=//p' "$unit")
grep -q "^$group:" "$tree/etc/group" || fail "sysusers makes no group $group"
if [ "$(sed -n 's/^User=//p' "$unit")" = "$group" ]; then
  fail 'a dynamic user beside a static group of the same name: systemd refuses it'
fi

# Each example in the environment file is one that thimbled takes.
examples=0
while read -r line; do
  read -ra options <<<"${line#*=}"
  examples=$((examples + 1))
  "$tree/usr/bin/thimbled" "${options[@]}" --version >/dev/null || fail "example: $line"
done < <(grep '^#THIMBLED_OPTIONS=' "$tree/usr/share/thimble/thimbled.env")
[ "$examples" -gt 0 ] || fail 'no examples in thimbled.env'

model=$tree/usr/share/thimble/models/thimble-stories-q8_0.gguf
[ "$(head -c 4 "$model")" = GGUF ] || fail 'the built-in model is not installed'

[ "$failures" = 0 ] && echo 'all as it should be'
exit "$((failures > 0))"
