#!/usr/bin/python3
"""`thimble generate --request-id` goes on after the daemon was killed in the middle: nothing is told twice and
nothing is lost; without a name the client says what was lost."""

import os
import subprocess
import sys
import time

import harness

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

OPTIONS = ("--ignore-eos", "--temperature", "1", "--seed", "11", "--max-tokens", "150")


def start(test, state=None):
    """A daemon whose request of 150 tokens lasts some seconds, and can be killed meanwhile."""
    model = os.path.join(test.scratch, "slow.gguf")
    if not os.path.exists(model):
        make_model.make_llama(model, "Q8_0", seed=43, width=768, ffn=3072, layers=12)
    return test.daemon(model=model, state=state, options=["--enforcement", "none"]).ready()


def kill_and_restart(test, daemon, down_seconds=0.0):
    daemon.kill()
    time.sleep(down_seconds)
    return start(test, daemon.state)


def a_named_generation_goes_on_after_kill_9(test):
    daemon = start(test)
    whole = daemon.generate("hello", *OPTIONS).require()
    assert len(whole.ids) == 150
    client = daemon.start_generate("hello", *OPTIONS, "--request-id", "mine")
    for tokens in (10, 60, 110):
        client.wait_for_tokens(tokens)
        assert client.process.poll() is None, "it was done before the daemon could be killed"
        daemon = kill_and_restart(test, daemon, 0.5)
    said = client.finish().require()  # its indices are in order and none comes twice, see harness.Generation
    assert said.ids == whole.ids and said.text == whole.text
    assert sum(event["event"] == "started" for event in said.events) == 1, said.events[:4]
    assert "trying again" in said.errors, said.errors
    daemon.stop()


def plain_text_is_not_printed_twice(test):
    daemon = start(test)
    command = daemon.client("generate", "hello", *OPTIONS)
    whole = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    with subprocess.Popen([*command, "--request-id", "text"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as client:
        try:
            head = os.read(client.stdout.fileno(), 4)
            daemon = kill_and_restart(test, daemon)
            rest, errors = client.communicate(timeout=120)
            assert client.returncode == 0, errors
        finally:
            client.kill()
    assert head + rest == whole.stdout
    daemon.stop()


def a_daemon_that_stops_in_order_is_resumed_too(test):
    daemon = start(test)
    whole = daemon.generate("hello", *OPTIONS).require()
    client = daemon.start_generate("hello", *OPTIONS, "--request-id", "stopped")
    client.wait_for_tokens(5)
    daemon.stop()
    daemon = start(test, daemon.state)
    assert client.finish().require().ids == whole.ids
    daemon.stop()


def without_a_name_the_loss_is_said_and_what_would_help(test):
    daemon = start(test)
    client = daemon.start_generate("hello", *OPTIONS)
    client.wait_for_tokens(3)
    daemon.kill()
    said = client.finish(30)
    assert said.status == 1 and "UNAVAILABLE" in said.errors and "--request-id" in said.errors, said.errors


def patience_ends(test):
    daemon = start(test)
    client = daemon.start_generate("hello", *OPTIONS, "--request-id", "never", "--reconnect", "1")
    client.wait_for_tokens(3)
    daemon.kill()
    said = client.finish(30)
    assert said.status == 1 and "given up after 1 s" in said.errors, said.errors


def ctrl_c_ends_the_waiting(test):
    daemon = start(test)
    client = daemon.start_generate("hello", *OPTIONS, "--request-id", "never")
    client.wait_for_tokens(3)
    daemon.kill()
    harness.wait_until(lambda: "trying again" in "".join(client._errors), 10, "the client tries again")
    client.process.send_signal(2)
    assert client.finish(5).status == 130


if __name__ == "__main__":
    harness.main(a_named_generation_goes_on_after_kill_9, plain_text_is_not_printed_twice,
                 a_daemon_that_stops_in_order_is_resumed_too, without_a_name_the_loss_is_said_and_what_would_help,
                 patience_ends, ctrl_c_ends_the_waiting)
