# A memory control group for one program that a script starts, v1 or v2: made and limited first, entered by
# the program before its first page, read and removed afterwards. Sourced by scripts/demo, behind lib.sh.
# shellcheck shell=bash disable=SC2034

group=            # its directory; empty: none was made
group_version=    # 1 or 2
group_refusal=    # why none was made
group_parent=     # v2: where this script turned the controller on for child groups

# put TEXT FILE: one write, as root; the kernel's answer goes to standard error.
put() {
  if [ "$(id -u)" = 0 ]; then
    printf '%s' "$1" >"$2"
  else
    # shellcheck disable=SC2016
    as_root sh -c 'printf %s "$1" >"$2"' sh "$1" "$2"
  fi
}

# The mount point of the hierarchy that has the memory controller: "1 /sys/fs/cgroup/memory". v1 is preferred:
# where both are mounted, v2 has the controllers that v1 leaves.
find_hierarchy() {
  awk '{
    for (i = 7; i < NF && $i != "-"; ++i) {}
    if ($(i + 1) == "cgroup" && $(i + 3) ~ /(^|,)memory(,|$)/) print 1, $5
    if ($(i + 1) == "cgroup2") print 2, $5
  }' /proc/self/mountinfo | sort -n | while read -r version mount; do
    if [ "$version" = 1 ] || grep -qw memory "$mount/cgroup.controllers" 2>/dev/null; then
      printf '%s %s\n' "$version" "$mount"
      break
    fi
  done
}

# limit_group BYTES: of the group that was just made. Swap is none of the ceiling's business: it gets none.
limit_group() {
  if [ "$group_version" = 1 ]; then
    put "$1" "$group/memory.limit_in_bytes" || return 1
    # Absent, or refused, without swap in the kernel. 4 MiB more than the limit: see daemon/ceiling/group_limit.cc.
    { put $(($1 + 4194304)) "$group/memory.memsw.limit_in_bytes"; } 2>/dev/null || true
    { put 0 "$group/memory.swappiness"; } 2>/dev/null || true
  else
    put "$1" "$group/memory.max" || return 1
    { put 0 "$group/memory.swap.max"; } 2>/dev/null || true
    { put 1 "$group/memory.oom.group"; } 2>/dev/null || true
  fi
}

# make_group NAME BYTES: false where it cannot be done, with the reason in group_refusal.
make_group() {
  local mount answer
  read -r group_version mount < <(find_hierarchy) || true
  if [ -z "${mount:-}" ]; then
    group_refusal='no memory controller is mounted here'
    return 1
  fi
  answer=$(mktemp)
  # v2: a group shows memory.max only where its parent gives the controller on. systemd does so at boot.
  if [ "$group_version" = 2 ] && ! grep -qw memory "$mount/cgroup.subtree_control"; then
    if put +memory "$mount/cgroup.subtree_control" 2>"$answer"; then
      group_parent=$mount
    fi
  fi
  group=$mount/$1
  if ! as_root mkdir "$group" 2>>"$answer"; then
    group=
  elif ! limit_group "$2" 2>>"$answer"; then
    remove_group
  fi
  group_refusal=$(tail -n 1 "$answer")
  rm -f "$answer"
  [ -n "$group" ]
}

# in_group COMMAND...: becomes the command, inside the group. Run it in the background or a subshell.
in_group() {
  put "$BASHPID" "$group/cgroup.procs" || exit 125
  exec "$@"
}

# The most the group has held at any time, page cache included; nothing where the kernel keeps no such figure
# (v2 before Linux 5.19).
group_peak() {
  cat "$group/memory.max_usage_in_bytes" "$group/memory.peak" 2>/dev/null || true
}

group_oom_kills() {
  cat "$group/memory.oom_control" "$group/memory.events" 2>/dev/null | awk '$1 == "oom_kill" {print $2}'
}

# After its processes have ended; the kernel may need a moment.
remove_group() {
  local _
  if [ -n "$group" ]; then
    for _ in $(seq 50); do
      as_root rmdir "$group" 2>/dev/null && break
      sleep 0.1
    done
    group=
  fi
  if [ -n "$group_parent" ]; then
    put -memory "$group_parent/cgroup.subtree_control" 2>/dev/null || true
    group_parent=
  fi
}

# Page cache is charged to the group that read it first: what the build has just read would be free of charge.
drop_page_cache() {
  sync
  { put 3 /proc/sys/vm/drop_caches; } 2>/dev/null
}
