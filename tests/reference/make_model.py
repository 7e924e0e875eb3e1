"""Small models of random numbers, of every tensor type and architecture thimble reads.

Quantized tensors are made of random blocks that use every bit of the format (scales, minima, high bits),
scaled so that a matrix has zero mean and a spread of 0.06: logits then have a spread of about 1, as a trained
model's have, and a wrong bit anywhere shows. Called by tests/e2e, by scripts/make-model for whole models, or by hand:
    make_model.py OUT.gguf llama Q4_K [SEED]
Memory: the file.
"""

import itertools
import sys

import numpy as np

import gguf_numpy
from gguf_numpy import ARRAY, BOOL, FLOAT32, INT32, STRING, TYPES, UINT32, Tensor

SPREAD = 0.06
# The spread of a tensor's contents is told from this many of its blocks.
SAMPLE_BLOCKS = 1 << 14


def _pack12(scales, minima):
    """Eight 6-bit scales and minima to the twelve bytes of Q4_K and Q5_K: [n, 12]."""
    s, m = scales.astype(np.uint8), minima.astype(np.uint8)
    return np.concatenate([s[:, :4] | ((s[:, 4:] >> 4) << 6), m[:, :4] | ((m[:, 4:] >> 4) << 6),
                           (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)], axis=1)


def _with_d(blocks, at, d):
    blocks[:, at:at + 2] = d.astype("<f2").reshape(-1, 1).view(np.uint8)


