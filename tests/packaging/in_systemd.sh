#!/bin/bash
# Run by scripts/test-systemd inside the booted tree, as root: works with the installed package as an operator and
# clients do, and removes it at the end. Lines go to /root/results, the last one "all passed" if so; the journal to /root/journal.
exec >/root/results 2>&1
failures=0
check() { # check TEXT COMMAND...
  local text=$1
  shift
  if "$@"; then
    echo "ok: $text"
  else
    echo "FAILED: $text"
    failures=$((failures + 1))
  fi
}
property() { systemctl show -P "$1" thimbled.service; }
is_active() { [ "$(property ActiveState)" = active ]; }
# wait_until SECONDS COMMAND...
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}
as() { # as USER COMMAND...
  local user=$1
  shift
  runuser -u "$user" -- "$@"
}
story() {
  as member thimble generate 'Once upon a time' --max-tokens 60 --temperature 0 2>&1
}
other_pid() { is_active && [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ]; }

check 'active' wait_until 60 is_active
first=$(story)
echo "story: ${first//$'\n'/ }"
check 'a member of the group gets 60 tokens' [ "${#first}" -gt 120 ]
check 'a stranger does not get at the socket' eval '! as stranger thimble status >/dev/null 2>&1'
check 'the socket is 0660 and the group its own' \
  [ "$(stat -c '%a %G' /run/thimble/thimble.sock)" = '660 thimble' ]
check 'the state is nobody else'"'"'s' [ "$(stat -L -c %a /var/lib/thimble)" = 700 ]

status=$(as member thimble status --json)
echo "status: $status"
check 'its ceiling is the unit'"'"'s' grep -q '"ceiling_bytes":67108864' <<<"${status// /}"
group=/sys/fs/cgroup/memory$(property ControlGroup)
[ -d "$group" ] || group=$(sed -n 's/.*"control_group": *"\([^"]*\)".*/\1/p' <<<"$status")
echo "group: $group"
limit=$(cat "$group/memory.limit_in_bytes")
check "the kernel enforces it: $limit" [ "$limit" = 67108864 ]
pid=$(property MainPID)
ids=$(awk '/^[UG]id:/ {print $2}' "/proc/$pid/status" | xargs)
check "it runs as a dynamic user, in the group: $ids" \
  [ "$ids" = "$(property UID) $(getent group thimble | cut -d : -f 3)" ]
check 'which no one else is' [ "$(property UID)" -ge 61184 ]
check 'it has no capability left' grep -qx 'CapBnd:	0000000000000000' "/proc/$pid/status"
# systemd may be refused to raise the limit that this machine gives it.
locked=$(awk '/^VmLck:/ {print $2}' "/proc/$pid/status")
allowed=$(awk '/^Max locked memory/ {print $5}' "/proc/$pid/limits")
if [ "$allowed" = unlimited ]; then
  check "its own code is locked: $locked KiB" [ "$locked" -gt 1000 ]
  noise='^$'
else
  echo "not checked: whether its own code is locked; $allowed bytes may be locked on this machine"
  noise="of the program's pages"
fi
peak=$(cat "$group/memory.max_usage_in_bytes")
check "peak $peak of $limit bytes, page cache included" [ "$peak" -le "$limit" ]

echo 'log-level = debug' >>/etc/thimble/thimbled.conf
check 'reloads' systemctl reload thimbled.service
check 'which sets the log level' wait_until 10 eval \
  'journalctl -u thimbled.service -q -o cat | grep -q "option=log-level before=info after=debug effect=now"'
check 'and is no restart' [ "$(property MainPID)" = "$pid" ]
check 'the log has priorities' [ "$(journalctl -u thimbled.service -q -o cat -p notice _COMM=thimbled |
  grep -c 'option=log-level')" = 1 ]
check 'without their prefix in the text' eval '! journalctl -u thimbled.service -q -o cat | grep "^<[0-7]>"'

check 'restarts' systemctl restart thimbled.service
check 'is another process then' other_pid "$pid"
check 'says the same after it' [ "$(story)" = "$first" ]

pid=$(property MainPID)
kill -STOP "$pid"
check 'the watchdog ends a stopped daemon and starts another' wait_until 40 other_pid "$pid"
check 'for that reason' eval 'journalctl -u thimbled.service -q | grep -q "Watchdog timeout"'
check 'which says the same' [ "$(story)" = "$first" ]
sleep 9
check 'an idle one is left alone by the watchdog' [ "$(property NRestarts)" = 1 ]

# To show that the limit bites: tail keeps all of a line, and this one has no end. A unit file, for systemd-run waits
# by a message bus, which the tree has not.
cat >/run/systemd/system/hog.service <<'END'
[Service]
Type=oneshot
ExecStart=/usr/bin/tail /dev/zero
MemoryMax=64M
MemorySwapMax=0
TimeoutStartSec=60s
TimeoutStopSec=2s
END
systemctl daemon-reload
check 'what takes more than the same limit does not end well' eval '! systemctl start hog.service 2>/dev/null'
check 'it is killed by the kernel, for its memory' eval 'journalctl -u hog.service -q | grep -q "status=9/KILL"'

systemctl stop thimbled.service
check 'stops cleanly' [ "$(property Result) $(property ExecMainStatus)" = 'success 0' ]
check 'no warning in its log' eval '! journalctl -u thimbled.service -q -p warning _COMM=thimbled | grep -v "$noise"'
check 'the package is removed and purged' dpkg --purge thimble
check 'with its state and configuration' eval \
  '[ ! -e /var/lib/thimble ] && [ ! -e /var/lib/private/thimble ] && [ ! -e /etc/thimble ]'
journalctl -q --no-hostname -o short-monotonic >/root/journal
[ "$failures" = 0 ] && echo 'all passed' || echo "$failures failed"
