#!/usr/bin/python3
"""The command line of `thimble` as a newcomer meets it: what is refused says what is wrong and what would do."""

import os
import subprocess

import harness
from harness import BUILTIN


def usage(test):
    """Each is exit status 2, without a daemon, and the message contains the text."""
    out = os.path.join(test.scratch, "out")
    for arguments, text in (
            ([], "a command is missing; there are generate, chat, top"),
            (["gen"], '"gen" is no command'),
            (["generate"], "PROMPT or --tokens is missing"),
            (["generate", "a", "--tokens", "1"], "exclude each other"),
            (["generate", "a", "--max-tokens", "abc"], "--max-tokens"),
            (["generate", "a", "--frobnicate"], "--frobnicate"),
            (["generate", "a", "--reconnect", "5"], "--request-id"),
            (["generate", "--tokens", ""], '--tokens "": at least one id'),
            (["generate", "--tokens", "1 b"], '"b" is not a token id'),
            (["generate", b"caf\xe9"], "PROMPT: not UTF-8: byte 0xe9 at offset 3"),
            (["generate", "a", "--stop", b"\xff"], "--stop: not UTF-8: byte 0xff at offset 0"),
            (["generate", "a", "--request-id", b"\xff"], "--request-id: not UTF-8"),
            (["tokenize", b"\xff"], "TEXT: not UTF-8"),
            (["chat", "--system", b"\xff"], "--system: not UTF-8"),
            (["plan", "--ram-ceiling", "16M"], "--model"),
            (["top", "--interval", "0"], "--interval"),
            (["--connect", "somewhere", "status"], '"somewhere"')):
        done = subprocess.run([test.thimble, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
                              check=False)
        message = done.stderr.decode(errors="replace")
        assert done.returncode == 2, (arguments, done.returncode, message)
        assert text in message and done.stdout == b"", (arguments, message)
        assert message.startswith("thimble"), message
    done = subprocess.run([test.thimble, "logits", "--model", BUILTIN, "--tokens", "1", "--out", out, "--ram-ceiling",
                           "1M"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "--ram-ceiling 1M: the daemon itself takes 8.0 MiB" in done.stderr, done.stderr
    noise = subprocess.run([test.thimble, "generate", "-"], input=b"\xc3", capture_output=True, timeout=30, check=False)
    assert noise.returncode == 2 and b"standard input: not UTF-8" in noise.stderr, noise.stderr


def no_daemon_says_what_to_look_at(test):
    socket = "unix:" + os.path.join(test.scratch, "nobody")
    for command in (["generate", "a"], ["chat"], ["top"], ["status"], ["plan"], ["tokenize", "a"], ["version"]):
        done = subprocess.run([test.thimble, "--connect", socket, *command], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 3, (command, done.returncode)
        assert "No such file" in done.stderr and f"--listen {socket}" in done.stderr, done.stderr


def every_command_explains_itself(test):
    def text(*arguments):
        return subprocess.run([test.thimble, *arguments, "--help"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=30, check=True).stdout
    whole = text()
    assert "Exit status: 0 success" in whole
    commands = [line.split()[0] for line in whole.split("Subcommands:")[1].split("\n\n")[0].splitlines() if line.strip()]
    assert {"generate", "chat", "plan", "status", "top", "tokenize", "health", "version"} <= set(commands), commands
    with open(os.path.join(harness.SOURCE, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    for command in commands:
        shown = text(command)
        assert "Exit status: 0" in shown, command
        assert f"`thimble {command}" in readme, f"README.md lacks thimble {command}"


if __name__ == "__main__":
    harness.main(usage, no_daemon_says_what_to_look_at, every_command_explains_itself)
