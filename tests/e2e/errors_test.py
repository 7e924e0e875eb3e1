#!/usr/bin/python3
"""What goes wrong goes wrong cleanly: a message with the object and the number, and the daemon goes on."""

import os
import re
import subprocess
import sys

import harness
from harness import BUILTIN, MIB

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

FREE = ("--enforcement", "none")


def refused(test, program, *arguments):
    """Runs a command that must fail by itself, soon, with a message and not by a signal: the message."""
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30)
    assert 0 < done.returncode < 126, f"{arguments}: exit status {done.returncode}: {done.stderr}"
    assert done.stderr.strip(), f"{arguments}: no message"
    return done.stderr


def daemon_refuses(test, *options):
    return refused(test, test.thimbled, "--config", "/dev/null", "--state-dir", os.path.join(test.scratch, "data"), "--listen",
                   "unix:" + os.path.join(test.scratch, "socket"), "--http", "off", *options)


def a_missing_model_is_named(test):
    path = os.path.join(test.scratch, "nowhere.gguf")
    assert path in daemon_refuses(test, *FREE, "--model", path)
    assert path in refused(test, test.thimble, "plan", "--model", path)
    assert path in refused(test, test.thimble, "tokenize", "--model", path, "hello")


def garbage_is_not_a_model(test):
    path = os.path.join(test.scratch, "garbage.gguf")
    with open(BUILTIN, "rb") as file:
        real = file.read()
    cases = {"nothing": b"", "noise": bytes(range(256)) * 16, "magic only": b"GGUF",
             "a directory listing": b"GGUF" + b"\xff" * 4096, "half a model": real[:len(real) // 2],
             "half a header": real[:2000], "one byte short": real[:-1]}
    for name, content in cases.items():
        with open(path, "wb") as file:
            file.write(content)
        assert "garbage.gguf" in daemon_refuses(test, *FREE, "--model", path), name
        refused(test, test.thimble, "logits", "--model", path, "--tokens", "1", "--out",
                os.path.join(test.scratch, "out"))
    assert test.scratch in daemon_refuses(test, *FREE, "--model", test.scratch), "a directory is not a model"


def unknown_options_and_values_are_named(test):
    for arguments, named in ((["--frobnicate"], "frobnicate"), (["--ram-ceiling", "banana"], "banana"),
                             (["--context", "0"], "--context"), (["--granularity", "tiny"], "tiny"),
                             (["--enforcement", "please"], "please"), (["--max-active", "-1"], "--max-active"),
                             (["--reader", "aloud"], "aloud")):
        message = daemon_refuses(test, *arguments)
        assert named in message, f"{arguments}: {message}"
    assert "nonsense" in refused(test, test.thimbled, "--listen", "nonsense")
    assert "frobnicate" in refused(test, test.thimble, "frobnicate")
    assert "--frobnicate" in refused(test, test.thimble, "status", "--frobnicate")


def a_ceiling_too_small_says_what_would_do(test):
    message = daemon_refuses(test, "--model", BUILTIN, "--enforcement", "none", "--ram-ceiling", "1M")
    assert re.search(r"\d (KiB|MiB|bytes)", message), message
    assert re.search(r"\d (KiB|MiB|bytes)",
                     refused(test, test.thimble, "plan", "--model", BUILTIN, "--ram-ceiling", "1M"))


def no_daemon_is_said_so(test):
    socket = os.path.join(test.scratch, "nobody")
    for command in (["status"], ["generate", "hello"]):
        assert "nobody" in refused(test, test.thimble, "--connect", "unix:" + socket, *command)


def a_prompt_too_long_says_how_much_fits(test):
    daemon = test.daemon(options=[*FREE, "--context", "64"]).ready()
    long = daemon.generate(" a" * 100, "--max-tokens", 4)
    assert long.status != 0 and not long.ids
    counted = subprocess.run([test.thimble, "tokenize", "--model", BUILTIN, " a" * 100],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30)
    prompt_tokens = len(counted.stdout.split())
    numbers = [int(number) for number in re.findall(r"\d+", long.errors)]
    assert prompt_tokens in numbers, f"the prompt's {prompt_tokens} tokens are not named: {long.errors}"
    assert 63 in numbers, f"the 63 tokens that would fit are not named: {long.errors}"
    # That number does fit: one token of room, then the context is full.
    fits = " a" * (100 - (prompt_tokens - 63))
    said = daemon.generate(fits, "--max-tokens", 4, "--ignore-eos").require()
    assert said.done["prompt_tokens"] == 63 and said.reason == "context", said.done
    assert len(said.ids) >= 1
    daemon.stop()


def bad_fields_are_named(test):
    daemon = test.daemon(options=FREE).ready()
    for options, field in ((("--temperature", -1), "temperature"), (("--top-p", 1.5), "top_p"),
                           (("--min-p", 2), "min_p"), (("--max-tokens", 0), "max_tokens"),
                           (("--max-tokens", 100000), "max_tokens")):
        said = daemon.generate("hello", *options)
        assert said.status > 0 and not said.ids, options
        assert field in said.errors.replace("-", "_"), f"{options}: {said.errors}"
    assert daemon.generate("", "--max-tokens", 4).status >= 0
    daemon.generate("Once", "--max-tokens", 4).require()
    daemon.stop()


def a_request_id_names_one_request(test):
    daemon = test.daemon(options=FREE).ready()
    first = daemon.generate("Once", "--max-tokens", 8, "--seed", 1, "--request-id", "mine").require()
    same = daemon.generate("Once", "--max-tokens", 8, "--seed", 1, "--request-id", "mine").require()
    assert same.ids == first.ids and same.text == first.text
    other = daemon.generate("Twice", "--max-tokens", 8, "--seed", 1, "--request-id", "mine")
    assert other.status > 0 and "ALREADY_EXISTS" in other.errors.upper(), other.errors
    daemon.stop()


def a_cache_too_small_for_its_requests_says_what_would_do(test):
    # 24 layers of 512 bytes of keys and values a token: 4 requests of 512 tokens take 30 MiB.
    model = os.path.join(test.scratch, "deep.gguf")
    make_model.make_llama(model, "F16", seed=51, width=128, heads=4, kv_heads=4, ffn=128, layers=24,
                          context=4096)
    options = [*FREE, "--model", model, "--context", "512"]
    message = daemon_refuses(test, *options, "--cache-size", "16M")
    assert "--cache-size 16" in message and "4 requests" in message and "512 tokens" in message, message
    enough = re.search(r"need (\d+M)", message).group(1)
    daemon = test.daemon(model=model, options=[*FREE, "--context", "512", "--cache-size", enough]).ready()
    # As many as may be active, each of another long prompt.
    clients = [daemon.start_generate(f"{word} the house " * 50, "--max-tokens", 4, "--ignore-eos")
               for word in ("near", "in", "on", "by")]
    for client in clients:
        client.finish(300).require()
    daemon.stop()


def a_full_disk_fails_the_request_alone(test):
    state = os.path.join(test.scratch, "small-disk")
    os.mkdir(state)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "thimble-e2e", state],
                             stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if mounted.returncode != 0:
        raise harness.Skip("no file system can be mounted here")
    try:
        model = os.path.join(test.scratch, "deep.gguf")
        make_model.make_llama(model, "F16", seed=51, width=128, heads=4, kv_heads=4, ffn=128, layers=24,
                              context=4096)
        daemon = test.daemon(model=model, state=state, options=[*FREE, "--context", "4096"]).ready()
        full = daemon.generate("the house " * 400, "--max-tokens", 4, "--ignore-eos", seconds=300)
        assert full.status > 0, "2400 tokens do not fit a disk of 12 MiB"
        assert re.search("RESOURCE_EXHAUSTED|No space left", full.errors, re.IGNORECASE), full.errors
        assert daemon.alive() and daemon.status(), "the daemon goes on"
        daemon.stop()
    finally:
        for daemon in test.daemons:
            daemon.kill()
        subprocess.run(["umount", state], stdin=subprocess.DEVNULL, check=False)


