# bash completion for thimble: commands and options are those that `thimble --help` tells.
_thimble() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local program=${COMP_WORDS[0]} command='' help i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --connect) i=$((i + 1)) ;;
      -*) ;;
      *)
        command=${COMP_WORDS[i]}
        break
        ;;
    esac
  done
  case $prev in
    --connect)
      mapfile -t COMPREPLY < <(compgen -W 'unix:/run/thimble/thimble.sock' -- "$cur")
      return
      ;;
    --granularity)
      mapfile -t COMPREPLY < <(compgen -W 'head op auto' -- "$cur")
      return
      ;;
    --model | --out)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
  esac
  if [[ $command == '' && $cur != -* ]]; then
    help=$("$program" --help 2>/dev/null | awk '/^Subcommands:/ {on = 1; next} on && /^  [a-z]/ {print $1}')
  elif [[ $cur == -* ]]; then
    help=$("$program" ${command:+"$command"} --help 2>/dev/null |
      awk '/^  -/ {n = split($1, names, ","); print names[n]}')
  fi
  mapfile -t COMPREPLY < <(compgen -W "$help" -- "$cur")
}
complete -F _thimble thimble
