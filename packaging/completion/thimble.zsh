#compdef thimble
# zsh completion for thimble: commands and options are those that `thimble --help` tells.
local command='' i
local -a found
for ((i = 2; i < CURRENT; i++)); do
  case $words[i] in
    --connect) ((i++)) ;;
    -*) ;;
    *) command=$words[i]; break ;;
  esac
done
case $words[CURRENT-1] in
  --connect) compadd unix:/run/thimble/thimble.sock; return ;;
  --granularity) compadd head op auto; return ;;
  --model|--out) _files; return ;;
esac
if [[ -z $command && $PREFIX != -* ]]; then
  found=(${(f)"$($words[1] --help 2>/dev/null |
    awk '/^Subcommands:/ {on = 1; next} on && /^  [a-z]/ {name = $1; $1 = ""; sub(/^ /, ""); print name ":" $0}')"})
  _describe command found
elif [[ $PREFIX == -* ]]; then
  found=(${(f)"$($words[1] $command --help 2>/dev/null | awk '/^  -/ {n = split($1, names, ","); print names[n]}')"})
  compadd -a found
fi
