#!/bin/sh
# Run by scripts/test-cgroup-v2 as the first program on the emulated machine's disk, as root, with busybox alone:
# thimbled under cgroup v2, in the root group, beside other processes, unprivileged, delegated, and without a limit.
# Prints PASS or FAIL lines and "done"; the caller switches the machine off.
cgroup=/sys/fs/cgroup
socket=/tmp/thimble.sock
failures=0
story=
daemon=
logged= # the daemon whose log was shown

check() { # check TEXT COMMAND...
  text=$1
  shift
  if "$@"; then
    echo "PASS $text"
  else
    echo "FAIL $text"
    failures=$((failures + 1))
    [ "$logged" = "$daemon" ] || sed 's/^/  log: /' /tmp/log
    logged=$daemon
  fi
}
scenario() { echo "---- $* (after $(cut -d. -f1 /proc/uptime) s)"; }

# launch GROUP USER OPTION...: thimbled, started in the group; $daemon is its process. The page cache is emptied,
# so that the program's own pages are charged to it.
launch() {
  group=$1
  user=$2
  shift 2
  rm -rf /state "$socket"
  mkdir /state
  chown "$user" /state
  sync
  echo 3 >/proc/sys/vm/drop_caches
  # shellcheck disable=SC2016
  sh -c 'echo 0 >"$1/cgroup.procs" || exit 90
    user=$2
    shift 2
    exec su -s /bin/sh "$user" -- -c "exec \"\$@\"" sh "$@"' sh "$group" "$user" \
    thimbled --state-dir /state --listen "unix:$socket" "$@" >/tmp/log 2>&1 </dev/null &
  daemon=$!
}
is_ready() {
  for _ in $(seq 300); do
    grep -q ' event=ready ' /tmp/log && return 0
    kill -0 "$daemon" 2>/dev/null || return 1
    usleep 200000
  done
  return 1
}
# refused WORDS...: the daemon ended by itself with an error that has them all.
refused() {
  wait "$daemon" && return 1
  for words in "$@"; do
    grep -qF -e "$words" /tmp/log || return 1
  done
}
stops() {
  kill -TERM "$daemon"
  wait "$daemon"
}
# The same text everywhere; the first time, that there is one.
tells_the_story() {
  told=$(thimble --connect "unix:$socket" generate 'Once upon a time' --max-tokens 40 --temperature 0 2>&1) || return 1
  [ ${#told} -gt 80 ] || return 1
  [ -n "$story" ] || story=$told
  [ "$told" = "$story" ]
}
has() { [ "$(cat "$1")" = "$2" ]; } # has FILE TEXT
keeps_to() {                        # keeps_to GROUP BYTES: its peak is under the limit, and is not nothing
  peak=$(cat "$1/memory.peak")
  echo "     $1: memory.peak $peak of $2; $(grep -E '^(high|max) ' "$1/memory.events" | tr '\n' ' ')"
  [ "$peak" -le "$2" ] && [ "$peak" -gt 4194304 ] && grep -qx 'oom_kill 0' "$1/memory.events"
}
status_has() { thimble --connect "unix:$socket" status --json | tr -d ' ' | grep -qF -e "$1"; }
# limits_itself GROUP BYTES: thimbled made this group, is in it alone, and serves from it.
limits_itself() {
  check 'is ready' is_ready
  check 'memory.max is the ceiling' has "$1/memory.max" "$2"
  check 'memory.high is a little less' [ "$(cat "$1/memory.high")" -lt "$2" ]
  check 'no swap' has "$1/memory.swap.max" 0
  check 'killed as a whole' has "$1/memory.oom.group" 1
  check 'the process is in it, alone' has "$1/cgroup.procs" "$daemon"
  check 'the status names the group' status_has "\"control_group\":\"$1\""
  check 'a story streams' tells_the_story
  check 'the peak is under the ceiling, without an OOM kill' keeps_to "$1" "$2"
}
no_children() { [ -z "$(find "$1" -mindepth 1 -type d)" ]; }

uname -r
ip link set lo up # for the HTTP port
scenario 'root, in the root group, 32M'
launch $cgroup root --ram-ceiling 32M
own=$cgroup/thimble-$daemon
limits_itself "$own" 33554432
# Page cache of a file twice the ceiling, charged to the same group.
dd if=/dev/zero of=/large bs=1M count=64 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
sh -c "echo 0 >$own/cgroup.procs; exec cat /large" >/dev/null &
reader=$!
check 'a story streams while 64 MB of a file pass through the group' tells_the_story
check 'and all of it was read' wait $reader
check 'the peak is under the ceiling, without an OOM kill' keeps_to "$own" 33554432
check 'and near it: the limit was at work' [ "$(cat "$own/memory.peak")" -gt 30000000 ]
check 'SIGTERM ends it with status 0' stops
check 'its group is gone' [ ! -d "$own" ]

scenario 'root, 32M in a group of 48M beside another process'
echo +memory >$cgroup/cgroup.subtree_control
service=$cgroup/svc
mkdir $service
echo 48M >$service/memory.max
sh -c "echo 0 >$service/cgroup.procs; exec sleep 100000" &
other=$!
usleep 500000
launch $service root --ram-ceiling 32M
own=$service/thimble-$daemon
limits_itself "$own" 33554432
check 'the other process is aside, without a limit of its own' has "$own-others/cgroup.procs" $other
check 'in a group that has none' has "$own-others/memory.max" max
check 'the limit above stands' has $service/memory.max 50331648
check 'and is kept to' keeps_to $service 50331648
check 'SIGTERM ends it with status 0' stops
check 'the other process is back' has $service/cgroup.procs $other
check 'the groups are gone' no_children $service
check 'the controller is off for children again' has $service/cgroup.subtree_control ''

scenario 'killed, and started again from where the other process was put'
launch $service root --ram-ceiling 32M
check 'is ready' is_ready
killed=$daemon
kill -KILL "$killed"
wait "$killed"
check 'the other process lives' kill -0 $other
launch "$service/thimble-$killed-others" root --ram-ceiling 32M
limits_itself "$service/thimble-$daemon" 33554432
check 'SIGTERM ends it with status 0' stops
check 'the other process is back where it was before the one that was killed' has $service/cgroup.procs $other
check 'the groups of both are gone' no_children $service
check 'the controller is off for children again' has $service/cgroup.subtree_control ''
kill $other

scenario 'unprivileged, in a group of 32M that it cannot write'
adopted=$cgroup/adopted
mkdir $adopted
echo 32M >$adopted/memory.max
launch $adopted member
check 'is ready' is_ready
check 'says that it adopted the limit' grep -qF "adopted the limit in force, 32.0 MiB in $adopted/memory.max" /tmp/log
check 'the limit is its ceiling' status_has '"ceiling_bytes":33554432'
check 'the status names the group' status_has "\"control_group\":\"$adopted\""
check 'no group was made' no_children $adopted
check 'a story streams' tells_the_story
check 'the peak is under the limit, without an OOM kill' keeps_to $adopted 33554432
check 'SIGTERM ends it with status 0' stops
launch $adopted member --ram-ceiling 64M
check 'asked for more, it is ready' is_ready
check 'and adopts what is stricter' status_has '"ceiling_bytes":33554432'
check 'SIGTERM ends it with status 0' stops
launch $adopted member --ram-ceiling 24M
check 'asked for less, it refuses with both numbers' refused 'for --ram-ceiling 24.0 MiB' \
  'the limit in force is 32.0 MiB' 'Permission denied' '--enforcement=process'

scenario 'unprivileged, in a group of its own user (delegated), 16M, beside another process'
delegated=$cgroup/delegated
mkdir $delegated
chown member $delegated $delegated/cgroup.procs $delegated/cgroup.subtree_control
sh -c "echo 0 >$delegated/cgroup.procs; exec su -s /bin/sh member -c 'exec sleep 100000'" &
other=$!
usleep 500000
launch $delegated member --ram-ceiling 16M
own=$delegated/thimble-$daemon
limits_itself "$own" 16777216
check 'SIGTERM ends it with status 0' stops
check 'the other process is back' has $delegated/cgroup.procs $other
check 'the groups are gone' no_children $delegated
kill $other

scenario 'unprivileged, no limit in force, nothing writable'
free=$cgroup/free
mkdir $free
launch $free member --ram-ceiling 32M --enforcement cgroup
check 'refuses, and names --enforcement=process' refused 'no control group can be made for --ram-ceiling 32.0 MiB' \
  "mkdir $free/thimble-$daemon: Permission denied" 'no limit is in force' 'give --enforcement=process for resource limits'
launch $free member
check 'without a ceiling it asks for one' refused "no memory limit is in force for $free" '--ram-ceiling'
launch $free member --ram-ceiling 32M --enforcement process
check 'with --enforcement=process it is ready' is_ready
check 'the status says so' status_has '"enforcement":"process"'
check 'a story streams' tells_the_story
check 'no group was made' no_children $free
check 'SIGTERM ends it with status 0' stops

[ $failures = 0 ] || echo "$failures failed"
echo "done, $failures failures"
