#include "tests/model/tiny_models.h"

#include <string>

namespace thimble {

GgufBuilder TinyLlama() {
  GgufBuilder b;
  b.SetString("general.architecture", "llama");
  b.SetString("general.name", "tiny llama");
  b.SetUint("llama.block_count", 1);
  b.SetUint("llama.context_length", 16);
  b.SetUint("llama.embedding_length", 8);
  b.SetUint("llama.feed_forward_length", 12);
  b.SetUint("llama.attention.head_count", 2);
  b.SetUint("llama.attention.head_count_kv", 1);
  b.SetFloat("llama.attention.layer_norm_rms_epsilon", 1e-6F);
  b.SetString("tokenizer.ggml.model", "llama");
  b.SetStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x41>", "a", "b"});
  b.SetFloats("tokenizer.ggml.scores", {0, 0, 0, 0, -1, -2});
  b.SetInts("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 1});
  b.SetUint("tokenizer.ggml.bos_token_id", 1);
  b.SetUint("tokenizer.ggml.eos_token_id", 2);
  b.SetTensor("token_embd.weight", {8, 6});
  b.SetTensor("blk.0.attn_norm.weight", {8});
  b.SetTensor("blk.0.attn_q.weight", {8, 8});
  b.SetTensor("blk.0.attn_k.weight", {8, 4});
  b.SetTensor("blk.0.attn_v.weight", {8, 4});
  b.SetTensor("blk.0.attn_output.weight", {8, 8});
  b.SetTensor("blk.0.ffn_norm.weight", {8});
  b.SetTensor("blk.0.ffn_gate.weight", {8, 12});
  b.SetTensor("blk.0.ffn_up.weight", {8, 12});
  b.SetTensor("blk.0.ffn_down.weight", {12, 8});
  b.SetTensor("output_norm.weight", {8});
  b.SetTensor("output.weight", {8, 6});
  return b;
}

GgufBuilder TinyGpt2() {
  GgufBuilder b;
  b.SetString("general.architecture", "gpt2");
  b.SetUint("gpt2.block_count", 2);
  b.SetUint("gpt2.context_length", 16);
  b.SetUint("gpt2.embedding_length", 8);
  b.SetUint("gpt2.feed_forward_length", 16);
  b.SetUint("gpt2.attention.head_count", 2);
  b.SetFloat("gpt2.attention.layer_norm_epsilon", 1e-5F);
  b.SetString("tokenizer.ggml.model", "gpt2");
  b.SetString("tokenizer.ggml.pre", "gpt-2");
  b.SetStrings("tokenizer.ggml.tokens", {"a", "b", "ab", "c", "<|endoftext|>"});
  b.SetInts("tokenizer.ggml.token_type", {1, 1, 1, 1, 3});
  b.SetStrings("tokenizer.ggml.merges", {"a b"});
  b.SetUint("tokenizer.ggml.eos_token_id", 4);
  b.SetTensor("token_embd.weight", {8, 5});
  b.SetTensor("position_embd.weight", {8, 16});
  for (const std::string block : {"blk.0.", "blk.1."}) {
    for (const std::string part : {".weight", ".bias"}) {
      b.SetTensor(block + "attn_norm" + part, {8});
      b.SetTensor(block + "ffn_norm" + part, {8});
    }
    b.SetTensor(block + "attn_qkv.weight", {8, 24});
    b.SetTensor(block + "attn_qkv.bias", {24});
    b.SetTensor(block + "attn_output.weight", {8, 8});
    b.SetTensor(block + "attn_output.bias", {8});
    b.SetTensor(block + "ffn_up.weight", {8, 16});
    b.SetTensor(block + "ffn_up.bias", {16});
    b.SetTensor(block + "ffn_down.weight", {16, 8});
    b.SetTensor(block + "ffn_down.bias", {8});
  }
  b.SetTensor("output_norm.weight", {8});
  b.SetTensor("output_norm.bias", {8});
  return b;
}

}  // namespace thimble
