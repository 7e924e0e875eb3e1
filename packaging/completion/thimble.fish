# fish completion for thimble: commands and options are those that `thimble --help` tells.
function __thimble_command
    set -l skip no
    for word in (commandline -opc)[2..]
        if test $skip = yes
            set skip no
        else if test "$word" = --connect
            set skip yes
        else if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
end

function __thimble_commands
    thimble --help 2>/dev/null | awk '/^Subcommands:/ {on = 1; next} on && /^  [a-z]/ {name = $1; $1 = ""; sub(/^ /, ""); print name "\t" $0}'
end

function __thimble_options
    thimble (__thimble_command) --help 2>/dev/null | awk '/^  -/ {n = split($1, names, ","); print names[n]}'
end

complete -c thimble -f
complete -c thimble -n 'test -z (__thimble_command)' -a '(__thimble_commands)'
complete -c thimble -n 'string match -q -- "-*" (commandline -ct)' -a '(__thimble_options)'
complete -c thimble -l connect -x -a unix:/run/thimble/thimble.sock -d 'the daemon'
complete -c thimble -l granularity -x -a 'head op auto'
complete -c thimble -l model -r -F
complete -c thimble -l out -r -F
