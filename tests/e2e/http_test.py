#!/usr/bin/python3
"""Status page, events, health and metrics over HTTP, with a plain client: no browser (page_test.py has one)."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import harness
from harness import MIB

REST = 6  # the event loop gives free memory back 5 s after the last event
PROMPT = "Once upon a time there was a little dog."


def http_daemon(test, group=None):
    path = os.path.join(test.scratch, "http")
    options = ["--http", "unix:" + path] + ([] if group else ["--enforcement", "none"])
    daemon = test.daemon(group=group, options=options)
    daemon.ready(120)
    return daemon, path


def connect(path, seconds=30):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)  # waits where the backlog is full; with a timeout set it would fail
    client.settimeout(seconds)
    return client


def get(path, target):
    """(status, header lines by name, body) of one request."""
    with connect(path) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while True:
            part = client.recv(65536)
            if not part:
                break
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    assert int(fields.get("content-length", -1)) == len(body), f"{target}: length"
    return int(lines[0].split()[1]), fields, body.decode()


class Events:
    """A subscriber of /events, read by a thread."""

    def __init__(self, path):
        self.seen, self.at, self.error = [], [], None
        self.client = connect(path)
        self.client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        stream = self.client.makefile("r", encoding="utf-8", newline="\n")
        try:
            while stream.readline().strip():  # the header
                pass
            name = None
            for line in stream:
                key, _, value = line.rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self.at.append(time.monotonic())
                    self.seen.append((name, json.loads(value)))
        except (OSError, ValueError) as error:
            self.error = error

    def statuses(self):
        return [data for name, data in list(self.seen) if name == "status"]

    def close(self):
        self.client.shutdown(socket.SHUT_RDWR)
        self.client.close()


def page_is_one_file_and_its_policy_fits(test):
    daemon, path = http_daemon(test)
    status, fields, page = get(path, "/")
    assert status == 200 and fields["content-type"].startswith("text/html"), fields
    assert len(page) < 64 << 10, len(page)
    policy = {part.split()[0]: part.split()[1:] for part in fields["content-security-policy"].split(";")}
    assert policy["default-src"] == ["'none'"], policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inline) == 1 and f"<{tag} " not in page, f"one {tag}, inline"
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert policy[directive] == [f"'sha256-{digest}'"], f"{tag}: {policy[directive]} is not its hash"
    markup = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"\son\w+\s*=|\sstyle\s*=|javascript:", markup), "inline handlers or styles"
    links = re.findall(r"(?:src|href|action)\s*=\s*[\"']([^\"']*)", markup)
    assert all(re.fullmatch(r"[a-z]+|data:.*", link) for link in links), links
    assert "url(" not in page and "@import" not in page
    # What the script looks for by name is there, once.
    for name in set(re.findall(r"\$\('([\w-]+)'\)", page)) | set(re.findall(r"\bset\('([\w-]+)'", page)):
        assert len(re.findall(rf'id="{name}"', markup)) == 1, f"id {name}"
    for target in re.findall(r'aria-labelledby="([\w-]+)"', markup):
        assert f'id="{target}"' in markup, target
    assert '<html lang="en">' in page and 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    daemon.stop()


def events_tell_what_happens(test):
    daemon, path = http_daemon(test)
    events = Events(path)
    harness.wait_until(lambda: len(events.statuses()) >= 2, 20, "events")
    plan = dict(events.seen)["plan"]
    status = daemon.status()
    assert plan["peak"] == int(status["plan_peak_bytes"]), plan["peak"]
    assert sum(part[3] for part in plan["parts"]) == plan["stages"]
    assert sum(part[4] for part in plan["parts"]) == plan["weights"]
    done = daemon.generate(PROMPT, "--max-tokens", 200, "--ignore-eos", "--seed", 1).require()
    harness.wait_until(lambda: events.statuses()[-1]["tokens"] == 200, 20, "200 tokens are told")
    last = events.statuses()[-1]
    assert last["prompt_tokens"] + last["hits"] == done.done["prompt_tokens"], last
    assert sum(last["first_token"]) == 1 and sum(last["interval"]) == 199, last
    assert last["passes"] > 0 and last["kind_seconds"][plan["kinds"].index("ffn")] > 0
    assert last["kind_seconds"][plan["kinds"].index("sample")] > 0
    assert abs(sum(last["owners"]) - last["current"]) <= MIB, last
    gaps = [b - a for a, b in zip(events.at[2:], events.at[3:])]
    assert not gaps or min(gaps) > 0.3, gaps
    events.close()
    daemon.stop()


def metrics_are_clean_while_busy(test):
    promtool = shutil.which("promtool") or os.path.join(harness.SOURCE, "build/tools/usr/bin/promtool")
    if not os.path.exists(promtool):
        raise harness.Skip("no promtool (scripts/test --page fetches it)")
    daemon, path = http_daemon(test)
    clients = [daemon.start_generate(f"{PROMPT} {i}", "--max-tokens", 400, "--ignore-eos") for i in range(3)]
    clients[0].wait_for_tokens(20)
    status, _, text = get(path, "/metrics")
    assert status == 200 and re.search(r"^thimble_requests_active [1-3]$", text, re.MULTILINE), text[:2000]
    check = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert check.returncode == 0 and not check.stderr.strip(), check.stdout + check.stderr
    for metric in ("thimble_time_to_first_token_seconds_count", "thimble_inter_token_latency_seconds_count",
                   'thimble_stage_seconds_count{kind="sample"}', "thimble_request_queue_time_seconds_count"):
        assert int(re.search(rf"^{re.escape(metric)} (\d+)$", text, re.MULTILINE).group(1)) > 0, metric
    _, _, other = get(path, "/metrics?names=llamacpp,vllm")
    assert "\nllamacpp:requests_processing " in other and "\nvllm:num_requests_running " in other
    for client in clients:
        client.end()
    daemon.stop()


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def bad_clients_cost_nothing_that_stays(test):
    """Slow, silent, huge, garbled, pipelined and leaving clients: health answers, memory and descriptors come back."""
    group = test.group(64 * MIB) if harness.can_make_groups() else None
    daemon, path = http_daemon(test, group)
    garbage = [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
               b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 20000, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n",
               b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 50,
               b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"GET /e"]

    def attack(rounds):
        open_clients = []
        for i in range(rounds):
            client = connect(path)
            open_clients.append(client)
            try:
                client.sendall(garbage[i % len(garbage)])
            except OSError:  # answered and closed before all was sent
                pass
            if len(open_clients) > 40:  # these never read; the oldest leave
                open_clients.pop(0).close()
            if i % 100 == 99:
                assert get(path, "/healthz")[0] == 200
        for client in open_clients:
            client.close()

    def quiet():
        return descriptors(daemon) <= before_fds

    get(path, "/")
    get(path, "/metrics")
    before_fds = descriptors(daemon)
    attack(200)  # what the first ones bring in for good: code, heap
    harness.wait_until(quiet, 30, "descriptors are back")
    sizes = []
    for _ in range(3):
        attack(400)
        harness.wait_until(quiet, 30, f"descriptors are back: {descriptors(daemon)}, before {before_fds}")
        time.sleep(REST)
        sizes.append(daemon.memory("RssAnon") >> 10)
    print(f"        400, 800, 1200 bad clients: {sizes} KiB of anonymous RAM, highest RSS "
          f"{daemon.memory('VmHWM') / MIB:.1f} MiB")
    assert sizes[2] <= sizes[0] + 64, f"{sizes} KiB: more stays from each 400 clients"
    if group:
        assert group.oom_kills() == 0 and group.peak() <= 64 * MIB
    done = daemon.generate(PROMPT, "--max-tokens", 20).require()
    assert done.ids
    daemon.stop()


def slow_subscribers_are_bounded(test):
    daemon, path = http_daemon(test)
    silent = []
    for _ in range(4):
        client = connect(path)
        client.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        client.recv(1)
        silent.append(client)
    status, fields, _ = get(path, "/events")
    assert status == 503 and "retry-after" in fields, status
    for client in silent:
        client.close()
    harness.wait_until(lambda: place_is_free(path), 20, "their places are free again")
    daemon.stop()


def place_is_free(path):
    """True where a subscriber is taken."""
    with connect(path) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        return client.recv(12) == b"HTTP/1.1 200"


if __name__ == "__main__":
    harness.main(page_is_one_file_and_its_policy_fits, events_tell_what_happens, metrics_are_clean_while_busy,
                 bad_clients_cost_nothing_that_stays, slow_subscribers_are_bounded)
