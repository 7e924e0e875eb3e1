"""The gpt2 and llama architectures in float64, from dequantized weights: what thimble's logits are held to.

Nothing is staged, tiled or streamed here: whole matrices, plain softmax. Keys and values are rounded to
f16, as both thimble's cache and llama.cpp's default keep them. Called by the tests, or by hand:
    forward.py MODEL.gguf "5 61 72" OUT.f32
Memory: all weights in float64.
"""

import math
import sys

import numpy as np

import gguf_numpy


def _f16(x):
    return x.astype(np.float16).astype(np.float64)


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * weight + bias


def _rms_norm(x, weight, epsilon):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * weight


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rope_frequencies(metadata, dimensions, factors=None):
    """(inverse frequencies [dimensions / 2], factor on sine and cosine).

    Scaling variants: linear (positions divided), yarn (arXiv:2309.00071, NTK by parts), and Llama 3's
    per-pair divisors, which the file carries as the tensor rope_freqs.weight.
    """
    base = metadata.get("llama.rope.freq_base", 10000.0)
    frequency = base ** (-2.0 * np.arange(dimensions // 2) / dimensions)
    if factors is not None:
        frequency = frequency / factors
    kind = metadata.get("llama.rope.scaling.type", "none")
    scale = metadata.get("llama.rope.scaling.factor", 1.0)
    if kind == "none" or scale == 1.0:
        return frequency, 1.0
    if kind == "linear":
        return frequency / scale, 1.0
    if kind != "yarn":
        raise ValueError(f"rope scaling {kind}")
    trained = metadata["llama.rope.scaling.original_context_length"]

    def pair_that_turns(times):
        return dimensions * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

    beta_fast = metadata.get("llama.rope.scaling.yarn_beta_fast", 32.0)
    beta_slow = metadata.get("llama.rope.scaling.yarn_beta_slow", 1.0)
    first = max(0.0, math.floor(pair_that_turns(beta_fast)))
    last = min(dimensions - 1.0, math.ceil(pair_that_turns(beta_slow)))
    ramp = np.clip((np.arange(dimensions // 2) - first) / max(0.001, last - first), 0, 1)
    attention = metadata.get("llama.rope.scaling.attn_factor", 1.0)
    magnitude = attention * (1 + 0.1 * math.log(scale))
    return frequency / scale * ramp + frequency * (1 - ramp), magnitude


def _rotate(x, frequency, magnitude):
    """x [tokens, heads, head_dim]: turns the pairs (2i, 2i+1) of the first 2 * len(frequency) values."""
    n = 2 * len(frequency)
    angle = np.arange(len(x))[:, None, None] * frequency
    cosine, sine = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    even, odd = x[..., 0:n:2], x[..., 1:n:2]
    out = x.copy()
    out[..., 0:n:2] = even * cosine - odd * sine
    out[..., 1:n:2] = even * sine + odd * cosine
    return out


def _attend(q, k, v):
    """q [tokens, heads, d], k and v [tokens, kv_heads, d]: causal, [tokens, heads * d]."""
    tokens, heads, d = q.shape
    shared = heads // k.shape[1]
    k, v = np.repeat(_f16(k), shared, axis=1), np.repeat(_f16(v), shared, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / math.sqrt(d)
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    return np.einsum("hts,shd->thd", _softmax(scores), v).reshape(tokens, heads * d)


class Weights:
    def __init__(self, tensors):
        self._tensors = tensors

    def get(self, name):
        return self._tensors[name].values() if name in self._tensors else None

    def __getitem__(self, name):
        return self._tensors[name].values()

    def linear(self, name, x):
        y = x @ self[name + ".weight"].T
        bias = self.get(name + ".bias")
        return y if bias is None else y + bias


def _output(weights, x):
    output = weights.get("output.weight")
    return x @ (weights["token_embd.weight"] if output is None else output).T


def _gpt2(metadata, w, ids):
    heads = metadata["gpt2.attention.head_count"]
    epsilon = metadata["gpt2.attention.layer_norm_epsilon"]

    def norm(name, x):
        return _layer_norm(x, w[name + ".weight"], w[name + ".bias"], epsilon)

    x = w["token_embd.weight"][ids] + w["position_embd.weight"][:len(ids)]
    tokens, width = x.shape
    for i in range(metadata["gpt2.block_count"]):
        at = f"blk.{i}."
        qkv = w.linear(at + "attn_qkv", norm(at + "attn_norm", x))
        q, k, v = (part.reshape(tokens, heads, width // heads) for part in np.split(qkv, 3, axis=1))
        x = x + w.linear(at + "attn_output", _attend(q, k, v))
        up = w.linear(at + "ffn_up", norm(at + "ffn_norm", x))
        x = x + w.linear(at + "ffn_down", _gelu(up))
    return _output(w, norm("output_norm", x))


def _llama(metadata, w, ids):
    heads = metadata["llama.attention.head_count"]
    kv_heads = metadata.get("llama.attention.head_count_kv", heads)
    epsilon = metadata["llama.attention.layer_norm_rms_epsilon"]
    x = w["token_embd.weight"][ids]
    tokens, width = x.shape
    head_dim = metadata.get("llama.attention.key_length", width // heads)
    dimensions = metadata.get("llama.rope.dimension_count", head_dim)
    frequency, magnitude = rope_frequencies(metadata, dimensions, w.get("rope_freqs.weight"))
    for i in range(metadata["llama.block_count"]):
        at = f"blk.{i}."
        h = _rms_norm(x, w[at + "attn_norm.weight"], epsilon)
        q = w.linear(at + "attn_q", h).reshape(tokens, heads, head_dim)
        k = w.linear(at + "attn_k", h).reshape(tokens, kv_heads, head_dim)
        v = w.linear(at + "attn_v", h).reshape(tokens, kv_heads, head_dim)
        q, k = _rotate(q, frequency, magnitude), _rotate(k, frequency, magnitude)
        x = x + w.linear(at + "attn_output", _attend(q, k, v))
        h = _rms_norm(x, w[at + "ffn_norm.weight"], epsilon)
        gate = w.linear(at + "ffn_gate", h)
        x = x + w.linear(at + "ffn_down", gate / (1 + np.exp(-gate)) * w.linear(at + "ffn_up", h))
    return _output(w, _rms_norm(x, w["output_norm.weight"], epsilon))


def logits(path, ids):
    """Float64 [len(ids), vocabulary]: the logits after each of `ids`, from position 0."""
    model = gguf_numpy.Reader(path)
    architecture = {"gpt2": _gpt2, "llama": _llama}[model.metadata["general.architecture"]]
    return architecture(model.metadata, Weights(model.tensors), list(ids))


def mean_kl(exact, measured):
    """Mean over rows of KL(softmax(exact) || softmax(measured)), in nats."""
    p = _softmax(exact)
    log_p = exact - exact.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    log_q = measured - measured.max(axis=1, keepdims=True)
    log_q = log_q - np.log(np.exp(log_q).sum(axis=1, keepdims=True))
    return float((p * (log_p - log_q)).sum(axis=1).mean())


def same_top(exact, measured):
    """In how many rows both have their maximum at the same token."""
    return int((exact.argmax(axis=1) == measured.argmax(axis=1)).sum())


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    logits(sys.argv[1], map(int, sys.argv[2].split())).astype("<f4").tofile(sys.argv[3])
