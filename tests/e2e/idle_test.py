#!/usr/bin/python3
"""An idle daemon in a control group of its own: wake-ups, processor time and memory, fresh and after work.

The built-in model at 64 MiB: at most 12 wake-ups a second, 0.5 % of a core, 12 MiB for everything. Its program and
libraries are copied first, so that every page of theirs is charged to the group and not to who had them before.
Asked after two quiet seconds, it answers at once.
"""

import os
import shutil
import socket
import statistics
import time

import grpc_wire
import harness
from harness import MIB

WAKE_UPS = 12  # a second
CORE = 0.005
MEMORY = 12 * MIB
SECONDS = 10
ANSWER = 0.03  # seconds, the median of five: a turn of the event loop takes 5 s then
REST = 12  # the event loop gives RAM back after 5 s and after 10


def spent(daemon):
    """(voluntary switches, nanoseconds on a core) of all threads: a wait that ended is a wake-up."""
    switches = nanoseconds = 0
    for task in os.listdir(f"/proc/{daemon.process.pid}/task"):
        base = f"/proc/{daemon.process.pid}/task/{task}/"
        with open(base + "status", encoding="ascii", errors="replace") as file:
            switches += next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
        with open(base + "schedstat", encoding="ascii") as file:
            nanoseconds += int(file.read().split()[0])
    return switches, nanoseconds


def usage(group):
    return int(group.read("memory.usage_in_bytes" if group.version == 1 else "memory.current"))


def check(daemon, group, when):
    time.sleep(REST)
    before = spent(daemon)
    time.sleep(SECONDS)
    after = spent(daemon)
    wake_ups, core = (after[0] - before[0]) / SECONDS, (after[1] - before[1]) / SECONDS / 1e9
    memory = usage(group)
    print(f"        {when}: {wake_ups:.1f} wake-ups a second, {100 * core:.2f} % of a core, {memory / MIB:.2f} MiB",
          flush=True)
    stat = " ".join(group.read("memory.stat").split()[:24])
    assert wake_ups <= WAKE_UPS, f"{when}: {wake_ups} wake-ups a second"
    assert core <= CORE, f"{when}: {core} of a core"
    assert memory <= MEMORY, f"{when}: {memory} bytes: {stat}"


def get(path, target, seconds=0):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        end, got = time.monotonic() + seconds, b""
        while True:
            part = client.recv(65536)
            got += part
            if not part or (seconds and time.monotonic() > end):
                return got


def greeted(path):
    """gRPC's first frame comes once the daemon has taken the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(grpc_wire.PREFACE + grpc_wire.frame(grpc_wire.SETTINGS, 0, 0))
        return client.recv(9)


def answer_seconds(ask):
    times = []
    for _ in range(5):
        time.sleep(2)
        begin = time.monotonic()
        assert ask()
        times.append(time.monotonic() - begin)
    return statistics.median(times)


def an_idle_daemon_is_quiet_and_small(test):
    if not harness.can_make_groups():
        raise harness.Skip("no memory control group can be made here")
    group = test.group(64 * MIB)
    environment = test.own_libraries()
    test.thimbled = shutil.copy(test.thimbled, test.scratch)
    path = os.path.join(test.scratch, "http")
    harness.drop_page_cache()
    daemon = test.daemon(model=harness.BUILTIN, group=group, options=["--http", "unix:" + path],
                         environment=environment)
    harness.wait_until(lambda: "event=ready" in daemon.log(), 120, "ready")
    check(daemon, group, "fresh")
    for name, ask in (("HTTP", lambda: get(path, "/healthz")), ("gRPC", lambda: greeted(daemon.socket))):
        seconds = answer_seconds(ask)
        print(f"        {name} answers after {1000 * seconds:.1f} ms", flush=True)
        assert seconds <= ANSWER, f"{name}: {seconds} s"
    said = daemon.generate("Once upon a time there was a cat", "--max-tokens", 400, "--ignore-eos").require()
    assert len(said.ids) == 400
    assert b"thimble_build_info" in get(path, "/metrics")
    assert b"<!doctype html>" in get(path, "/")
    assert get(path, "/events", seconds=4).count(b"event: status") >= 3
    check(daemon, group, "after 400 tokens, metrics, the page and its events")
    daemon.stop()


if __name__ == "__main__":
    harness.main(an_idle_daemon_is_quiet_and_small)
