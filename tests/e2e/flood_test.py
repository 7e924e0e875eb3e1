#!/usr/bin/python3
"""Crowds and bad neighbours: none of them kills the daemon, takes it over its ceiling, or keeps it from others.

A short form runs with the other tests; scripts/test-flood runs the long one (--long): 10,000 requests and
1,000 cancels. Served in a control group of 24 MiB where one can be made.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import grpc_wire
import harness
from grpc_wire import Connection
from harness import MIB

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

LONG = "--long" in sys.argv
if LONG:
    sys.argv.remove("--long")
CEILING = 24 * MIB
HEALTH = "/grpc.health.v1.Health/Check"
STATUS = "/thimble.v1.Thimble/GetStatus"
# What a crowd may leave behind on the heap, beyond what a first one of its kind has left: that is up to 1 MiB in
# gRPC's and the allocator's pools.
HEAP_SLACK = MIB // 2


def many(short, long):
    return long if LONG else short


def served(test, *options, limited=True, model=harness.BUILTIN):
    """A daemon at 24 MiB."""
    group = test.group(CEILING) if limited and harness.can_make_groups() else None
    enforcement = [] if group else ["--enforcement", "none"]
    daemon = test.daemon(group=group, model=model, options=[*enforcement, "--ram-ceiling", "24M", *options]).ready()
    # What is measured before a crowd has the buffers of full passes in it.
    warm = [daemon.start_generate(f"{word} upon a time " * 30, "--max-tokens", 8, "--ignore-eos")
            for word in ("Once", "Twice", "Thrice", "Often")]
    for client in warm:
        client.finish().require()
    return daemon


def connected(path):
    """A raw connection; where the backlog is full (EAGAIN), as soon as it is not."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)

    def tried():
        try:
            one.connect(path)
            return True
        except BlockingIOError:
            return False

    harness.wait_until(tried, 15, "a place in the backlog")
    return one


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def answers(daemon, seconds=10):
    """A client that comes now is answered in time."""
    began = time.monotonic()
    connection = Connection(daemon.socket)
    calls = [connection.open(HEALTH), connection.open(STATUS)]
    grpc_wire.run([connection], lambda: all(call.done for call in calls), seconds)
    connection.close()
    assert [call.status for call in calls] == [0, 0], [(call.status, call.message) for call in calls]
    return time.monotonic() - began


def generates(daemon, tokens=6):
    assert len(daemon.generate("The sea", "--max-tokens", tokens, "--ignore-eos").require().ids) == tokens


def unharmed(test, daemon, before=None):
    """It is alive, under its ceiling, serves, and holds no more than before."""
    assert daemon.alive(), f"thimbled ended with {daemon.process.returncode}: {daemon.log()[-2000:]}"
    generates(daemon)
    if before is not None:
        heap, open_before = before
        harness.wait_until(lambda: descriptors(daemon) <= open_before, 40,
                           f"descriptors back to {open_before}, there are {descriptors(daemon)}")
        harness.wait_until(lambda: daemon.memory("RssAnon") <= heap + HEAP_SLACK, 10,
                           f"heap back to {heap} bytes, it is {daemon.memory('RssAnon')}")
    if daemon.group:
        assert daemon.group.oom_kills() == 0, "an OOM kill"
        assert daemon.group.peak() <= CEILING
        print(f"        peak {daemon.group.peak() / MIB:.1f} MiB, heap {daemon.memory('RssAnon') / MIB:.1f} MiB")
    daemon.stop()


def measured(daemon):
    return daemon.memory("RssAnon"), descriptors(daemon)


def outcome(calls):
    """Calls by what became of them; none may be without an end."""
    counts = {}
    for call in calls:
        assert call.done, f"a call without an end after {time.monotonic() - call.began:.0f} s"
        counts[call.status] = counts.get(call.status, 0) + 1
    return counts


def told_clearly(calls):
    for call in calls:
        if call.status == grpc_wire.RESOURCE_EXHAUSTED:
            assert any(character.isdigit() for character in call.message), call.message


def requests_over_one_connection(test):
    daemon = served(test)
    crowd_of_requests(daemon, 300)
    before = measured(daemon)
    crowd_of_requests(daemon, many(600, 10000))
    unharmed(test, daemon, before)


