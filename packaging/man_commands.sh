#!/bin/sh
# The commands of thimble as sections of its manual page, from what their --help tells; for the build.
#   man_commands.sh TEMPLATE OUTPUT PROGRAM...
# copies the template, its line "@COMMANDS@" replaced. PROGRAM may have an emulator in front.
set -eu
template=$1
output=$2
shift 2

section() { # section NAME: reads the command's --help
  awk -v name="$1" '
    function roff(text) {
      gsub(/\\/, "\\e", text)
      gsub(/-/, "\\-", text)
      sub(/^[.\x27]/, "\\\\\\&&", text)
      return text
    }
    function entry(left, right,   words, n, value) {
      n = split(left, words, " ")
      if (words[1] ~ /--help$/) return
      sub(/^[^ ]* */, "", left)
      required = left ~ /REQUIRED/
      range = ""
      if (match(left, /in \[[^]]*\]/)) {
        range = substr(left, RSTART + 4, RLENGTH - 5)
        sub(/ - /, " to ", range)
      }
      value = n > 1 ? words[2] : ""
      sub(/:.*/, "", value)
      if (value ~ /^U?INT$/) value = "N"
      if (value == "FLOAT") value = "X"
      printf ".TP\n\\fB%s\\fR%s\n", roff(words[1]), (value != "" ? " \\fI" roff(value) "\\fR" : "")
      printf "%s%s%s\n", roff(right), (range != "" ? ", from " roff(range) : ""), (required ? " (required)" : "")
    }
    function flush() { if (left != "") entry(left, right); left = right = "" }
    NR == 1 { about = $0 }
    /^Usage: / { usage = $0; sub(/^Usage: [^ ]+ [^ ]+ */, "", usage); sub(/\[OPTIONS\] */, "", usage)
                 printf ".SS %s%s\n%s.\n", roff(name), (usage != "" ? " " roff(usage) : ""), roff(about) }
    /^(Positionals|Options|Subcommands):/ { on = 1; next }
    /^  [^ ]/ && on {
      flush()
      if (length($0) > 30 && substr($0, 30, 1) == " ") { left = substr($0, 3, 28); right = substr($0, 31) }
      else left = substr($0, 3)
      next
    }
    /^ +[^ ]/ && on { text = $0; sub(/^ +/, "", text); right = right (right != "" ? " " : "") text; next }
    /^$/ { flush() }
    /^[A-Z]/ && !/^Usage/ && NR > 1 { flush(); on = 0 }
    END { flush() }'
}

{
  sed '/^@COMMANDS@$/,$d' "$template"
  for command in $("$@" --help | awk '/^Subcommands:/ {on = 1; next} on && /^  [a-z]/ {print $1}'); do
    "$@" "$command" --help | section "$command"
  done
  sed '1,/^@COMMANDS@$/d' "$template"
} >"$output.new"
mv "$output.new" "$output"
