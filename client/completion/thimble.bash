# Completion of `thimble` for bash: installed as share/bash-completion/completions/thimble.

_thimble() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local commands='generate chat top status plan tokenize health version logits bench flash'
  local sampling='--max-tokens --temperature --top-k --top-p --min-p --repeat-penalty --repeat-last-n
    --presence-penalty --frequency-penalty --seed --stop'
  local -A options=(
    [thimble]='--help --version --connect'
    [generate]="--help --tokens $sampling --ignore-eos --parse-special --request-id --reconnect --detach --json --stats"
    [chat]="--help --system $sampling --stats"
    [top]='--help --interval --count'
    [status]='--help --json'
    [plan]='--help --model --ram-ceiling --granularity --max-active --prompt-chunk --context --draft-tokens --json'
    [tokenize]='--help --model --special --pieces --json'
    [health]='--help --live --quiet'
    [version]='--help --json'
    [logits]='--help --model --tokens --out --ram-ceiling --granularity --prompt-chunk'
    [bench]='--help --model --ceilings --prompt --tokens --context --requests --runs --flash-rate --peer --thimbled
      --daemon-options --scratch --cpu --csv --svg --json'
    [flash]='--help --json'
  )

  # The command is the first word that is no option and no option's value.
  local command=thimble i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --connect) # bash takes unix:/path apart at its colon
        ((i++))
        while [[ ${COMP_WORDS[i + 1]-} == *:* ]]; do ((i += 2)); done
        ;;
      -*) ;;
      *)
        command=${COMP_WORDS[i]}
        break
        ;;
    esac
  done

  COMPREPLY=()
  case $prev in
    --model | --out | --csv | --svg | --thimbled)
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      compopt -o filenames 2>/dev/null
      return
      ;;
    --scratch)
      mapfile -t COMPREPLY < <(compgen -d -- "$cur")
      compopt -o filenames 2>/dev/null
      return
      ;;
    --granularity)
      mapfile -t COMPREPLY < <(compgen -W 'head op auto' -- "$cur")
      return
      ;;
    --peer)
      mapfile -t COMPREPLY < <(compgen -W 'llama-cpp' -- "$cur")
      return
      ;;
    --ram-ceiling | --ceilings)
      mapfile -t COMPREPLY < <(compgen -W '16M 24M 32M 64M' -- "$cur")
      return
      ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${options[$command]-}" -- "$cur")
  elif [ "$command" = thimble ] && [ "$prev" != --connect ]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
  elif [ "$command" = flash ]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    compopt -o filenames 2>/dev/null
  fi
}

complete -F _thimble thimble
