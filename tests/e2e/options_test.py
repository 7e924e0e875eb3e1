#!/usr/bin/python3
"""thimbled's options through the program itself: --check-config, the sources in order, SIGHUP, other machines."""

import os
import re
import signal
import socket
import subprocess

import harness
from harness import BUILTIN, wait_until

FREE = ("--enforcement", "none")


def check_config(test, *arguments, environment=None):
    """thimbled --check-config: its exit status, standard output and standard error."""
    done = subprocess.run([test.thimbled, "--check-config", *arguments], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30, env={**os.environ, **(environment or {})})
    return done.returncode, done.stdout, done.stderr


def config_file(test, text):
    path = os.path.join(test.scratch, "thimbled.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def check_config_tells_values_and_sources(test):
    path = config_file(test, "# comment\n\nmax-active = 3\nmax-queue = 7\n")
    status, output, errors = check_config(test, "--config", path, "--max-queue", "8",
                                          environment={"THIMBLE_LOG_LEVEL": "warning"})
    assert status == 0 and not errors, errors
    for expected in (rf"^max-active = 3 +# {re.escape(path)}:3$", r"^max-queue = 8 +# command line$",
                     r"^log-level = warning +# THIMBLE_LOG_LEVEL$", r"^prompt-chunk = \d+ +# default$",
                     r"^# model: .*gpt2, 6 layers"):
        assert re.search(expected, output, re.MULTILINE), f"{expected} in\n{output}"


def check_config_tells_every_mistake(test):
    path = config_file(test, "max-active = none\nfrobnicate = 1\n")
    status, _, errors = check_config(test, "--config", path, environment={"THIMBLE_MAX_QUE": "1"})
    assert status == 2, status
    lines = errors.splitlines()
    assert lines[0].startswith(f"thimbled: {path}:1: max-active = none: "), errors
    assert lines[1].startswith(f"thimbled: {path}:2: frobnicate: "), errors
    assert lines[2].startswith("thimbled: THIMBLE_MAX_QUE: "), errors


def check_config_reads_the_models_header(test):
    status, _, errors = check_config(test, "--config", "/dev/null", "--model", "/nowhere.gguf")
    assert status == 1 and "/nowhere.gguf" in errors, (status, errors)
    status, _, errors = check_config(test, "--config", "/dev/null", "--model", BUILTIN, "--context", "100000")
    assert status == 1 and "--context 100000" in errors, (status, errors)


def sighup_rereads_the_file(test):
    path = config_file(test, "max-active = 2\n")
    daemon = test.daemon(options=[*FREE, "--config", path]).ready()
    config_file(test, "max-active = 3\nlog-level = warning\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "option=max-active" in daemon.log(), 10, "the reload is logged")
    assert re.search(r'option=max-active before=2 after=3 effect="after a restart"', daemon.log()), daemon.log()
    assert re.search(r"option=log-level before=info after=warning effect=now", daemon.log()), daemon.log()
    config_file(test, "nonsense\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: f"{path}:1:" in daemon.log(), 10, "the mistake is logged")
    assert daemon.generate("The old boat", "--max-tokens", 3).require().reason == "length"
    daemon.stop()
    assert "event=stopped" not in daemon.log(), "level=info lines after log-level = warning"


def other_machines_need_a_flag_and_are_warned_of(test):
    # Taken for another machine's reach, as every address but 127.0.0.0/8 and ::1, and yet within this one.
    try:
        with socket.socket(socket.AF_INET6) as chosen:
            chosen.bind(("::ffff:127.0.0.1", 0))
            address = f"[::ffff:127.0.0.1]:{chosen.getsockname()[1]}"
    except OSError as error:
        raise harness.Skip(f"no IPv6: {error}") from error
    status, _, errors = check_config(test, "--config", "/dev/null", "--http", address)
    assert status == 2 and "--allow-remote" in errors, (status, errors)
    daemon = test.daemon(options=[*FREE, "--allow-remote", "--http", address]).ready()
    assert f"level=warning event=remote option=http address={address}" in daemon.log(), daemon.log()
    assert "option=listen" not in daemon.log()
    daemon.stop()


def no_text_of_anyone_is_logged(test):
    daemon = test.daemon(options=FREE).ready()
    done = daemon.generate("The xyzzy old boat", "--max-tokens", 12, "--temperature", 0).require()
    daemon.stop()
    assert "event=ready" in daemon.log() and len(done.text) > 20
    assert "xyzzy" not in daemon.log() and done.text.strip()[:20] not in daemon.log(), daemon.log()


def journald_gets_priorities(test):
    """Where JOURNAL_STREAM names standard error, and only there."""
    for named, expected in ((True, "<6>event="), (False, " level=info event=")):
        with open(os.path.join(test.scratch, "journal"), "w+", encoding="utf-8") as log:
            info = os.fstat(log.fileno())
            stream = f"{info.st_dev}:{info.st_ino if named else info.st_ino + 1}"
            process = subprocess.Popen(
                [test.thimbled, "--config", "/dev/null", *FREE, "--state-dir", os.path.join(test.scratch, "s"),
                 "--listen", "unix:" + os.path.join(test.scratch, "socket"), "--http", "off"],
                stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, "JOURNAL_STREAM": stream})
            try:
                with open(log.name, encoding="utf-8") as written:
                    text = wait_until(lambda: written.seek(0) == 0 and written.read(), 30, "a line of the log")
            finally:
                process.terminate()
                process.wait(30)
            assert expected in text, text
            assert text.startswith("<") == named, text


if __name__ == "__main__":
    harness.main(check_config_tells_values_and_sources, check_config_tells_every_mistake,
                 check_config_reads_the_models_header, sighup_rereads_the_file,
                 other_machines_need_a_flag_and_are_warned_of, no_text_of_anyone_is_logged,
                 journald_gets_priorities)
