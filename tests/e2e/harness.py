"""Starts real programs for the end-to-end tests: thimbled in a directory and, where it can be made, a memory
control group of its own, and the `thimble` command beside it, read through --json.

Standard library only. Every process and group made here is ended and removed by its own id when the test
ends, also when it fails. Memory: what the clients print.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
# Options come from the tests alone.
for variable in [name for name in os.environ if name.startswith("THIMBLE_")]:
    del os.environ[variable]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILTIN = os.path.join(SOURCE, "daemon/model/builtin/thimble-stories-q8_0.gguf")
SMOLLM2 = os.path.join(SOURCE, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
MIB = 1 << 20
SKIPPED = 77  # ctest's SKIP_RETURN_CODE, see CMakeLists.txt


def size_bytes(text):
    """"64M" to bytes."""
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


def wait_until(condition, seconds, what):
    """Polls until the condition holds and returns its value; fails after the given time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class MemoryGroup:
    """A memory control group made by the test, version 1 or 2."""

    V1 = "/sys/fs/cgroup/memory"
    V2 = "/sys/fs/cgroup"
    made = 0

    def __init__(self, limit):
        MemoryGroup.made += 1
        self.version = 1 if os.path.exists(self.V1 + "/memory.limit_in_bytes") else 2
        base = self.V1 if self.version == 1 else self.V2
        self.directory = f"{base}/thimble-e2e-{os.getpid()}-{MemoryGroup.made}"
        os.mkdir(self.directory)
        try:
            if self.version == 1:
                self.write("memory.limit_in_bytes", limit)
            else:
                self.write("memory.max", limit)
                if os.path.exists(self.directory + "/memory.swap.max"):
                    self.write("memory.swap.max", 0)
        except OSError:
            os.rmdir(self.directory)
            raise
        self.limit = limit

    def write(self, name, value):
        with open(f"{self.directory}/{name}", "w", encoding="ascii") as file:
            file.write(f"{value}\n")

    def read(self, name):
        with open(f"{self.directory}/{name}", encoding="ascii") as file:
            return file.read()

    def enter(self):
        """For subprocess's preexec_fn: the child moves itself here."""
        with open(f"{self.directory}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0\n")

    def peak(self):
        return int(self.read("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"))

    def oom_kills(self):
        text = self.read("memory.oom_control" if self.version == 1 else "memory.events")
        return int(re.search(r"^oom_kill (\d+)", text, re.MULTILINE).group(1))

    def remove(self):
        # A group that the daemon made inside, if it had to be killed, goes first.
        for name in os.listdir(self.directory):
            if os.path.isdir(f"{self.directory}/{name}"):
                os.rmdir(f"{self.directory}/{name}")
        for _ in range(100):
            try:
                os.rmdir(self.directory)
                return
            except OSError:  # v1 takes a moment after the last process
                time.sleep(0.05)


def can_make_groups():
    try:
        MemoryGroup(64 * MIB).remove()
        return True
    except OSError:
        return False