def crowd_of_requests(daemon, total):
    connection = Connection(daemon.socket)
    grpc_wire.run([connection], lambda: connection.ready, 10)
    calls = []

    def go_on():
        while len(calls) < total and len(connection.calls) < connection.max_streams:
            calls.append(connection.generate(f"{len(calls)} little", 4))
        return len(calls) == total and not connection.calls

    assert grpc_wire.run([connection], go_on, many(120, 900)), f"stuck after {len(calls)}"
    counts = outcome(calls)
    print(f"        by status: {counts}")
    assert set(counts) <= {grpc_wire.OK, grpc_wire.RESOURCE_EXHAUSTED}, counts
    assert counts[grpc_wire.OK] > total / 100
    told_clearly(calls)
    connection.close()


def requests_over_many_connections(test):
    """Each client connects, asks, and goes; many at a time, and some of them do not wait for the end."""
    daemon = served(test)
    crowd_of_clients(daemon)
    before = measured(daemon)
    crowd_of_clients(daemon)
    unharmed(test, daemon, before)


def crowd_of_clients(daemon):
    alive, calls, total, crowd = [], [], many(200, 5000), many(100, 200)
    refused = [0]
    luck = random.Random(5)
    asked = time.monotonic()
    waits = []

    def go_on():
        nonlocal asked
        for connection in [c for c in alive if c.closed or all(call.done for call in c.own)
                           or (c.leaves and time.monotonic() > c.leaves)]:
            alive.remove(connection)
            connection.close()
        while len(alive) < crowd and len(calls) < total:
            try:
                connection = Connection(daemon.socket, timeout=0.0)
            except OSError:  # the backlog is full: told at once
                refused[0] += 1
                break
            connection.own = [connection.generate("Many", 3)]
            connection.leaves = time.monotonic() + luck.random() if luck.random() < 0.2 else None
            calls.extend(connection.own)
            alive.append(connection)
        if time.monotonic() - asked > 2:
            asked = time.monotonic()
            waits.append(status_wait(daemon, alive))
        return len(calls) == total and not alive

    def status_wait(daemon, others):
        began = time.monotonic()
        while True:
            try:
                connection = Connection(daemon.socket, timeout=0.0)
                break
            except OSError:
                assert time.monotonic() - began < 20, "no place in the backlog for 20 s"
                for other in others:
                    other.pump()
        call = connection.open(STATUS)
        assert grpc_wire.run([connection, *others], lambda: call.done, 20), "no status for 20 s"
        connection.close()
        assert call.status == grpc_wire.OK, (call.status, call.message)
        return time.monotonic() - began

    class Alive:
        """The list as it is when it is pumped."""

        def __iter__(self):
            return iter(list(alive))

    assert grpc_wire.run(Alive(), go_on, many(180, 1500)), f"stuck after {len(calls)}, {len(alive)} open"
    counts = outcome(calls)
    print(f"        by status: {counts}, connections refused at the door: {refused[0]}, "
          f"a status in between took {max(waits, default=0):.2f} s at most")
    assert counts.get(grpc_wire.OK, 0) > 20
    told_clearly(calls)


def connections_that_never_call(test):
    """They hold all places; others are served all the same."""
    daemon = served(test)
    before = measured(daemon)
    silent = [Connection(daemon.socket) for _ in range(many(45, 60))]
    time.sleep(0.5)
    assert answers(daemon, 5) < 5
    generates(daemon)
    # Some that have called once, some that say nothing at all, not even HTTP/2.
    raw = []
    for _ in range(20):
        raw.append(connected(daemon.socket))
    for connection in silent[-10:]:
        connection.open(HEALTH)
    grpc_wire.run(silent, lambda: False, 0.5)
    assert answers(daemon, 5) < 5
    generates(daemon)
    for connection in silent:
        connection.close()
    for one in raw:
        one.close()
    unharmed(test, daemon, before)


def connections_that_hold_calls(test):
    """Every place is held by a call that lasts: others are told so at once, and questions are answered."""
    daemon = served(test, "--max-queue", "64")
    hold_all_places(daemon)
    before = measured(daemon)
    hold_all_places(daemon)
    unharmed(test, daemon, before)


