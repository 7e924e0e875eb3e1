#compdef thimble
# Completion of `thimble` for zsh: installed as share/zsh/vendor-completions/_thimble.

_thimble() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C \
    '(- *)'{-h,--help}'[help]' \
    '(- *)--version[the version of this command]' \
    '--connect[where the daemon listens]:address:(unix\:/run/thimble/thimble.sock)' \
    '1:command:->command' \
    '*::argument:->argument' && return

  if [ "$state" = command ]; then
    local -a commands=(
      'generate:Generate text after a prompt and stream it'
      'chat:Talk with the model in a terminal; /help there says more'
      'top:What the daemon does, live; plain lines where it is no terminal'
      'status:What the daemon is and does now'
      'plan:The plan of the daemon, or of a model file under a ceiling'
      'tokenize:The token ids of a text'
      'health:Whether the daemon is ready, as an exit status'
      'version:The versions of this command and of the daemon'
      'logits:The logits after each of some tokens of a model file'
      'bench:Speed, memory and flash of thimbled at a list of ceilings, beside the bound'
      'flash:How fast a file is read from flash'
    )
    _describe command commands
    return
  fi
  case $line[1] in
    generate)
      _arguments \
        '--help[help]' \
        '--tokens[token ids instead of a prompt\: "5 61 72"]:value:' \
        '--max-tokens[generated tokens, at most]:value:' \
        '--temperature[0\: always the likeliest token]:value:' \
        '--top-k[of the K likeliest tokens]:value:' \
        '--top-p[of the likeliest tokens that make up P]:value:' \
        '--min-p[of those at least P times as likely as the likeliest]:value:' \
        '--repeat-penalty[above 1\: against repetition]:value:' \
        '--repeat-last-n[tokens the penalties look back]:value:' \
        '--presence-penalty[-2 to 2]:value:' \
        '--frequency-penalty[-2 to 2]:value:' \
        '--seed[the same seed gives the same text]:value:' \
        '*--stop[end before this text]:value:' \
        '--ignore-eos[go on after the model'\''s end of text]' \
        '--parse-special["<|im_start|>" in the prompt is that token]' \
        '--request-id[a name]:value:' \
        '--reconnect[seconds to try again after a lost connection]:value:' \
        '--detach[goes on when this client goes away]' \
        '--json[one JSON object a line]' \
        '--stats[a line of statistics on standard error]' \
        ':prompt:'
      ;;
    chat)
      _arguments \
        '--help[help]' \
        '--system[instructions for the model]:value:' \
        '--max-tokens[generated tokens, at most]:value:' \
        '--temperature[0\: always the likeliest token]:value:' \
        '--top-k[of the K likeliest tokens]:value:' \
        '--top-p[of the likeliest tokens that make up P]:value:' \
        '--min-p[of those at least P times as likely as the likeliest]:value:' \
        '--repeat-penalty[above 1\: against repetition]:value:' \
        '--repeat-last-n[tokens the penalties look back]:value:' \
        '--presence-penalty[-2 to 2]:value:' \
        '--frequency-penalty[-2 to 2]:value:' \
        '--seed[the same seed gives the same text]:value:' \
        '*--stop[end before this text]:value:' \
        '--stats[a line of statistics after each answer]'
      ;;
    top)
      _arguments \
        '--help[help]' \
        '--interval[seconds between two views]:value:' \
        '--count[so many plain lines, then the end]:value:'
      ;;
    status)
      _arguments \
        '--help[help]' \
        '--json[as a JSON object]'
      ;;
    plan)
      _arguments \
        '--help[help]' \
        '--model[a GGUF file\: its plan, without a daemon]:file:_files' \
        '--ram-ceiling[for example 16M]:value:(16M 24M 32M 64M)' \
        '--granularity[head, op or auto]:value:(head op auto)' \
        '--max-active[requests computed together]:value:' \
        '--prompt-chunk[prompt tokens in one pass]:value:' \
        '--context[tokens of one request]:value:' \
        '--draft-tokens[guessed tokens in one pass]:value:' \
        '--json[as a JSON object]'
      ;;
    tokenize)
      _arguments \
        '--help[help]' \
        '--model[a GGUF file\: its tokenizer, without a daemon]:file:_files' \
        '--special["<|im_start|>" in the text is that token]' \
        '--pieces[the text of each token too]' \
        '--json[as a JSON object]' \
        ':text:'
      ;;
    health)
      _arguments \
        '--help[help]' \
        '--live[only whether it lives]' \
        '--quiet[print nothing but errors]'
      ;;
    version)
      _arguments \
        '--help[help]' \
        '--json[as a JSON object]'
      ;;
    logits)
      _arguments \
        '--help[help]' \
        '--model[a GGUF file]:file:_files' \
        '--tokens[token ids\: "5 61 72"]:value:' \
        '--out[the file to write\: little-endian float32 rows]:file:_files' \
        '--ram-ceiling[for example 16M]:value:(16M 24M 32M 64M)' \
        '--granularity[head, op or auto]:value:(head op auto)' \
        '--prompt-chunk[tokens in one pass]:value:'
      ;;
    bench)
      _arguments \
        '--help[help]' \
        '--model[a GGUF file]:file:_files' \
        '--ceilings[for example 64M,16M,none]:value:(16M 24M 32M 64M)' \
        '--prompt[tokens of the prompt]:value:' \
        '--tokens[generated tokens of a run]:value:' \
        '--context[of a request]:value:' \
        '--requests[at once]:value:' \
        '--runs[after one cold start]:value:' \
        '--flash-rate[slow reading down to so many bytes a second, like an SD card'\''s\: 40M (needs root)]:value:' \
        '--peer[llama-cpp\: it too, on the same file under the same caps]:value:(llama-cpp)' \
        '--thimbled[the daemon to start]:file:_files' \
        '--daemon-options[for the daemon\: "--reader aio"]:value:' \
        '--scratch[where the daemon'\''s state lies meanwhile]:directory:_files -/' \
        '--cpu[]:value:' \
        '--csv[write everything to this file]:file:_files' \
        '--svg[write a plot to this file]:file:_files' \
        '--json[one JSON object a ceiling instead of a table]'
      ;;
    flash)
      _arguments \
        '--help[help]' \
        '--json[one JSON object a way of reading]' \
        ':file:_files'
      ;;
  esac
}

_thimble "$@"
