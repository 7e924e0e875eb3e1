#!/usr/bin/python3
"""What people see on a terminal: `thimble top`, the spinner of `thimble generate`; and what scripts see instead."""

import json
import os
import re
import signal
import subprocess
import sys
import termios

import harness
from terminal import Terminal

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

FREE = ["--enforcement", "none"]
ERASED = "\r\x1b[K"


def slow_daemon(test, *options):
    model = os.path.join(test.scratch, "slow.gguf")
    make_model.make_llama(model, "Q8_0", seed=41, width=512, ffn=1024, layers=8, context=4096)
    return test.daemon(model=model, options=[*FREE, "--context", "4096", *options]).ready()


def top_draws_resizes_and_leaves(test):
    daemon = slow_daemon(test)
    busy = daemon.start_generate("hello", "--max-tokens", 3500, "--ignore-eos")
    busy.wait_for_tokens(1)
    with Terminal(daemon.client("top", "--interval", "0.1"), columns=100) as top:
        at = top.wait_for("\x1b[?1049h")
        at = top.wait_for("1 active", after=at)
        harness.wait_until(lambda: top.read(0.1) or re.search(r"[1-9]\d*\.\d/s generated", top.output), 20, "a rate")
        at = len(top.output)
        top.resize(40, 12)
        at = top.wait_for("\x1b[H", after=at)
        top.wait_for("\x1b[J", after=at)
        top.read(0.5)
        # Of the pictures after the change none is wider: the text between the escape sequences.
        for line in re.split(r"\r\n|\x1b\[H", top.output[at:]):
            assert len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line)) <= 40, line
        top.type("q")
        assert top.finish() == 0
        assert top.output.rstrip().endswith("\x1b[?1049l"), "the screen is as before"
        assert termios.tcgetattr(top.slave) == top.attributes, "the keys are as before"
    busy.process.send_signal(signal.SIGINT)
    busy.finish()
    daemon.stop()


def top_waits_for_the_daemon_to_come_back(test):
    daemon = test.daemon(options=FREE).ready()
    with Terminal(daemon.client("top", "--interval", "0.1")) as top:
        top.wait_for("idle")
        daemon.kill()
        at = top.wait_for("NOT CONNECTED")
        daemon = test.daemon(state=daemon.state, options=FREE).ready()
        # The last whole picture is one of the daemon.
        harness.wait_until(lambda: top.read(0.05) or top.output[at:].count("\x1b[J") > 1 and
                           "NOT CONNECTED" not in top.output[at:].split("\x1b[J")[-2], 20, "connected again")
        top.process.send_signal(signal.SIGTERM)
        assert top.finish() == 130
        assert termios.tcgetattr(top.slave) == top.attributes
    daemon.stop()


def top_without_a_terminal_is_plain_lines(test):
    daemon = test.daemon(options=FREE).ready()
    said = subprocess.run(daemon.client("top", "--interval", "0.1", "--count", "3"), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30, check=True)
    lines = said.stdout.splitlines()
    assert len(lines) == 3 and all(line.startswith("ready  memory ") for line in lines), said.stdout
    assert "\x1b" not in said.stdout
    daemon.stop()


def the_spinner_is_on_standard_error_and_leaves_nothing(test):
    daemon = slow_daemon(test, "--max-active", "1", "--prompt-chunk", "8")
    busy = daemon.start_generate("hello", "--max-tokens", 3500, "--ignore-eos")
    busy.wait_for_tokens(1)
    prompt = "a long way to go " * 40
    command = daemon.client("generate", prompt, "--max-tokens", "60", "--ignore-eos", "--seed", "1")
    with Terminal(command, stdout=subprocess.PIPE) as terminal:
        terminal.wait_for("queued at place 1")
        busy.process.send_signal(signal.SIGINT)
        busy.finish()
        terminal.wait_for("reading the prompt: ")
        text = terminal.process.stdout.read()  # the spinner's last lines fit the pty's buffer
        assert terminal.finish() == 0
        assert terminal.output.endswith(ERASED), terminal.output[-100:]
        assert "\n" not in terminal.output, "the spinner keeps to its line"
    plain = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    assert text == plain.stdout and plain.stderr == b"", plain.stderr
    daemon.stop()


def what_is_no_terminal_gets_no_escape_sequence(test):
    daemon = test.daemon(options=FREE).ready()
    for arguments in (("generate", "Once", "--max-tokens", "8"), ("status",), ("plan",), ("tokenize", "Once"),
                      ("health",), ("version",)):
        said = subprocess.run(daemon.client(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=True)
        assert "\x1b" not in said.stdout + said.stderr and said.stderr == "", (arguments, said.stderr)
    daemon.stop()


def plan_and_tokenize_are_the_same_with_and_without_the_daemon(test):
    daemon = test.daemon(options=FREE).ready()
    text = "Once upon a time, <|endoftext|> caf\u00e9"

    def output(*arguments):
        return subprocess.run(daemon.client(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=True).stdout
    for options in ((), ("--special",), ("--pieces",), ("--json",), ("--pieces", "--json")):
        of_file = output("tokenize", text, "--model", harness.BUILTIN, *options)
        assert output("tokenize", text, *options) == of_file, options
    of_daemon = json.loads(output("plan", "--json"))
    # Without a daemon nobody has measured flash and processor.
    shared = of_daemon.pop("shared_prompt_rows")
    assert 1 <= shared <= of_daemon["rows"], of_daemon
    told = f'{of_daemon["rows"]} a pass at most, {shared} of a prompt while tokens of others wait for it\n'
    assert (told in output("plan")) == (shared < of_daemon["rows"])
    assert of_daemon == json.loads(output("plan", "--json", "--model", harness.BUILTIN))
    daemon.stop()


def health_is_an_exit_status(test):
    daemon = test.daemon(options=FREE).ready()
    for options, said in (((), "ready\n"), (("--live",), "alive\n"), (("--quiet",), "")):
        done = subprocess.run(daemon.client("health", *options), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, said), done
    daemon.kill()
    done = subprocess.run(daemon.client("health"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                          check=False)
    assert done.returncode == 1 and "is thimbled running" in done.stderr, done
    done = subprocess.run(daemon.client("version"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == 3 and done.stdout.startswith("thimble "), done


if __name__ == "__main__":
    harness.main(top_draws_resizes_and_leaves, top_waits_for_the_daemon_to_come_back,
                 top_without_a_terminal_is_plain_lines, the_spinner_is_on_standard_error_and_leaves_nothing,
                 what_is_no_terminal_gets_no_escape_sequence,
                 plan_and_tokenize_are_the_same_with_and_without_the_daemon, health_is_an_exit_status)
