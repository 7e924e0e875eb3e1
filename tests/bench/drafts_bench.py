#!/usr/bin/python3
"""What guessed tokens bring (daemon/queue/speculation.h): real texts with and without them, in turn, each daemon in a
memory control group of its own. Prints a table; ends with 1 where a text differs.

    drafts_bench.py [--model FILE] [--ceiling 24M] [--flash-rate 40M] [--drafts 8] [--tokens 128] [--cpu N]

Each text is generated once greedily and once sampled (temperature 0.8, llama.cpp's defaults otherwise), by a daemon
that has seen the texts before it, as in service. Needs root, for the groups. Standard library only.
"""

import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
import harness

ARTICLE = """The Raspberry Pi Zero is a small single-board computer that was released in November 2015 by the Raspberry Pi \
Foundation. It has a single-core ARM1176 processor that runs at one gigahertz, and 512 megabytes of memory. It has a mini HDMI \
port, a micro USB port for data and one for power, and a slot for a microSD card. The Zero W, which was released in February \
2017, adds wireless networking and Bluetooth. The Zero 2 W, which was released in October 2021, has a quad-core processor. The \
boards are used in home automation, in weather stations, in cameras, and in small robots, for they are cheap and need little \
power."""
# What is asked of small models on small devices: prose and answers, where little is said twice, and work on a given text.
ASKED = {
    "question": "What is the capital of France, and what is it known for?",
    "explanation": "Explain how photosynthesis works.",
    "letter": "Write an email to my landlord asking to repair the heating.",
    "list": "List ten tips for healthy eating.",
    "program": "Write a Python function that returns the n-th Fibonacci number, with a docstring and an example.",
    "summary": "Summarize the following text in three sentences.\n\n" + ARTICLE,
    "extraction": "Give the following as JSON with the keys name, year, processor, memory: " + ARTICLE,
    "correction": "Correct the spelling of this text and repeat it as a whole:\n\nThe wether was nice yesterday, so we "
                  "desided to go to the beech. We took the trane at nine in the morning and arived at ten. The childs "
                  "played in the sand while we red our books.",
}
SAMPLINGS = {"greedy": ("--temperature", 0), "sampled": ("--temperature", 0.8, "--seed", 7)}


class Place(harness.MemoryGroup):
    """A memory control group on one processor, whose reads from a disk are throttled."""

    def __init__(self, limit, disk, bytes_per_second, cpu):
        super().__init__(limit)
        self.cpu, self.throttle = cpu, None
        if not bytes_per_second:
            return
        number = os.stat(disk).st_dev
        device = self.whole_disk(f"{os.major(number)}:{os.minor(number)}")
        if self.version == 2:
            self.write("io.max", f"{device} rbps={bytes_per_second}")
            return
        self.throttle = f"/sys/fs/cgroup/blkio/{os.path.basename(self.directory)}"
        os.mkdir(self.throttle)
        with open(self.throttle + "/blkio.throttle.read_bps_device", "w", encoding="ascii") as file:
            file.write(f"{device} {bytes_per_second}\n")

    @staticmethod
    def whole_disk(number):
        path = os.path.realpath(f"/sys/dev/block/{number}")
        if os.path.exists(path + "/partition"):
            path = os.path.dirname(path)
        with open(path + "/dev", encoding="ascii") as file:
            return file.read().strip()

    def enter(self):
        super().enter()
        if self.throttle:
            with open(self.throttle + "/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0\n")
        os.sched_setaffinity(0, {self.cpu})

    def remove(self):
        super().remove()
        if self.throttle:
            os.rmdir(self.throttle)


class Served:
    """One daemon and what it has generated."""

    def __init__(self, test, arguments, drafts):
        place = Place(harness.size_bytes(arguments.ceiling), arguments.model,
                      harness.size_bytes(arguments.flash_rate) if arguments.flash_rate else 0, arguments.cpu)
        test.groups.append(place)
        self.daemon = test.daemon(model=arguments.model, group=place, options=(
            "--draft-tokens", str(drafts), "--context", "512", "--ram-ceiling", arguments.ceiling)).ready(300)
        self.tokens, self.options = arguments.tokens, arguments.options.split()

    def run(self, asked, sampling):
        """(token ids, tokens a second, tokens a pass)"""
        prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        before = self.daemon.number("draft_tokens_accepted_total")
        said = self.daemon.generate(prompt, "--parse-special", "--ignore-eos", "--max-tokens", self.tokens,
                                    *SAMPLINGS[sampling], *self.options, seconds=3600).require()
        accepted = self.daemon.number("draft_tokens_accepted_total") - before
        seconds = said.done["total_seconds"] - said.done["first_token_seconds"]
        # The first token is the prompt's.
        return said.ids, (len(said.ids) - 1) / seconds, (len(said.ids) - 1) / max(1, len(said.ids) - 1 - accepted)


def measure(test, arguments):
    without, with_drafts = (Served(test, arguments, drafts) for drafts in (0, arguments.drafts))
    print(f"| text | without, tokens/s | with {arguments.drafts} at most, tokens/s | times | tokens a pass |\n"
          "|---|---|---|---|---|")
    same = True
    for sampling in SAMPLINGS:
        ratios, per_pass = [], []
        for name, asked in ASKED.items():
            text, rate, _ = without.run(asked, sampling)
            other, faster, tokens = with_drafts.run(asked, sampling)
            same = same and text == other
            ratios.append(faster / rate)
            per_pass.append(tokens)
            print(f"| {name}, {sampling} | {rate:.3g} | {faster:.3g} | {faster / rate:.2f} | {tokens:.2f} |"
                  + ("" if text == other else " **another text**"), flush=True)
        print(f"| {sampling}: harmonic mean | | | {statistics.harmonic_mean(ratios):.2f} | "
              f"{statistics.harmonic_mean(per_pass):.2f} |", flush=True)
    for served, name in ((without, "without"), (with_drafts, "with")):
        group = served.daemon.group
        print(f"\nPeak {name}: {group.peak() / harness.MIB:.1f} MiB of {group.limit / harness.MIB:.0f}, "
              f"OOM kills: {group.oom_kills()}", end="")
    print()
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", default=os.path.join(harness.SOURCE, "build/release/thimble"))
    parser.add_argument("--thimbled", default=os.path.join(harness.SOURCE, "build/release/thimbled"))
    parser.add_argument("--model", default=harness.SMOLLM2)
    parser.add_argument("--ceiling", default="24M")
    parser.add_argument("--flash-rate", default="", help="as 40M: a limit of the block I/O controller")
    parser.add_argument("--drafts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--options", default="", help="further ones of thimble generate")
    arguments = parser.parse_args()
    if not harness.can_make_groups():
        sys.exit("drafts_bench: no memory control group can be made here: it needs root")
    if not os.path.exists(arguments.model):
        sys.exit(f"drafts_bench: no {arguments.model}: scripts/get-model smollm2")
    harness.drop_page_cache()
    began = time.monotonic()
    test = harness.Test("drafts", arguments)
    try:
        same = measure(test, arguments)
    finally:
        test.clean()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
