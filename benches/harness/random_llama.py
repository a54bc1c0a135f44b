"""A random-weight Llama of 17 M parameters as a Hugging Face checkpoint and as GGUF, in fp32 and in 4 bits. Needs no torch.

    python random_llama.py OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, FORWARD, LAYERS, HEADS, KV_HEADS, CONTEXT = 384, 1024, 8, 6, 2, 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    files = [str(path) for path in sorted(Path("/usr/share/common-licenses").iterdir())]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train(files, trainers.BpeTrainer(vocab_size=8192, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet))
    return tokenizer


def weights(vocabulary: int):
    """(Hugging Face name, GGUF name, values) of every tensor."""
    random = np.random.default_rng(0)
    matrix = lambda *shape: (random.standard_normal(shape) * 0.02).astype(np.float32)
    ones = np.ones(HIDDEN, np.float32)
    kv = KV_HEADS * HIDDEN // HEADS
    yield "model.embed_tokens.weight", "token_embd.weight", matrix(vocabulary, HIDDEN)
    for layer in range(LAYERS):
        hf, gg = f"model.layers.{layer}.", f"blk.{layer}."
        yield hf + "input_layernorm.weight", gg + "attn_norm.weight", ones
        yield hf + "self_attn.q_proj.weight", gg + "attn_q.weight", matrix(HIDDEN, HIDDEN)
        yield hf + "self_attn.k_proj.weight", gg + "attn_k.weight", matrix(kv, HIDDEN)
        yield hf + "self_attn.v_proj.weight", gg + "attn_v.weight", matrix(kv, HIDDEN)
        yield hf + "self_attn.o_proj.weight", gg + "attn_output.weight", matrix(HIDDEN, HIDDEN)
        yield hf + "post_attention_layernorm.weight", gg + "ffn_norm.weight", ones
        yield hf + "mlp.gate_proj.weight", gg + "ffn_gate.weight", matrix(FORWARD, HIDDEN)
        yield hf + "mlp.up_proj.weight", gg + "ffn_up.weight", matrix(FORWARD, HIDDEN)
        yield hf + "mlp.down_proj.weight", gg + "ffn_down.weight", matrix(HIDDEN, FORWARD)
    yield "model.norm.weight", "output_norm.weight", ones
    yield "lm_head.weight", "output.weight", matrix(vocabulary, HIDDEN)


def write_checkpoint(folder: Path, tokenizer: Tokenizer, tensors: list) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({name: values for name, _, values in tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=HIDDEN, intermediate_size=FORWARD,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HIDDEN // HEADS,
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, hidden_act="silu",
        bos_token_id=0, eos_token_id=2, tie_word_embeddings=False, torch_dtype="float32",
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(dict(bos_token_id=0, eos_token_id=2)))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token=SPECIAL[0], eos_token=SPECIAL[2], chat_template=TEMPLATE, model_max_length=CONTEXT,
    )))


def write_gguf(path: Path, tokenizer: Tokenizer, tensors: list, bits: int) -> None:
    """`bits` is 32 or 4: every matrix as Q4_0, as our 4-bit export has them in blocks of 32 too."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(tokenizer.get_vocab_size())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if bits == 32 else gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    vocabulary = tokenizer.get_vocab()
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(vocabulary) - 3))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for _, name, values in tensors:
        if bits == 4 and values.ndim == 2:
            q4 = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, gguf.quants.quantize(values, q4), raw_dtype=q4)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    out = Path(sys.argv[1])
    tokenizer = train_tokenizer()
    tensors = list(weights(tokenizer.get_vocab_size()))
    write_checkpoint(out / "hf", tokenizer, tensors)
    write_gguf(out / "model.gguf", tokenizer, tensors, bits=32)
    write_gguf(out / "model-q4_0.gguf", tokenizer, tensors, bits=4)
    print(f"{sum(values.size for *_, values in tensors) / 1e6:.1f} M parameters in {out}")


if __name__ == "__main__":
    main()
