#!/usr/bin/python3
"""Cancelling: a client that leaves frees its place at once; SIGTERM ends the daemon cleanly and soon."""

import os
import signal
import subprocess
import sys
import time

import harness

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

ENDLESS = ("--max-tokens", 3500, "--ignore-eos", "--temperature", 1, "--seed", 3)


def slow_daemon(test, *options):
    """One whose request of 3500 tokens lasts long after the test."""
    model = os.path.join(test.scratch, "slow.gguf")
    if not os.path.exists(model):
        make_model.make_llama(model, "Q8_0", seed=41, width=512, ffn=1024, layers=8, context=4096)
    return model, test.daemon(model=model, options=["--enforcement", "none", "--context", "4096",
                                                    *options]).ready()


def the_place_is_free_again(daemon):
    harness.wait_until(lambda: daemon.number("active_requests") == 0, 5, "no active request")
    said = daemon.generate("after that", "--max-tokens", 4, "--ignore-eos", seconds=30).require()
    assert len(said.ids) == 4


def ctrl_c_cancels(test):
    _, daemon = slow_daemon(test, "--max-active", "1")
    client = daemon.start_generate("hello", *ENDLESS)
    client.wait_for_tokens(3)
    assert daemon.number("active_requests") == 1
    client.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    said = client.finish(10)
    assert time.monotonic() - began < 5, "the client took long to end"
    assert said.status not in (0, -signal.SIGSEGV, -signal.SIGABRT), said.status
    assert 3 <= len(said.ids) < 3500
    the_place_is_free_again(daemon)
    daemon.stop()


def a_killed_client_frees_its_place(test):
    _, daemon = slow_daemon(test, "--max-active", "1")
    client = daemon.start_generate("hello", *ENDLESS)
    client.wait_for_tokens(3)
    client.process.kill()
    the_place_is_free_again(daemon)
    daemon.stop()


def cancel_in_the_middle_of_a_prompt(test):
    _, daemon = slow_daemon(test, "--max-active", "1", "--prompt-chunk", "8")
    client = daemon.start_generate("a long way to go " * 150, *ENDLESS)
    harness.wait_until(lambda: daemon.number("active_requests") == 1, 20, "the request is active")
    client.process.kill()
    the_place_is_free_again(daemon)
    daemon.stop()


def a_queued_request_is_cancelled_too(test):
    _, daemon = slow_daemon(test, "--max-active", "1", "--max-queue", "1")
    first = daemon.start_generate("hello", *ENDLESS)
    first.wait_for_tokens(1)
    second = daemon.start_generate("hello again", *ENDLESS)
    harness.wait_until(lambda: daemon.number("queued_requests") == 1, 10, "the second one waits")
    third = daemon.generate("and again", *ENDLESS, seconds=20)
    assert third.status != 0 and "RESOURCE_EXHAUSTED" in third.errors.upper(), third.errors
    second.process.send_signal(signal.SIGINT)
    assert second.finish(10).status != 0
    harness.wait_until(lambda: daemon.number("queued_requests") == 0, 5, "nobody waits")
    assert first.process.poll() is None, "the first request ended with the second"
    first.process.kill()
    the_place_is_free_again(daemon)
    daemon.stop()


def sigterm_ends_the_daemon_soon_and_the_request_goes_on_after(test):
    model, daemon = slow_daemon(test)
    client = daemon.start_generate("hello", *ENDLESS, "--request-id", "kept", "--reconnect", 0)
    client.wait_for_tokens(3)
    began = time.monotonic()
    daemon.stop(seconds=15)
    assert time.monotonic() - began < 10, "SIGTERM took long"
    said = client.finish(10)
    assert said.status != 0 and "UNAVAILABLE" in said.errors.upper(), said.errors
    assert not os.path.exists(daemon.socket), "the socket was left behind"
    again = test.daemon(model=model, state=daemon.state,
                        options=["--enforcement", "none", "--context", "4096"]).ready()
    harness.wait_until(lambda: again.number("active_requests") == 1, 10, "the request goes on")
    attached = again.start_generate("hello", *ENDLESS, "--request-id", "kept")
    attached.wait_for_tokens(len(said.ids) + 1)
    attached.process.kill()
    attached.finish()
    again.stop(seconds=15)


def sigterm_while_idle(test):
    daemon = test.daemon(options=["--enforcement", "none"]).ready()
    began = time.monotonic()
    daemon.stop(seconds=10)
    assert time.monotonic() - began < 5


def a_stopped_reader_does_not_hold_up_the_others(test):
    _, daemon = slow_daemon(test, "--max-active", "2")
    client = daemon.start_generate("hello", *ENDLESS)
    client.wait_for_tokens(1)
    client.process.send_signal(signal.SIGSTOP)
    try:
        said = daemon.generate("others", "--max-tokens", 100, "--ignore-eos", seconds=60).require()
        assert len(said.ids) == 100
    finally:
        client.process.send_signal(signal.SIGCONT)
    client.process.kill()
    the_place_is_free_again(daemon)
    daemon.stop()


def two_daemons_cannot_share_a_state_directory(test):
    daemon = test.daemon(options=["--enforcement", "none"]).ready()
    done = subprocess.run([test.thimbled, "--model", harness.BUILTIN, "--enforcement", "none", "--state-dir",
                           os.path.join(daemon.state, "data"), "--listen",
                           "unix:" + os.path.join(test.scratch, "other"), "--http", "off"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode not in (0, None) and done.returncode > 0, done.returncode
    daemon.generate("Once", "--max-tokens", 4).require()
    daemon.stop()


if __name__ == "__main__":
    harness.main(ctrl_c_cancels, a_killed_client_frees_its_place, cancel_in_the_middle_of_a_prompt,
                 a_queued_request_is_cancelled_too,
                 sigterm_ends_the_daemon_soon_and_the_request_goes_on_after, sigterm_while_idle,
                 a_stopped_reader_does_not_hold_up_the_others, two_daemons_cannot_share_a_state_directory)
