#!/usr/bin/python3
"""The same text byte for byte, whatever the ceiling, granularity, prompt chunk, speculation, company and restarts."""

import itertools
import json
import os
import subprocess
import sys

import harness

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

# About 100 tokens of the built-in model: prompt chunks of 64 and KV blocks of 32 end inside.
STORY = ("Once upon a time there was a little fox named Tim. Tim lived near a big green forest with his "
         "mother. One day he found a shiny red ball under a tree. He wanted to show it to his friend, the "
         "old owl, who knew many stories about the forest. The owl looked at the ball and said, ")
OTHERS = ["A small boat sailed over the blue lake. ", "The cat sat on the warm roof and looked at the moon. ",
          "Mia liked to bake bread with her grandfather on Sunday. "]
GREEDY = ("--temperature", 0)
SAMPLED = ("--temperature", 0.9, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.02, "--repeat-penalty", 1.1,
           "--seed", 11)
TOKENS = 64


def both(daemon, *options):
    """(ids, text) of the greedy and of the sampled continuation."""
    texts = []
    for sampling in (GREEDY, SAMPLED):
        said = daemon.generate(STORY, "--max-tokens", TOKENS, "--ignore-eos", *sampling, *options).require()
        assert len(said.ids) == TOKENS, f"{len(said.ids)} tokens"
        texts.append((said.ids, said.text.encode()))
    return texts


def ceilings():
    """The options of each ceiling; enforced by a control group where one can be made."""
    enforcement = "cgroup" if harness.can_make_groups() else "none"
    return [("--ram-ceiling", "16M", "--enforcement", enforcement),
            ("--ram-ceiling", "64M", "--enforcement", enforcement), ("--enforcement", "none")]


def every_way(test, model):
    reference = None
    guessed = right = 0
    for ceiling, granularity, (chunk, drafts) in itertools.product(ceilings(), ("head", "op", "auto"),
                                                                   ((1, 8), (64, 0))):
        options = [*ceiling, "--granularity", granularity, "--prompt-chunk", str(chunk),
                   "--draft-tokens", str(drafts)]
        daemon = test.daemon(model=model, options=options).ready()
        texts = both(daemon)
        if reference is None:
            reference = texts
            assert texts[0] != texts[1], "greedy and sampled text are the same: nothing is sampled"
        assert texts == reference, f"another text with {' '.join(options)}"
        # Once more, from the prompt's keys and values as the cache kept them.
        assert both(daemon) == reference, f"another text from the cache with {' '.join(options)}"
        guessed += daemon.number("draft_tokens_total")
        right += daemon.number("draft_tokens_accepted_total")
        daemon.stop()
    assert 0 < right < guessed, f"{right} of {guessed} guesses were right: both kinds are to be seen"


def the_built_in_model_says_the_same_every_way(test):
    every_way(test, harness.BUILTIN)


def a_llama_model_says_the_same_every_way(test):
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q4_K", seed=21)
    every_way(test, model)


def guesses_change_nothing(test):
    # Long greedy texts of a model of random weights repeat themselves: guesses are right there, and wrong elsewhere.
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q8_0", seed=24, width=256, ffn=512, layers=4, context=1024)
    cold = ("--temperature", 0.2, "--top-k", 40, "--repeat-penalty", 1.05, "--seed", 3)
    reference = None
    for drafts in (0, 1, 16):
        daemon = test.daemon(model=model, options=["--enforcement", "none", "--draft-tokens", str(drafts)]).ready()
        clients = [daemon.start_generate(text, "--max-tokens", 600, "--ignore-eos", *sampling)
                   for text in OTHERS[:2] for sampling in (GREEDY, cold)]
        said = [client.finish().require() for client in clients]
        texts = [(one.ids, one.text.encode()) for one in said]
        reference = reference or texts
        assert texts == reference, f"another text with {drafts} draft tokens"
        daemon.stop()


def company_changes_nothing(test):
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q8_0", seed=22, width=512, ffn=1024, layers=8, context=2048)
    alone = test.daemon(model=model, options=["--enforcement", "none"]).ready()
    reference = both(alone)
    alone.stop()
    daemon = test.daemon(model=model, options=["--enforcement", "none", "--max-active", "4"]).ready()
    # 1900 passes of theirs last several times as long as two clients' start and 64 tokens each.
    others = [daemon.start_generate(text, "--max-tokens", 1900, "--ignore-eos", "--temperature", 1, "--seed", 5)
              for text in OTHERS]
    for other in others:
        other.wait_for_tokens(1)
    assert both(daemon) == reference, "another text beside three other requests"
    assert all(other.process.poll() is None for other in others), "the others ended too early to be company"
    beside = [other.finish().require() for other in others]
    for text, said in zip(OTHERS, beside):
        again = daemon.generate(text, "--max-tokens", 1900, "--ignore-eos", "--temperature", 1, "--seed", 5)
        assert again.require().ids == said.ids, "one of the others had another text than alone"
    daemon.stop()


def a_prompt_has_the_plans_rows_while_another_request_generates(test):
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q8_0", seed=22, width=512, ffn=1024, layers=8, context=2048)
    daemon = test.daemon(model=model, options=["--enforcement", "none"]).ready()

    def said(*arguments):
        done = subprocess.run(daemon.client(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def rows_of_passes(seed):
        """Of a request with a prompt of 300 tokens that no other begins with."""
        ids = " ".join(str(300 + (seed * 79 + i * 31) % 200) for i in range(300))
        ends = [event["done"] for event in said("generate", "--json", "--tokens", ids, "--max-tokens", "1")
                if event["event"] == "prompt_progress"]
        return [end - begin for begin, end in zip([0] + ends, ends)]
    plan = said("plan", "--json")[0]
    alone = rows_of_passes(1)
    assert sum(alone) == 300 and max(alone) == plan["rows"], alone
    other = daemon.start_generate(OTHERS[0], "--max-tokens", 1900, "--ignore-eos", "--temperature", 1)
    other.wait_for_tokens(1)
    beside = rows_of_passes(2)
    assert other.process.poll() is None, "the other ended too early to be company"
    assert sum(beside) == 300 and max(beside) == plan["shared_prompt_rows"], beside
    other.finish().require()
    daemon.stop()


def a_kill_in_the_middle_changes_nothing(test):
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q8_0", seed=23, width=512, ffn=1024, layers=6, context=1024)
    request = (STORY, "--max-tokens", 300, "--ignore-eos", *SAMPLED)
    options = ["--enforcement", "none"]
    daemon = test.daemon(model=model, options=options).ready()
    reference = daemon.generate(*request).require()
    daemon.stop()
    for kill_after in (1, 40, 200):
        daemon = test.daemon(model=model, options=options).ready()
        name = f"story-{kill_after}"
        client = daemon.start_generate(*request, "--request-id", name, "--reconnect", 0)
        client.wait_for_tokens(kill_after)
        daemon.kill()
        cut = client.finish()
        assert cut.status != 0 and len(cut.ids) < 300, "the daemon was killed too late"
        assert cut.ids == reference.ids[:len(cut.ids)], "another text before the kill"
        daemon = test.daemon(model=model, state=daemon.state, options=options).ready()
        whole = daemon.generate(*request, "--request-id", name).require()
        assert whole.ids == reference.ids, f"another text after a kill at {len(cut.ids)} tokens"
        assert whole.text == reference.text, "the same ids, but another text"
        daemon.stop()


if __name__ == "__main__":
    harness.main(the_built_in_model_says_the_same_every_way, a_llama_model_says_the_same_every_way, guesses_change_nothing,
                 company_changes_nothing, a_kill_in_the_middle_changes_nothing)