def a_disk_that_fills_up_fails_requests_until_there_is_room(test):
    state = os.path.join(test.scratch, "filling-disk")
    os.mkdir(state)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "thimble-e2e", state],
                             stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if mounted.returncode != 0:
        raise harness.Skip("no file system can be mounted here")
    try:
        daemon = test.daemon(state=state, options=FREE).ready()
        daemon.generate("Once", "--max-tokens", 4).require()
        filler = os.path.join(state, "filler")
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 65536) == 65536:
                    pass
            except OSError:
                pass
        ended = [daemon.generate(f"{word} upon a time " * 20, "--max-tokens", 60, "--ignore-eos",
                                 "--request-id", word) for word in ("once", "twice", "thrice")]
        for said in ended:
            assert said.status == 0 or re.search("RESOURCE_EXHAUSTED|No space left", said.errors,
                                                 re.IGNORECASE), said.errors
            assert said.status == 0 or "journal" not in said.errors, "the journal's place is kept: " + said.errors
        assert daemon.alive() and daemon.status(), "the daemon goes on"
        os.remove(filler)
        for word in ("once", "twice", "thrice", "again"):
            said = daemon.generate(f"{word} upon a time " * 20, "--max-tokens", 60, "--ignore-eos")
            assert len(said.require().ids) == 60, "there is room again"
        daemon.stop()
    finally:
        for daemon in test.daemons:
            daemon.kill()
        subprocess.run(["umount", state], stdin=subprocess.DEVNULL, check=False)


def a_model_file_that_shrinks_is_an_error_not_a_crash(test):
    model = os.path.join(test.scratch, "shrinks.gguf")
    make_model.make_llama(model, "Q8_0", seed=52, width=512, ffn=1536, layers=12)
    assert os.path.getsize(model) > 32 * MIB
    daemon = test.daemon(model=model, options=[*FREE, "--ram-ceiling", "16M"]).ready()
    daemon.generate("hello", "--max-tokens", 2, "--ignore-eos").require()
    os.truncate(model, 2 * MIB)
    said = daemon.generate("something else", "--max-tokens", 4, "--ignore-eos")
    assert said.status > 0 and not said.ids, "tokens from a model that is gone"
    assert said.errors.strip()
    assert daemon.alive(), f"thimbled ended with {daemon.process.returncode}"
    daemon.status()
    daemon.stop()


if __name__ == "__main__":
    harness.main(a_missing_model_is_named, garbage_is_not_a_model, unknown_options_and_values_are_named,
                 a_ceiling_too_small_says_what_would_do, no_daemon_is_said_so,
                 a_prompt_too_long_says_how_much_fits, bad_fields_are_named, a_request_id_names_one_request,
                 a_cache_too_small_for_its_requests_says_what_would_do, a_full_disk_fails_the_request_alone,
                 a_disk_that_fills_up_fails_requests_until_there_is_room,
                 a_model_file_that_shrinks_is_an_error_not_a_crash)
