#!/usr/bin/env bash
# The installed service as systemd sees it, without running it: systemd_test.sh BUILD_DIRECTORY
# Installs into a temporary root and holds the unit, sysusers, tmpfiles and the default configuration against it.
# Exit status 77: systemd's tools are not here.
set -euo pipefail

build=$1
for tool in systemd-analyze systemd-sysusers systemd-tmpfiles; do
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
install -D -m 0755 /bin/sh "$tree/bin/sh"
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
systemd-tmpfiles --root="$tree" --create "$tree/usr/lib/tmpfiles.d/thimble.conf" || fail 'tmpfiles'
[ "$(stat -c %a "$tree/var/lib/thimble-models")" = 755 ] || fail 'tmpfiles makes no directory for models'
if [ "$(sed -n 's/^User=//p' "$unit")" = "$group" ]; then
  fail 'a dynamic user beside a static group of the same name: systemd refuses it'
fi

# The default configuration: taken as it is, and with every line that shows a default.
conf=$tree/etc/thimble/thimbled.conf
said=$("$tree/usr/bin/thimbled" --check-config --config "$conf" 2>&1) || fail "the default configuration: $said"
sed -n 's/^#\([a-z-]* = .*\)/\1/p' "$conf" | grep -vE ' = (FILE|N|yes\|no)$' >"$root/defaults.conf"
said=$("$tree/usr/bin/thimbled" --check-config --config "$root/defaults.conf" 2>&1) || fail "its defaults: $said"
[ "$(grep -c "# $root/defaults.conf:" <<<"$said")" = "$(wc -l <"$root/defaults.conf")" ] ||
  fail "not every default was read: $said"
[ "$(wc -l <"$root/defaults.conf")" -gt 8 ] || fail 'hardly any default stands in the configuration'
# What an operator has changed stays when the programs are installed again.
echo 'max-active = 2' >"$conf"
DESTDIR=$tree cmake --install "$build" --prefix /usr >"$root/install.log"
[ "$(cat "$conf")" = 'max-active = 2' ] || fail 'installing again overwrites the configuration'

# The Debian package's own scripts: sound, and about files that are installed.
deb=$(cd "$(dirname "$0")/../../packaging/deb" && pwd)
for script in postinst prerm postrm; do
  sh -n "$deb/$script" || fail "$script: the shell does not read it"
  grep -qx 'set -e' "$deb/$script" || fail "$script goes on after a failure"
done
while read -r file; do
  [ -f "$tree$file" ] || fail "the conffile $file is not installed"
done <"$deb/conffiles"

model=$tree/usr/share/thimble/models/thimble-stories-q8_0.gguf
[ "$(head -c 4 "$model")" = GGUF ] || fail 'the built-in model is not installed'

[ "$failures" = 0 ] && echo 'all as it should be'
exit "$((failures > 0))"
