"""A small model of random numbers that has a chat template, for the gRPC clients' tests."""

import os
import sys

import harness

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

# Zephyr's own.
TEMPLATE = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] "
            "+ eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + "
            "eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + "
            "eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n"
            "{% endif %}\n{% endfor %}")


def make(directory):
    path = os.path.join(directory, "chat.gguf")
    make_model.make_llama(path, "Q8_0", seed=71, width=256, layers=2, chat_template=TEMPLATE)
    return path