def _scales_and_minima(rng, n, count, top):
    """Random scales in [top/4, top], and minima near them, so that a run's mean is near zero."""
    scales = rng.integers(top // 4, top + 1, (n, count))
    minima = np.clip(scales + rng.integers(-top // 16 - 1, top // 16 + 2, (n, count)), 0, top)
    return scales, minima


def random_blocks(rng, type_name, n):
    """`n` blocks of a quantized type with random contents and a spread of SPREAD, as bytes."""
    _, _, size = TYPES[type_name]
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    d = rng.uniform(0.5, 1.5, n)
    # Where the block's scale and (type, offset) its minimum stand, and the minimum in scales.
    d_at = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}.get(type_name, 0)
    minimum = {"Q4_1": (2, -7.5), "Q5_1": (2, -15.5), "Q2_K": (82, 1.5), "Q4_K": (2, 7.5),
               "Q5_K": (2, 15.5)}.get(type_name)
    if not minimum:
        d *= rng.choice([-1.0, 1.0], n)  # llama.cpp's quantizers make either sign
    if type_name == "Q2_K":
        scales, minima = _scales_and_minima(rng, n, 16, 15)
        blocks[:, 0:16] = scales | (minima << 4)
    elif type_name in ("Q4_K", "Q5_K"):
        blocks[:, 4:16] = _pack12(*_scales_and_minima(rng, n, 8, 63))

    def scaled(factor, some):
        _with_d(blocks[some], d_at, d[some] * factor)
        if minimum:
            _with_d(blocks[some], minimum[0], d[some] * factor * minimum[1])
        return blocks[some].tobytes()

    # A first scale well inside f16's range tells the spread of the contents.
    sample = scaled(1e-3, slice(SAMPLE_BLOCKS))
    return scaled(1e-3 * SPREAD / gguf_numpy.dequantize(type_name, sample).std(), slice(None))


def random_tensor(rng, type_name, shape, spread=SPREAD):
    if TYPES[type_name][1] > 1:
        n = int(np.prod(shape)) // TYPES[type_name][1]
        return Tensor(type_name, shape, random_blocks(rng, type_name, n))
    values = rng.normal(0, spread, shape).astype(np.float32)
    if type_name == "F16":
        return Tensor("F16", shape, values.astype("<f2").tobytes())
    if type_name == "BF16":
        return Tensor("BF16", shape, (values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return Tensor("F32", shape, values.astype("<f4").tobytes())


def _gain(rng, n):
    return Tensor("F32", (n,), rng.normal(1, 0.1, n).astype("<f4").tobytes())


def _bytes_to_unicode():
    """GPT-2's printable stand-ins for the 256 bytes, in the order of the bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(moved)) for b in range(256)]


def _spm_vocabulary(size):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    kinds = [2, 3, 3] + [6] * 256
    letters = "\u2581etaoinshrdlcumwfgypbvkjxqz,.!?'\"-0123456789ETAOINSHRDLCUMWFGYPBVKJXQZ"
    pieces = [a for a in letters] + [a + b for a in letters[:13] for b in letters[1:13]]
    pieces = pieces[:size - len(tokens)]
    tokens += pieces
    kinds += [1] * len(pieces)
    tokens += [chr(0x4E00 + i) for i in range(size - len(tokens))]
    kinds += [1] * (size - len(kinds))
    return [("tokenizer.ggml.model", STRING, "llama"),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            ("tokenizer.ggml.scores", ARRAY, (FLOAT32, [0.0] * 259 + [-float(i) for i in range(size - 259)])),
            ("tokenizer.ggml.token_type", ARRAY, (INT32, kinds)),
            ("tokenizer.ggml.bos_token_id", UINT32, 1),
            ("tokenizer.ggml.eos_token_id", UINT32, 2),
            ("tokenizer.ggml.unknown_token_id", UINT32, 0),
            ("tokenizer.ggml.add_bos_token", BOOL, True)]


def _bpe_vocabulary(size, pre="gpt-2"):
    """The bytes, then pairs of letters, pairs with a letter, pairs of pairs, as far as `size` goes."""
    tokens = _bytes_to_unicode()
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    twos = [a + b for a in letters for b in letters]
    pairs = itertools.chain(itertools.product(letters, letters), itertools.product(twos, letters),
                            itertools.product(twos, twos))
    pairs = list(itertools.islice(pairs, size - len(tokens) - 1))
    tokens += [a + b for a, b in pairs] + ["<|endoftext|>"]
    assert len(tokens) == size
    return [("tokenizer.ggml.model", STRING, "gpt2"),
            ("tokenizer.ggml.pre", STRING, pre),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            ("tokenizer.ggml.token_type", ARRAY, (INT32, [1] * (size - 1) + [3])),
            ("tokenizer.ggml.merges", ARRAY, (STRING, [f"{a} {b}" for a, b in pairs])),
            ("tokenizer.ggml.bos_token_id", UINT32, size - 1),
            ("tokenizer.ggml.eos_token_id", UINT32, size - 1),
            ("tokenizer.ggml.add_bos_token", BOOL, False)]


def make_gpt2(path, type_name="F32", seed=1, width=256, heads=4, ffn=512, layers=2, vocabulary=512,
              context=512, tied=True, embedding_type=None, name=None):
    """`embedding_type`: where it is not `type_name`."""
    rng = np.random.default_rng(seed)
    prefix = "gpt2."
    metadata = [("general.architecture", STRING, "gpt2"),
                ("general.name", STRING, name or f"random gpt2 {type_name}"),
                (prefix + "block_count", UINT32, layers),
                (prefix + "context_length", UINT32, context),
                (prefix + "embedding_length", UINT32, width),
                (prefix + "feed_forward_length", UINT32, ffn),
                (prefix + "attention.head_count", UINT32, heads),
                (prefix + "attention.layer_norm_epsilon", FLOAT32, 1e-5)] + _bpe_vocabulary(vocabulary)
    tensors = {}

    def linear(name, rows, columns):
        tensors[name + ".weight"] = random_tensor(rng, type_name, (rows, columns))
        tensors[name + ".bias"] = random_tensor(rng, "F32", (rows,))

    def norm(name):
        tensors[name + ".weight"] = _gain(rng, width)
        tensors[name + ".bias"] = random_tensor(rng, "F32", (width,))

    tensors["token_embd.weight"] = random_tensor(rng, embedding_type or type_name, (vocabulary, width))
    tensors["position_embd.weight"] = random_tensor(rng, "F32", (context, width), 0.02)
    for i in range(layers):
        at = f"blk.{i}."
        norm(at + "attn_norm")
        linear(at + "attn_qkv", 3 * width, width)
        linear(at + "attn_output", width, width)
        norm(at + "ffn_norm")
        linear(at + "ffn_up", ffn, width)
        linear(at + "ffn_down", width, ffn)
    norm("output_norm")
    if not tied:
        tensors["output.weight"] = random_tensor(rng, type_name, (vocabulary, width))
    gguf_numpy.write(path, metadata, tensors)


def make_llama(path, type_name="F32", seed=1, width=256, heads=8, kv_heads=2, ffn=512, layers=2,
               vocabulary=512, context=512, tied=False, rope=(), rope_dimensions=None, rope_factors=None,
               embedding_type=None, output_type=None, bpe=None, name=None, chat_template=None):
    """`rope`: further metadata [(key after "llama.rope.", kind, value)]; `rope_factors`: Llama 3's divisors.
    `embedding_type`, `output_type`: where they are not `type_name`. `bpe`: the pretokenizer of a byte-pair
    vocabulary instead of a SentencePiece one. `chat_template`: in Jinja."""
    rng = np.random.default_rng(seed)
    head_dim = width // heads
    prefix = "llama."
    metadata = [("general.architecture", STRING, "llama"),
                ("general.name", STRING, name or f"random llama {type_name}"),
                (prefix + "block_count", UINT32, layers),
                (prefix + "context_length", UINT32, context),
                (prefix + "embedding_length", UINT32, width),
                (prefix + "feed_forward_length", UINT32, ffn),
                (prefix + "attention.head_count", UINT32, heads),
                (prefix + "attention.head_count_kv", UINT32, kv_heads),
                (prefix + "attention.layer_norm_rms_epsilon", FLOAT32, 1e-6),
                (prefix + "vocab_size", UINT32, vocabulary),
                (prefix + "rope.dimension_count", UINT32, rope_dimensions or head_dim)]
    metadata += [(prefix + "rope." + key, kind, value) for key, kind, value in rope]
    metadata += _bpe_vocabulary(vocabulary, bpe) if bpe else _spm_vocabulary(vocabulary)
    if chat_template:
        metadata.append(("tokenizer.chat_template", STRING, chat_template))
    tensors = {}

    def linear(name, rows, columns, kind=type_name):
        tensors[name + ".weight"] = random_tensor(rng, kind, (rows, columns))

    linear("token_embd", vocabulary, width, embedding_type or type_name)
    if rope_factors is not None:
        tensors["rope_freqs.weight"] = Tensor("F32", (len(rope_factors),),
                                              np.asarray(rope_factors, "<f4").tobytes())
    for i in range(layers):
        at = f"blk.{i}."
        tensors[at + "attn_norm.weight"] = _gain(rng, width)
        linear(at + "attn_q", width, width)
        linear(at + "attn_k", kv_heads * head_dim, width)
        linear(at + "attn_v", kv_heads * head_dim, width)
        linear(at + "attn_output", width, width)
        tensors[at + "ffn_norm.weight"] = _gain(rng, width)
        linear(at + "ffn_gate", ffn, width)
        linear(at + "ffn_up", ffn, width)
        linear(at + "ffn_down", width, ffn)
    tensors["output_norm.weight"] = _gain(rng, width)
    if not tied:
        linear("output", vocabulary, width, output_type or type_name)
    gguf_numpy.write(path, metadata, tensors)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[2] not in ("gpt2", "llama") or sys.argv[3] not in TYPES:
        sys.exit(__doc__)
    {"gpt2": make_gpt2, "llama": make_llama}[sys.argv[2]](
        sys.argv[1], sys.argv[3], int(sys.argv[4]) if len(sys.argv) == 5 else 1)
