#!/usr/bin/python3
"""Served over gRPC inside a real memory control group: never an OOM kill, and the peak under the limit.

Skipped where no group can be made (an unprivileged container).
"""

import os
import subprocess
import sys
import time

import harness
from harness import MIB

sys.path.insert(0, os.path.join(harness.SOURCE, "tests/reference"))
import make_model

PROMPT = "Once upon a time there was a little girl who lived in a house near the sea. "
# What one may hold beside the plan's buffers: the program's own heap, stacks and gRPC's.
RSS_BESIDE_PLAN = 6 * MIB


def need_groups():
    if not harness.can_make_groups():
        raise harness.Skip("no memory control group can be made here")


def serve(test, model, limit, tokens, prompt=PROMPT, inside=True):
    """Serves a few requests under `limit`, in a group of the test's or of the daemon's making."""
    need_groups()
    harness.drop_page_cache()  # else the program and the model would be charged to whoever read them before
    if inside:
        # The limit is there already, as in a container: it is adopted, or a smaller group made within.
        group = test.group(limit)
        daemon = test.daemon(model=model, group=group)
    else:
        group = None
        daemon = test.daemon(model=model, options=["--ram-ceiling", f"{limit // MIB}M"])
    daemon.ready(seconds=120)
    clients = [daemon.start_generate(prompt * (1 + i), "--max-tokens", tokens, "--ignore-eos",
                                     "--temperature", 0.8, "--seed", i) for i in range(4)]
    said = [client.finish(400).require() for client in clients]
    assert all(len(one.ids) == tokens for one in said), [len(one.ids) for one in said]
    status = daemon.status()
    assert int(status["ceiling_bytes"]) == limit, status["ceiling_bytes"]
    assert status["enforcement"] == "cgroup", status["enforcement"]
    assert int(status.get("oom_kills", 0)) == 0
    assert 0 < int(status["memory_peak_bytes"]) <= limit, status["memory_peak_bytes"]
    plan, arena = int(status["plan_peak_bytes"]), int(status["arena_peak_bytes"])
    assert plan == arena > 0, f"the plan says {plan} bytes, the arena measured {arena}"
    anonymous = daemon.memory("RssAnon")
    beside = anonymous - plan
    assert beside <= RSS_BESIDE_PLAN, f"{anonymous} bytes of anonymous RSS are {beside} over the plan's {plan}"
    peak = group.peak() if group else int(status["memory_peak_bytes"])
    print(f"        {os.path.basename(model)} in {limit // MIB} MiB: peak {peak / MIB:.2f} MiB, "
          f"plan {plan / MIB:.2f} MiB, anonymous beside it {beside / MIB:.2f} MiB")
    if group:
        assert group.oom_kills() == 0, "an OOM kill in the group"
        assert peak <= limit
        assert daemon.process.pid in group_processes(group), "the daemon has left the group it was put in"
    daemon.stop()
    return status


def group_processes(group):
    """Of the group and of those inside it."""
    pids = []
    for directory, _, _ in os.walk(group.directory):
        with open(directory + "/cgroup.procs", encoding="ascii") as file:
            pids += [int(line) for line in file]
    return pids


def built_in_model_inside_64_mib(test):
    serve(test, harness.BUILTIN, 64 * MIB, 120)


def built_in_model_inside_24_mib(test):
    serve(test, harness.BUILTIN, 24 * MIB, 120)


def built_in_model_inside_16_mib(test):
    serve(test, harness.BUILTIN, 16 * MIB, 120)


def own_group_is_made_and_removed(test):
    status = serve(test, harness.BUILTIN, 24 * MIB, 60, inside=False)
    directory = status["control_group"]
    assert directory, "no group of its own"
    assert not os.path.exists(directory), f"{directory} was left behind"


def a_model_larger_than_the_ceiling(test):
    model = os.path.join(test.scratch, "large.gguf")
    make_model.make_llama(model, "Q8_0", seed=31, width=512, ffn=1536, layers=16, vocabulary=4096)
    size = os.path.getsize(model)
    assert size > 40 * MIB, size
    status = serve(test, model, 24 * MIB, 16)
    assert int(status["flash_bytes_read"]) > size, "the weights were not read again for every pass"


# Another process of the group, as a shell in the container: takes 12.5 MiB a second from the first line on, and keeps
# it. What is taken all at once, as by the start of a program, is for the reserve and the kernel.
HOG = """
import sys, time
sys.stdin.readline()
held = []
for _ in range(int(sys.argv[1])):
    held.append(bytearray(b"x") * (1 << 18))
    time.sleep(0.02)
print("held", flush=True)
sys.stdin.read()
"""