def hold_all_places(daemon):
    holders = [Connection(daemon.socket) for _ in range(32)]
    held = [connection.open("/grpc.health.v1.Health/Watch") for connection in holders[:16]]
    held += [connection.generate("Hold", 400) for connection in holders[16:]]
    assert grpc_wire.run(holders, lambda: all(call.messages or call.done for call in held), 20)
    more = Connection(daemon.socket)
    call = more.generate("One more", 4)
    assert grpc_wire.run([more, *holders], lambda: call.done, 10)
    open_now = sum(not one.done for one in held)
    print(f"        {open_now} calls held; the next one: {call.status} {call.message}")
    if open_now == 32:
        assert call.status == grpc_wire.RESOURCE_EXHAUSTED and "32" in call.message, (call.status, call.message)
    assert answers(daemon, 10) < 10
    # Calls that get no further: the message never comes; the answer is never read.
    stuck = [Connection(daemon.socket, window=0) for _ in range(8)]
    for connection in stuck:
        connection.open(STATUS)
        connection.write(grpc_wire.frame(
            grpc_wire.HEADERS, grpc_wire.END_HEADERS, 99,
            grpc_wire.header_block([(":method", "POST"), (":scheme", "http"), (":path", STATUS),
                                    (":authority", "localhost"), ("content-type", "application/grpc"),
                                    ("te", "trailers")])))
    time.sleep(0.3)
    assert answers(daemon, 15) < 15
    for connection in [more, *holders, *stuck]:
        connection.close()
    harness.wait_until(lambda: descriptors(daemon) < 60, 40, "the connections are gone")
    time.sleep(0.5)


def garbage_and_half_open_connections(test):
    http = "unix:" + os.path.join(test.scratch, "http")
    daemon = served(test, "--http", http)
    before = measured(daemon)
    luck = random.Random(7)
    sent = [b"", b"\0" * 5000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", grpc_wire.PREFACE, grpc_wire.PREFACE[:10],
            grpc_wire.PREFACE + b"\xff" * 100,
            grpc_wire.PREFACE + grpc_wire.frame(grpc_wire.SETTINGS, 0, 0, b"12345"),
            grpc_wire.PREFACE + grpc_wire.frame(grpc_wire.SETTINGS, 0, 0) +
            grpc_wire.frame(grpc_wire.HEADERS, 4, 1, b"\x40" + b"\xff" * 60),
            grpc_wire.PREFACE + grpc_wire.frame(grpc_wire.SETTINGS, 0, 0) +
            grpc_wire.frame(grpc_wire.DATA, 0, 7, b"no such stream") * 20]
    for place in (daemon.socket, http[len("unix:"):]):
        left_open = []
        for i in range(many(90, 600)):
            one = connected(place)
            data = sent[i] if i < len(sent) else luck.randbytes(luck.randrange(3000))
            try:
                one.sendall(data)
                if i % 3 == 0:
                    one.shutdown(socket.SHUT_WR)
            except OSError:  # cut off already
                pass
            if i % 2:
                left_open.append(one)
            else:
                one.close()
            if i % 30 == 29:
                assert answers(daemon, 10) < 10
        generates(daemon)
        for one in left_open:
            one.close()
    unharmed(test, daemon, before)


def connect_and_cancel(test):
    """In the queue, in the prompt, in the middle of a token."""
    daemon = served(test)
    background = daemon.start_generate("The others", "--max-tokens", 30, "--ignore-eos")
    before = measured(daemon)
    luck = random.Random(11)
    for n in range(many(120, 1000)):
        connection = Connection(daemon.socket)
        calls = [connection.generate("word " * luck.randrange(1, 60), 200) for _ in range(luck.randrange(1, 4))]
        end = time.monotonic() + luck.random() * 0.05
        grpc_wire.run([connection], lambda: time.monotonic() > end, 1)
        if n % 2:
            for call in calls:
                connection.cancel(call)
            connection.pump()
        connection.close()
    status = harness.wait_until(lambda: idle(daemon, background), 30, "all cancelled requests are gone")
    assert len(background.finish().require().ids) == 30
    assert int(status.get("queued_requests", 0)) == 0
    unharmed(test, daemon, before)


