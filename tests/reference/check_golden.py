#!/usr/bin/python3
"""Holds `thimble logits` to a directory of llama.cpp reference results, by hand (ctest does not need one).

    check_golden.py DIR [--thimble build/release/thimble] [--only TEXT] [--options="--granularity head"]

DIR has NAME.gguf, NAME.tokens (a prompt and greedy ids; the last id's logits are not there),
NAME.logits.f32 (llama.cpp's rows, little-endian float32) and, if computed, NAME.exact.f32. A NAME.tokens without
rows is checked as text: the model may stand in DIR or in --models; every id after the prompt must be what greedy
choice gives. Exits 1 if a bound is missed. Memory: some MB.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile

import numpy as np

sys.dont_write_bytecode = True
import forward
import gguf_numpy

ABSOLUTE = {"F32": 5e-3, "F16": 1e-2, "BF16": 5e-2}  # of one logit
KL_TO_LLAMA_CPP, KL_TO_EXACT, SAME_TOP = 1.5e-3, 1e-3, 28 / 31


def weight_type(path):
    """The type of the model's matrices."""
    tensors = gguf_numpy.Reader(path).tensors
    return tensors["blk.0.ffn_up.weight"].type_name


def run_logits(args, model, ids):
    with tempfile.TemporaryDirectory(prefix="thimble-golden-") as scratch:
        out = os.path.join(scratch, "logits.f32")
        command = [args.thimble, "logits", "--model", model, "--tokens", " ".join(map(str, ids)),
                   "--out", out] + shlex.split(args.options)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()}")
        return np.fromfile(out, "<f4").reshape(len(ids), -1).astype(np.float64)


def check_rows(args, base, model, ids):
    kind = weight_type(model)
    reference = np.fromfile(base + ".logits.f32", "<f4").astype(np.float64)
    rows = len(ids) - 1
    reference = reference.reshape(rows, -1)
    exact = forward.logits(model, ids[:rows])
    if os.path.exists(base + ".exact.f32"):
        shipped = np.fromfile(base + ".exact.f32", "<f4").reshape(rows, -1)
        if np.abs(shipped - exact).max() > 1e-5:
            raise RuntimeError("the shipped exact rows and forward.py disagree")
    ours = run_logits(args, model, ids[:rows])
    worst = np.abs(ours - reference).max()
    kl, kl_exact = forward.mean_kl(reference, ours), forward.mean_kl(exact, ours)
    top = forward.same_top(reference, ours)
    top_exact = forward.same_top(exact, ours)
    if kind in ABSOLUTE:
        good = worst <= ABSOLUTE[kind] and np.abs(ours - exact).max() <= ABSOLUTE[kind]
    else:
        good = (kl < KL_TO_LLAMA_CPP and kl_exact < KL_TO_EXACT and
                min(top, top_exact) >= SAME_TOP * rows)
    return good, (f"{kind}: worst difference {worst:.1e}, KL to llama.cpp {kl:.1e}, to exact {kl_exact:.1e}, "
                  f"same top {top} and {top_exact} of {rows}")


def check_text(args, model, ids):
    """Every id from the prompt's end on is the greedy choice after those before it."""
    rows = run_logits(args, model, ids[:-1])
    greedy = rows.argmax(axis=1)
    wrong = [i + 1 for i in range(len(ids) - 1) if greedy[i] != ids[i + 1]]
    prompt = args.prompt_tokens
    wrong = [i for i in wrong if i >= prompt]
    where = f"; first different id at {wrong[0]}" if wrong else ""
    return not wrong, f"text: {len(ids) - prompt - len(wrong)} of {len(ids) - prompt} greedy ids the same{where}"


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--thimble", default=os.path.join(here, "../../build/release/thimble"))
    parser.add_argument("--models", help="where the models of texts stand (default: DIR, DIR/../models)")
    parser.add_argument("--prompt-tokens", type=int, default=5, help="of a text (default 5)")
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--options", default="", help="further options for `thimble logits`")
    args = parser.parse_args()
    folders = [args.directory, args.models or os.path.join(args.directory, "../models")]
    failed = checked = 0
    for name in sorted(f[:-7] for f in os.listdir(args.directory) if f.endswith(".tokens")):
        models = [os.path.join(folder, name + ".gguf") for folder in folders]
        model = next((m for m in models if os.path.exists(m)), None)
        if args.only not in name or model is None:
            continue
        base = os.path.join(args.directory, name)
        with open(base + ".tokens", encoding="ascii") as file:
            ids = [int(word) for word in file.read().split()]
        try:
            if os.path.exists(base + ".logits.f32"):
                good, text = check_rows(args, base, model, ids)
            else:
                good, text = check_text(args, model, ids)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            good, text = False, str(error)
        checked += 1
        failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {name}: {text}", flush=True)
    print(f"{checked - failed} of {checked} within the bounds")
    sys.exit(1 if failed or not checked else 0)


if __name__ == "__main__":
    main()