class Hog:
    """HOG in the group: `take` lets it begin and waits until it holds `quarters` times 256 KiB, until the end."""

    def __init__(self, group, quarters):
        self.process = subprocess.Popen([sys.executable, "-c", HOG, str(quarters)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.group = group

    def __enter__(self):
        self.group.write("cgroup.procs", self.process.pid)
        return self

    def take(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        held = self.process.stdout.readline().strip()
        assert held == b"held", f"the other process: {held}"

    def __exit__(self, *_):
        self.process.stdin.close()
        status = self.process.wait(20)
        self.process.stdout.close()
        assert status == 0, f"the other process: {status}"


def daemon_with_weights_that_can_give_way(test):
    need_groups()
    model = os.path.join(test.scratch, "gpt2-21m.gguf")
    make_model.make_gpt2(model, "Q8_0", seed=4, width=384, heads=6, ffn=1536, layers=10, vocabulary=8192)
    harness.drop_page_cache()
    group = test.group(32 * MIB)
    return group, test.daemon(model=model, group=group).ready(seconds=120)


GREEDY = ("--max-tokens", 300, "--ignore-eos", "--temperature", 0)
NEARLY_FULL = 'event=pressure note="the control group is nearly full'


def what_others_in_the_group_take_is_given_up(test):
    group, daemon = daemon_with_weights_that_can_give_way(test)
    alone = daemon.generate(PROMPT, *GREEDY).require()
    full = daemon.memory("RssAnon")
    client = daemon.start_generate(PROMPT, *GREEDY)
    client.wait_for_tokens(20)
    with Hog(group, 56) as hog:  # more by 10 MiB than the reserve leaves free
        hog.take()
        beside = client.finish(120).require()
        least = daemon.memory("RssAnon")
        after = daemon.generate(PROMPT, *GREEDY).require()
    assert group.oom_kills() == 0, "an OOM kill in the group"
    assert alone.ids == beside.ids == after.ids
    assert NEARLY_FULL in daemon.log(), daemon.log()

    print(f"        {full / MIB:.1f} MiB of the daemon's own alone, {least / MIB:.1f} beside the other process")
    assert least <= full - 8 * MIB, (least, full)

    # All but some MiB, that is: pages of the other's files may stay the group's for as long as some process maps them.
    def come_back():
        daemon.generate(PROMPT, *GREEDY).require()
        return daemon.memory("RssAnon") >= full - 6 * MIB

    harness.wait_until(come_back, 60, "resident weights come back")
    assert daemon.generate(PROMPT, *GREEDY).require().ids == alone.ids
    daemon.stop()


def what_others_take_while_the_daemon_idles_is_given_up(test):
    group, daemon = daemon_with_weights_that_can_give_way(test)
    alone = daemon.generate(PROMPT, *GREEDY).require()
    full = daemon.memory("RssAnon")
    time.sleep(13)  # the last rest is over, and only the group is looked at
    assert NEARLY_FULL not in daemon.log(), daemon.log()
    with Hog(group, 48) as hog:
        hog.take()
        least = daemon.memory("RssAnon")
        print(f"        {full / MIB:.1f} MiB of the daemon's own alone, {least / MIB:.1f} beside the other process")
        assert NEARLY_FULL in daemon.log(), daemon.log()
        after = daemon.generate(PROMPT, *GREEDY).require()
    assert group.oom_kills() == 0, "an OOM kill in the group"
    assert least <= full - 8 * MIB, (least, full)
    assert alone.ids == after.ids
    daemon.stop()


def locked_files(daemon):
    """Names of the files of which pages are locked in the daemon's memory."""
    files, name = set(), ""
    with open(f"/proc/{daemon.process.pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            words = line.split()
            if "-" in words[0]:
                name = os.path.basename(words[5]) if len(words) > 5 else ""
            elif words[0] == "VmFlags:" and "lo" in words:
                files.add(name)
    return files


def a_crowd_beside_libraries_of_its_own(test):
    need_groups()
    model = os.path.join(test.scratch, "llama.gguf")
    make_model.make_llama(model, "Q8_0", seed=5, width=512, ffn=1536, layers=16, vocabulary=4096)
    environment = test.own_libraries()
    harness.drop_page_cache()
    group = test.group(24 * MIB)
    daemon = test.daemon(model=model, group=group, options=["--max-active", "8", "--max-queue", "200"],
                         environment=environment)
    daemon.ready(seconds=120)
    # The kernel must have something to take: 2 MiB of libraries.
    locked = locked_files(daemon)
    assert os.path.basename(test.thimbled) in locked, locked
    assert not [name for name in locked if ".so" in name], locked
    options = ("--ignore-eos", "--temperature", 0)
    long = [daemon.start_generate(PROMPT * (3 + i % 4), *options, "--max-tokens", 80) for i in range(8)]
    long[0].wait_for_tokens(20)
    crowd = [daemon.start_generate(f"{i}. " + PROMPT, *options, "--max-tokens", 4) for i in range(40)]
    said = [client.finish(400) for client in long + crowd]
    assert group.oom_kills() == 0 and daemon.alive(), "an OOM kill in the group"
    assert all(len(one.require().ids) == 80 for one in said[:8])
    # Of the crowd some are turned away: there are so many connections at a time, and no more.
    assert sum(one.status == 0 for one in said[8:]) >= 20, [one.status for one in said[8:]]
    print(f"        peak {group.peak() / MIB:.2f} MiB of 24")
    daemon.stop()


def smollm2_inside(test, limit):
    if not os.path.exists(harness.SMOLLM2):
        raise harness.Skip("scripts/get-model smollm2 was not run")
    serve(test, harness.SMOLLM2, limit, 12)


def smollm2_inside_64_mib(test):
    smollm2_inside(test, 64 * MIB)


def smollm2_inside_24_mib(test):
    smollm2_inside(test, 24 * MIB)


if __name__ == "__main__":
    harness.main(built_in_model_inside_64_mib, built_in_model_inside_24_mib, built_in_model_inside_16_mib,
                 own_group_is_made_and_removed, a_model_larger_than_the_ceiling,
                 what_others_in_the_group_take_is_given_up,
                 what_others_take_while_the_daemon_idles_is_given_up, a_crowd_beside_libraries_of_its_own,
                 smollm2_inside_64_mib, smollm2_inside_24_mib)