def drop_page_cache():
    """So that what is read from here on is charged to the group that reads it; needs root."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
        return True
    except OSError:
        return False


class Generation:
    """What one `thimble generate --json` said."""

    def __init__(self, status, output, errors):
        self.status, self.errors = status, errors
        self.events = [json.loads(line) for line in output.splitlines() if line.strip()]
        tokens = [event for event in self.events if event["event"] == "token"]
        done = [event for event in self.events if event["event"] == "done"]
        self.ids = [token["id"] for token in tokens]
        self.text = "".join(token.get("text", "") for token in tokens)
        self.done = done[0] if done else {}
        self.text += self.done.get("tail", "")
        self.reason = self.done.get("reason")
        assert [token.get("index", 0) for token in tokens] == list(range(len(tokens))), "indices in order"

    def require(self):
        assert self.status == 0, f"thimble generate: exit status {self.status}: {self.errors.strip()}"
        return self


class Client:
    """A running `thimble generate --json`, read line by line."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self._lines, self._errors = [], []
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True)
                         for pair in ((self.process.stdout, self._lines), (self.process.stderr, self._errors))]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line)

    def tokens_seen(self):
        return sum('"token"' in line for line in list(self._lines))

    def wait_for_tokens(self, n, seconds=60):
        wait_until(lambda: self.tokens_seen() >= n or self.process.poll() is not None, seconds,
                   f"{n} tokens (there are {self.tokens_seen()})")
        assert self.tokens_seen() >= n, "the client ended: " + "".join(self._errors)

    def finish(self, seconds=120):
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return Generation(status, "".join(self._lines), "".join(self._errors))

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Daemon:
    def __init__(self, test, model=BUILTIN, state=None, group=None, options=(), environment=None):
        self.test, self.group = test, group
        self.state = state or tempfile.mkdtemp(prefix="state-", dir=test.scratch)
        self.socket = os.path.join(self.state, "socket")
        self.log_path = os.path.join(self.state, "log")
        command = [test.thimbled, "--model", model, "--state-dir", os.path.join(self.state, "data"),
                   *options]
        if "--listen" not in options:
            command += ["--listen", "unix:" + self.socket]
        if "--config" not in options:  # not this machine's own
            command += ["--config", "/dev/null"]
        if "--http" not in options:  # several daemons run at a time, and the port is one
            command += ["--http", "off"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **(environment or {})},
                                            preexec_fn=group.enter if group else None)
        test.daemons.append(self)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def client(self, *arguments):
        return [self.test.thimble, "--connect", "unix:" + self.socket, *arguments]

    def ready(self, seconds=60):
        """Waits until it answers; returns itself."""
        def answers():
            if self.process.poll() is not None:
                raise AssertionError(f"thimbled ended with {self.process.returncode}: {self.log()[-2000:]}")
            return subprocess.run(self.client("status", "--json"), stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=30).returncode == 0
        wait_until(answers, seconds, "thimbled answers")
        return self

    def exit_status(self, seconds=30):
        """Of a daemon that is expected to end by itself."""
        return self.process.wait(seconds)

    def status(self):
        done = subprocess.run(self.client("status", "--json"), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"thimble status: {done.stderr}"
        return json.loads(done.stdout)

    def number(self, name):
        return int(self.status().get(name, 0))

    def start_generate(self, prompt, *options):
        client = Client(self.client("generate", prompt, "--json", *map(str, options)))
        self.test.clients.append(client)
        return client

    def generate(self, prompt, *options, seconds=120):
        return self.start_generate(prompt, *options).finish(seconds)

    def memory(self, field):
        """Bytes of a field of /proc/PID/status, as "RssAnon"."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as file:
            return int(re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE).group(1)) * 1024

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=20):
        """SIGTERM, as systemd does; the exit status must be 0."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        assert status == 0, f"thimbled ended with {status} on SIGTERM: {self.log()[-2000:]}"


class Test:
    """One test program: its functions run in order, each with a scratch directory of its own."""

    def __init__(self, name, arguments):
        self.name, self.thimble, self.thimbled = name, arguments.thimble, arguments.thimbled
        self.scratch = tempfile.mkdtemp(prefix=f"thimble-e2e-{name}-")
        self.daemons, self.clients, self.groups = [], [], []

    def daemon(self, **arguments):
        return Daemon(self, **arguments)

    def own_libraries(self):
        """Copies of the libraries thimbled links, and the environment that has it use them. As in a container: nobody
        else has them in RAM, so that every page of them is charged to the daemon's group."""
        directory = os.path.join(self.scratch, "lib")
        os.mkdir(directory)
        # It fails where the program is linked statically: there are none then.
        listed = subprocess.run(["ldd", self.thimbled], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            if "=> /" in line:
                shutil.copy(line.split("=> ")[1].split()[0], directory)
        return {"LD_LIBRARY_PATH": directory}

    def group(self, limit):
        group = MemoryGroup(limit)
        self.groups.append(group)
        return group

    def clean(self):
        for client in self.clients:
            client.end()
        for daemon in self.daemons:
            daemon.kill()
        for group in self.groups:
            group.remove()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Skip(Exception):
    """What this needs is not here."""


def main(*functions):
    """Runs the test functions of a program; its exit status is for ctest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--thimble", default=os.path.join(SOURCE, "build/release/thimble"))
    parser.add_argument("--thimbled", default=os.path.join(SOURCE, "build/release/thimbled"))
    parser.add_argument("--only", default="", help="functions whose names contain this")
    arguments = parser.parse_args()
    # A test that ctest stops for taking too long cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    failed = ran = 0
    for function in functions:
        if arguments.only not in function.__name__:
            continue
        test = Test(function.__name__, arguments)
        began = time.monotonic()
        try:
            function(test)
            ran += 1
            print(f"ok      {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Skip as reason:
            print(f"skipped {function.__name__}: {reason}", flush=True)
        except Exception:  # any failure is this function's, and the next one runs
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
            for daemon in test.daemons:
                print("--- the daemon's log\n" + daemon.log()[-3000:], flush=True)
        finally:
            test.clean()
    print(f"{ran} passed, {failed} failed")
    sys.exit(1 if failed else 0 if ran else SKIPPED)