def idle(daemon, background):
    status = daemon.status()
    left = int(status.get("active_requests", 0)) + int(status.get("queued_requests", 0))
    return status if left <= (background.process.poll() is None) else None


def deadlines_free_their_places(test):
    # 100 MB of weights: 500 tokens take longer than any deadline here.
    model = os.path.join(test.scratch, "slow.gguf")
    make_model.make_llama(model, "Q8_0", seed=43, width=768, ffn=3072, layers=12)
    daemon = served(test, "--max-active", "1", model=model)
    connection = Connection(daemon.socket)
    grpc_wire.run([connection], lambda: connection.ready, 10)
    first = connection.generate("The first", 400, timeout=1.5)
    queued = [connection.generate("Queued", 400, timeout=0.5) for _ in range(10)]
    last = connection.generate("The last", 5)
    assert grpc_wire.run([connection], lambda: all(c.done for c in [first, last, *queued]), 60)
    assert first.status == grpc_wire.DEADLINE_EXCEEDED, (first.status, first.message)
    for call in queued:
        assert call.status == grpc_wire.DEADLINE_EXCEEDED and call.ended - call.began < 5
        assert 2 not in call.events(), "one that waited was started"
    assert last.status == grpc_wire.OK, (last.status, last.message)
    connection.close()
    unharmed(test, daemon)


def readers_that_never_read(test):
    """As many as may be active; the others are served, and nothing is buffered for them without bound."""
    daemon = served(test, "--context", "512")
    generated = daemon.number("generated_tokens_total")
    deaf = [Connection(daemon.socket, window=64) for _ in range(4)]
    for connection in deaf:
        connection.generate("Deaf", 300)
    harness.wait_until(lambda: daemon.number("generated_tokens_total") > generated + 40, 60, "they generate")
    before = daemon.memory("RssAnon")
    for _ in range(3):
        generates(daemon, 40)
    grown = daemon.memory("RssAnon") - before
    assert grown < MIB, f"{grown} bytes of heap more while four clients do not read"
    for connection in deaf:
        connection.close()
    unharmed(test, daemon)


def sigterm_in_a_crowd(test):
    """Every stream is told, and the daemon ends in bounded time, whoever does not read."""
    daemon = served(test, "--max-queue", "40")
    connections = [Connection(daemon.socket) for _ in range(8)]
    calls = [connection.generate("Told", 400) for connection in connections for _ in range(4)]
    deaf = Connection(daemon.socket, window=16)
    deaf.generate("Deaf", 400)
    assert grpc_wire.run(connections, lambda: all(call.messages for call in calls), 20)
    began = time.monotonic()
    under_way = [call for call in calls if not call.done]
    daemon.process.send_signal(signal.SIGTERM)
    assert grpc_wire.run(connections, lambda: all(call.done for call in calls), 10), "not every stream was told"
    assert daemon.exit_status(20) == 0
    assert time.monotonic() - began < 15
    # One may come to its own end before the signal arrives.
    told = [call for call in under_way if call.status != grpc_wire.OK]
    assert told, "all were done before the daemon was told to stop"
    for call in told:
        assert call.status == grpc_wire.UNAVAILABLE and "stopping" in call.message, (call.status, call.message)


def a_second_daemon_on_the_same_state_is_refused(test):
    daemon = served(test, limited=False)
    done = subprocess.run([test.thimbled, "--config", "/dev/null", "--enforcement", "none", "--state-dir",
                           os.path.join(daemon.state, "data"), "--listen",
                           "unix:" + os.path.join(test.scratch, "other"), "--http", "off"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done.returncode
    assert f"in use by another thimbled (pid {daemon.process.pid})" in done.stderr, done.stderr
    generates(daemon)
    daemon.stop()


if __name__ == "__main__":
    harness.main(requests_over_one_connection, requests_over_many_connections, connections_that_never_call,
                 connections_that_hold_calls, garbage_and_half_open_connections, connect_and_cancel,
                 deadlines_free_their_places, readers_that_never_read, sigterm_in_a_crowd,
                 a_second_daemon_on_the_same_state_is_refused)
