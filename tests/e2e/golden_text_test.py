#!/usr/bin/python3
"""The built-in model's text: 120 greedy tokens that another engine computed (tests/data/builtin-greedy.tokens)."""

import os
import subprocess

import harness

PROMPT = "Once upon a time"
PROMPT_TOKENS = 5  # the model's special token, then four


def expected():
    with open(os.path.join(harness.SOURCE, "tests/data/builtin-greedy.tokens"), encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def greedy_tokens_are_the_expected_ones(test):
    daemon = test.daemon(options=["--enforcement", "none"]).ready()
    ids = expected()
    said = daemon.generate(PROMPT, "--max-tokens", len(ids) - PROMPT_TOKENS, "--temperature", 0).require()
    assert said.ids == ids[PROMPT_TOKENS:], f"{said.ids}\nis not\n{ids[PROMPT_TOKENS:]}"
    assert said.reason == "length", said.reason
    assert said.done["prompt_tokens"] == PROMPT_TOKENS, said.done
    daemon.stop()


def tokenize_gives_the_prompt_s_ids(test):
    done = subprocess.run([test.thimble, "tokenize", "--model", harness.BUILTIN, PROMPT],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == expected()[:PROMPT_TOKENS], done.stdout


if __name__ == "__main__":
    harness.main(greedy_tokens_are_the_expected_ones, tokenize_gives_the_prompt_s_ids)
