#!/usr/bin/python3
"""`thimble logits` against the float64 reference, on random models of every tensor type and variant.

Run by ctest (CMakeLists.txt beside this file): logits_test.py --thimble PATH GROUP
GROUP: gpt2, llama (all tensor types), variants (heads, rope, odd sizes, long inputs), same-bytes.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../reference"))
import forward
import make_model
from gguf_numpy import FLOAT32, STRING, TYPES, UINT32

# How far one logit may be from the exact one; logits of these models have a spread of 1.
ABSOLUTE = {"F32": 5e-3, "F16": 1e-2, "BF16": 5e-2}
# For quantized weights, whose activations may be rounded to 8 bits.
MEAN_KL = 1e-3
# The same likeliest token in 28 of 31 positions; counted over four times as many, since one model's near ties
# are chance.
SAME_TOP = 28 / 31
ROWS = 124


class Checker:
    def __init__(self, thimble, scratch):
        self.thimble, self.scratch, self.failures = thimble, scratch, 0

    def path(self, name):
        return os.path.join(self.scratch, name)

    def logits_bytes(self, model, ids, *options):
        out = self.path("out.f32")
        if os.path.exists(out):
            os.unlink(out)
        done = subprocess.run([self.thimble, "logits", "--model", model, "--tokens",
                               " ".join(map(str, ids)), "--out", out, *options],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"thimble logits {' '.join(options)}: exit status {done.returncode}: "
                               f"{done.stderr.strip()}")
        with open(out, "rb") as file:
            return file.read()

    def report(self, good, text):
        self.failures += not good
        print(("ok     " if good else "FAILED ") + text, flush=True)

    def check(self, name, model, type_name, ids):
        try:
            exact = forward.logits(model, ids)
            raw = self.logits_bytes(model, ids)
        except RuntimeError as error:
            self.report(False, f"{name}: {error}")
            return
        if len(raw) != 4 * exact.size:
            self.report(False, f"{name}: {len(raw)} bytes of logits, not {4 * exact.size}")
            return
        ours = np.frombuffer(raw, "<f4").reshape(exact.shape).astype(np.float64)
        worst = np.abs(ours - exact).max()
        if type_name in ABSOLUTE:
            self.report(bool(worst <= ABSOLUTE[type_name]),
                        f"{name}: worst difference {worst:.1e}, allowed {ABSOLUTE[type_name]:.0e}")
            return
        kl, top = forward.mean_kl(exact, ours), forward.same_top(exact, ours)
        self.report(kl < MEAN_KL and top >= SAME_TOP * len(ids),
                    f"{name}: mean KL {kl:.1e}, allowed {MEAN_KL:.0e}; same top in {top} of {len(ids)}")


def tokens(count, seed=7, vocabulary=512):
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()


def all_types(checker, architecture, make):
    for type_name in TYPES:
        model = checker.path("model.gguf")
        make(model, type_name)
        checker.check(f"{architecture} {type_name}", model, type_name, tokens(ROWS))
        os.unlink(model)


def variants(checker):
    linear = [("scaling.type", STRING, "linear"), ("scaling.factor", FLOAT32, 4.0)]
    yarn = [("scaling.type", STRING, "yarn"), ("scaling.factor", FLOAT32, 4.0),
            ("scaling.original_context_length", UINT32, 128)]
    # Llama 3's divisors: none for the fast pairs, 8 for the slow ones, a slope between.
    factors = np.clip(np.linspace(-2.0, 11.0, 16), 1.0, 8.0)
    llama, gpt2 = make_model.make_llama, make_model.make_gpt2
    cases = [
        ("llama, one key head for all", llama, {"heads": 4, "kv_heads": 1}),
        ("llama, two queries a key", llama, {"heads": 8, "kv_heads": 4}),
        ("llama, as many key heads", llama, {"heads": 4, "kv_heads": 4}),
        ("llama, tied output", llama, {"tied": True}),
        ("llama, Q4_K, tied output", llama, {"tied": True, "type_name": "Q4_K"}),
        ("llama, head size 20", llama, {"width": 100, "heads": 5, "kv_heads": 1, "ffn": 172}),
        ("llama, head size 6, Q8_0", llama, {"width": 96, "heads": 16, "kv_heads": 8, "ffn": 160,
                                             "type_name": "Q8_0"}),
        ("llama, rope on half a head", llama, {"rope_dimensions": 16}),
        ("llama, rope base 500000", llama, {"rope": [("freq_base", FLOAT32, 500000.0)]}),
        ("llama, linear rope", llama, {"rope": linear}),
        ("llama, yarn rope", llama, {"rope": yarn}),
        ("llama, rope factors", llama, {"rope_factors": factors}),
        ("gpt2, untied output", gpt2, {"tied": False}),
        ("gpt2, head size 20", gpt2, {"width": 60, "heads": 3, "ffn": 100}),
        ("gpt2, one layer", gpt2, {"layers": 1, "heads": 1}),
        ("gpt2, 4 layers, Q5_0", gpt2, {"layers": 4, "type_name": "Q5_0"}),
    ]
    for seed, (name, make, options) in enumerate(cases):
        model = checker.path("model.gguf")
        make(model, seed=100 + seed, **options)
        checker.check(name, model, options.get("type_name", "F32"), tokens(ROWS, seed))
    # KV blocks are of 32 tokens: lengths on both sides of their ends.
    for make in (llama, gpt2):
        make(checker.path("model.gguf"), seed=5)
        for count in (1, 32, 33, 64, 150):
            checker.check(f"{make.__name__[5:]}, {count} tokens", checker.path("model.gguf"), "F32",
                          tokens(count, count))
    # Where one row of a prompt is worth looking at closely: the last positions of the context.
    make_model.make_gpt2(checker.path("model.gguf"), seed=6, context=64)
    checker.check("gpt2, to the end of the context", checker.path("model.gguf"), "F32", tokens(64))


def same_bytes(checker):
    """The logits are the same to the bit however the work is cut up."""
    ways = [("--granularity", "head"), ("--granularity", "op"), ("--granularity", "auto"),
            ("--prompt-chunk", "1"), ("--prompt-chunk", "7"), ("--prompt-chunk", "64"),
            ("--ram-ceiling", "16M"), ("--ram-ceiling", "64M"),
            ("--granularity", "head", "--prompt-chunk", "1", "--ram-ceiling", "16M")]
    for make in (make_model.make_gpt2, make_model.make_llama):
        for type_name in TYPES:
            model, name = checker.path("model.gguf"), f"{make.__name__[5:]} {type_name}"
            make(model, type_name, seed=3)
            ids = tokens(70)
            try:
                expected = checker.logits_bytes(model, ids)
                different = [" ".join(way) for way in ways
                             if checker.logits_bytes(model, ids, *way) != expected]
                checker.report(not different, name + (f": different bytes with {'; '.join(different)}"
                                                      if different else f": the same {len(ways)} ways"))
            except RuntimeError as error:
                checker.report(False, f"{name}: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--thimble", required=True)
    parser.add_argument("group", choices=["gpt2", "llama", "variants", "same-bytes"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thimble-logits-") as scratch:
        checker = Checker(args.thimble, scratch)
        if args.group == "gpt2":
            all_types(checker, "gpt2", make_model.make_gpt2)
        elif args.group == "llama":
            all_types(checker, "llama", make_model.make_llama)
        elif args.group == "variants":
            variants(checker)
        else:
            same_bytes(checker)
    print(f"{checker.failures} failures")
    sys.exit(1 if checker.failures else 0)


if __name__ == "__main__":
    main()
