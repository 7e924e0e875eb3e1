#!/usr/bin/env bash
# Completion says what --help says: completion_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY
# Every command and option of `thimble` is in the files for bash, zsh and fish and no other one; bash's is run, zsh's
# and fish's are read by their shells where these are installed.
set -euo pipefail

thimble=$1/thimble
folder=$2/client/completion
failures=0
fail() {
  printf 'FAILED: %s\n' "$*"
  failures=$((failures + 1))
}

# shellcheck source=/dev/null
source "$folder/thimble.bash"
# complete_bash WORD...: what bash offers for the last word, one a line, sorted.
complete_bash() {
  COMP_WORDS=(thimble "$@")
  COMP_CWORD=$#
  COMPREPLY=()
  _thimble 2>/dev/null
  printf '%s\n' "${COMPREPLY[@]}" | sort
}
# help_of COMMAND...: the long options, sorted.
help_of() {
  "$thimble" "$@" --help | grep -oE '^ +(-[a-z],)?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u
}

commands=$("$thimble" --help | sed -n '/^Subcommands:/,/^$/p' | grep -oE '^  [a-z]+' | tr -d ' ' | sort)
[ -n "$commands" ] || fail 'no commands in --help'
[ "$(complete_bash '')" = "$commands" ] || fail "bash: commands: $(complete_bash '' | tr '\n' ' ')"
[ "$(complete_bash -)" = "$(help_of)" ] || fail "bash: thimble: $(complete_bash - | tr '\n' ' ')"
for command in $commands; do
  expected=$(help_of "$command")
  [ -n "$expected" ] || fail "no options in $command --help"
  offered=$(complete_bash "$command" --)
  [ "$offered" = "$expected" ] || fail "bash: $command: $(diff <(echo "$expected") <(echo "$offered") | grep '^[<>]')"
  for shell in zsh fish; do
    file=$folder/thimble.$shell
    # Both have a line an option, marked by its command.
    if [ $shell = zsh ]; then
      has=$(sed -n "/^    $command)/,/;;/p" "$file" | grep -oE "^ +'\*?--[a-z-]+" | grep -oE -- '--.*' | sort -u)
    else
      has=$(grep -E "__fish_seen_subcommand_from $command'" "$file" | grep -oE -- ' -l [a-z-]+' | sed 's/ -l /--/' | sort -u)
    fi
    [ "$has" = "$expected" ] || fail "$shell: $command: $(diff <(echo "$expected") <(echo "$has") | grep '^[<>]')"
  done
done

# Behind the daemon's address, in the middle of a word, and values.
[ "$(complete_bash --connect unix : /run/x gen)" = generate ] || fail 'bash: the command after --connect unix:PATH'
[ "$(complete_bash generate --max)" = --max-tokens ] || fail 'bash: generate --max'
[ "$(complete_bash plan --granularity h)" = head ] || fail 'bash: --granularity h'
[ "$(complete_bash plan --model "$folder/thimble.z")" = "$folder/thimble.zsh" ] || fail 'bash: --model FILE'

if command -v zsh >/dev/null; then
  zsh -n "$folder/thimble.zsh" || fail 'zsh cannot read thimble.zsh'
fi
if command -v fish >/dev/null; then
  fish --no-execute "$folder/thimble.fish" || fail 'fish cannot read thimble.fish'
  offered=$(fish -c "source '$folder/thimble.fish'; complete -C 'thimble gener'" | cut -f 1)
  [ "$offered" = generate ] || fail "fish: gener: $offered"
fi
[ "$failures" = 0 ] && echo 'all as it should be'
exit "$((failures > 0))"
