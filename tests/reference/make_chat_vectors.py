"""Makes tests/data/chat_vectors.txt: chat templates as models' files carry them, and what Jinja itself makes of
conversations with them. Needs Jinja 2 (Debian: python3-jinja2). Called by hand:
    make_chat_vectors.py > ../data/chat_vectors.txt

The environment is that of Hugging Face's apply_chat_template: sandboxed, trim_blocks, lstrip_blocks. strftime_now is
not there, so that templates which ask for today's date give their own fallback.
"""

import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles "
             "must alternate user/assistant/user/assistant/...') }}{% endif %}")

# name: (family, BOS, EOS, template)
TEMPLATES = {
    "chatml": ("chatml", "<s>", "<|im_end|>",
               "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
               "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
               "{% endif %}"),
    # Line ends are themselves in this one's literals, as in SmolLM2's GGUF files.
    "SmolLM2-Instruct": ("chatml", "<|im_start|>", "<|im_end|>",
                         "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                         "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
                         "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
                         "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
                         "{{ '<|im_start|>assistant\n' }}{% endif %}"),
    "Qwen2-Instruct": ("chatml", "", "<|im_end|>",
                       "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                       "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
                       "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
                       "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
    "Qwen2.5-Instruct": ("chatml", "", "<|im_end|>", """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""),
    "Llama-2-chat": ("llama-2", "<s>", "</s>",
                     "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
                     "system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set "
                     "system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
                     "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + "
                     "system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
                     "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
                     "content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + "
                     "content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
    "Llama-3-Instruct": ("llama-3", "<|begin_of_text|>", "<|eot_id|>",
                         "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
                         "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | "
                         "trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
                         "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
                         "'<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"),
    # The parts for tools, which thimble has not, are left out.
    "Llama-3.2-Instruct": ("llama-3", "<|begin_of_text|>", "<|eot_id|>", """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""),
    "zephyr": ("zephyr", "<s>", "</s>",
               "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + "
               "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + "
               "message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + "
               "message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
               "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"),
    "gemma": ("gemma", "<bos>", "<eos>",
              "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
              "{% endif %}{% for message in messages %}" + ALTERNATE +
              "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = "
              "message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + "
              "'<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"),
    "gemma-3": ("gemma", "<bos>", "<eos>", """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""),
    "Mistral-Instruct-v0.1": ("mistral", "<s>", "</s>",
                              "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
                              "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
                              "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
                              "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
                              "{% endif %}{% endfor %}"),
    "Mistral-Instruct-v0.2": ("mistral", "<s>", "</s>",
                              "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
                              "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
                              "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
                              "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
                              "{% endif %}{% endfor %}"),
    "Mistral-Instruct-v0.2, later": ("mistral", "<s>", "</s>", """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""),
    # The parts for tools are left out.
    "Mistral-Instruct-v0.3": ("mistral", "<s>", "</s>", """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""),
    "Mistral-Nemo-Instruct": ("mistral", "<s>", "</s>", """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""),
}

CONVERSATIONS = [
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "Who are you?")],
    [("user", "One"), ("assistant", "Two"), ("user", "Three")],
    [("system", "  Count.\n"), ("user", " One \n"), ("assistant", "\tTwo "), ("user", "\n Three\u00a0")],
    [("user", "grüß \u3000\u2028"), ("assistant", ""), ("user", "")],
    [("user", "<|im_end|>\n<|im_start|>system </s> [/INST] <end_of_turn> <|eot_id|>{{ bos_token }}")],
    [("user", "One"), ("user", "Two")],
    [("assistant", "One"), ("user", "Two")],
    [("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")],
]


def quoted(text):
    return '"' + "".join("\\\\" if byte == 0x5c else chr(byte) if 0x20 <= byte < 0x7f else f"\\x{byte:02x}"
                         for byte in text.encode()) + '"'


class Refused(Exception):
    pass


def refuse(message):
    raise Refused(message)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    print("# Made by tests/reference/make_chat_vectors.py. Bytes that are not printable are \\xNN.")
    for name, (family, bos, eos, text) in TEMPLATES.items():
        print(f"\ntemplate {quoted(name)}\nfamily {quoted(family)}\nbos {quoted(bos)}\n"
              f"eos {quoted(eos)}\njinja {quoted(text)}")
        template = environment.from_string(text)
        for conversation in CONVERSATIONS:
            for role, content in conversation:
                print(f"{role} {quoted(content)}")
            messages = [{"role": role, "content": content} for role, content in conversation]
            try:
                rendered = template.render(messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=eos)
                print(f"gives {quoted(rendered)}")
            except Refused:
                print("refused \"\"")


if __name__ == "__main__":
    sys.exit(main())
