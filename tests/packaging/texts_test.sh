#!/usr/bin/env bash
# Manual pages and completions against the programs: texts_test.sh BUILD_DIRECTORY
# Every option that a --help tells stands in its manual page, the pages are sound roff, and the completions of
# bash (and zsh and fish, where those are installed) know commands, options and values.
set -euo pipefail

build=$1
source=$(cd "$(dirname "$0")/../.." && pwd)
share=$build/share
failures=0
fail() {
  printf 'FAILED: %s\n' "$*"
  failures=$((failures + 1))
}

# options PROGRAM...: the long options of a --help.
options() { "$@" --help | sed -n 's/^  \(-.,\)\{0,1\}\(--[a-z][a-z0-9-]*\).*/\2/p'; }
commands() { "$build/thimble" --help | awk '/^Subcommands:/ {on = 1; next} on && /^  [a-z]/ {print $1}'; }

# plain PAGE: its text; roff's warnings count as failures.
plain() {
  if command -v groff >/dev/null; then
    groff -man -Tascii -ww -P-cbou "$1" 2>"$work/warnings"
    [ ! -s "$work/warnings" ] || fail "$1: $(head -n 3 "$work/warnings")"
  else
    sed 's/\\f.//g; s/\\-/-/g' "$1"
  fi
}
work=$(mktemp -d "${TMPDIR:-/tmp}/thimble-texts-XXXXXX")
trap 'rm -rf "$work"' EXIT
plain "$share/thimbled.8" >"$work/thimbled.8"
plain "$share/thimble.1" >"$work/thimble.1"
plain "$share/thimbled.conf.5" >"$work/thimbled.conf.5"

count=0
for option in $(options "$build/thimbled"); do
  count=$((count + 1))
  grep -qw -e "$option" "$work/thimbled.8" || fail "thimbled.8 lacks $option"
  case $option in
    --help | --version | --config | --check-config) ;;
    *) grep -qE "^ *${option#--} = " "$work/thimbled.conf.5" || fail "thimbled.conf.5 lacks ${option#--}" ;;
  esac
done
[ "$count" -gt 10 ] || fail "thimbled --help tells $count options only"
count=0
for command in $(commands); do
  count=$((count + 1))
  grep -qE "^ *$command( |$)" "$work/thimble.1" || fail "thimble.1 lacks the command $command"
  for option in $(options "$build/thimble" "$command"); do
    grep -qw -e "$option" "$work/thimble.1" || fail "thimble.1 lacks $option, of $command"
  done
done
[ "$count" -gt 3 ] || fail "thimble --help tells $count commands only"

# The words that bash offers: bash_offers FILE FUNCTION WORD... (the last one is being typed)
bash_offers() {
  # shellcheck disable=SC2016
  bash --norc -c 'source "$1"; function=$2; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "$function"
    printf "%s\n" "${COMPREPLY[@]}"' bash "$@" 2>&1
}
offers() { # offers WHAT EXPECTED OFFERED
  grep -qx -e "$2" <<<"$3" || fail "$1: no $2 among: ${3//$'\n'/ }"
}
daemon=("$share/thimbled.bash" _thimbled "$build/thimbled")
client=("$source/client/completion/thimble.bash" _thimble "$build/thimble")
offers bash --max-active "$(bash_offers "${daemon[@]}" --max-)"
offers bash --check-config "$(bash_offers "${daemon[@]}" --ch)"
offers bash io_uring "$(bash_offers "${daemon[@]}" --reader '')"
offers bash "$share" "$(bash_offers "${daemon[@]}" --state-dir "${share%?}")"
offers bash "$share/thimbled.conf" "$(bash_offers "${daemon[@]}" --model "$share/thimbled.c")"
[ -z "$(bash_offers "${daemon[@]}" --max-active '')" ] || fail 'bash offers a word where a number stands'
offers bash generate "$(bash_offers "${client[@]}" '')"
offers bash status "$(bash_offers "${client[@]}" --connect unix:/s st)"
offers bash --temperature "$(bash_offers "${client[@]}" generate --t)"
offers bash --connect "$(bash_offers "${client[@]}" --c)"

if command -v zsh >/dev/null; then
  for file in "$share/thimbled.zsh" "$source/client/completion/thimble.zsh"; do
    zsh -n "$file" || fail "$file: zsh does not read it"
  done
fi
if command -v fish >/dev/null; then
  # What fish offers for a command line.
  fish_offers() {
    PATH=$build:$PATH fish --no-config -c "source $1; complete -C '$2'" | cut -f 1
  }
  offers fish --max-active "$(fish_offers "$share/thimbled.fish" 'thimbled --max-')"
  offers fish io_uring "$(fish_offers "$share/thimbled.fish" 'thimbled --reader ')"
  offers fish generate "$(fish_offers "$source/client/completion/thimble.fish" 'thimble ')"
  offers fish --temperature "$(fish_offers "$source/client/completion/thimble.fish" 'thimble generate --t')"
fi

[ "$failures" = 0 ] && echo 'all as it should be'
exit "$((failures > 0))"
