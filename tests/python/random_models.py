"""Random-weight Hugging Face models, exported as users export theirs.

Each is made from a fixed seed, saved as a Hugging Face checkpoint, converted by
`onnxruntime_genai.models.builder` and given a parity probe computed by
`transformers`. The result is cached by a digest of these files, because the
builder needs some seconds a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import sluice

CACHE = Path(os.environ.get("SLUICE_CACHE", sluice.ROOT / ".cache")) / "random-models"
PIPELINES = sluice.ROOT / "pipelines"
PROBE = PIPELINES / "train" / "probe.py"
# What decides the result.
SOURCES = (Path(__file__), PROBE, PIPELINES / "conversion" / "language.py")
VOCABULARY = 1024
SMALL = dict(
    vocab_size=VOCABULARY,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=2,
    tie_word_embeddings=False,
    # Large enough that logits spread and greedy choices are never near-ties.
    initializer_range=0.2,
)


def configs():
    import transformers as t

    heads = dict(head_dim=32)
    return {
        "llama": lambda: t.LlamaConfig(**SMALL),
        "qwen2": lambda: t.Qwen2Config(**SMALL),
        "qwen3": lambda: t.Qwen3Config(**SMALL, **heads),
        "mistral": lambda: t.MistralConfig(**SMALL, sliding_window=None),
        "phi3": lambda: t.Phi3Config(**SMALL, original_max_position_embeddings=1024),
        "gemma2": lambda: t.Gemma2Config(**SMALL, **heads, sliding_window=64),
        # The exporter is silently wrong for these two; the probe must catch it.
        "mistral-window": lambda: t.MistralConfig(**SMALL, sliding_window=32),
        "olmo": lambda: t.OlmoConfig(**SMALL),
    }


@dataclass
class RandomModel:
    name: str
    checkpoint: Path
    folder: Path

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """The reference: transformers, fp32, one prompt at a time."""
        import torch
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32).eval()
        out = []
        with torch.no_grad():
            for prompt in prompts:
                ids = torch.tensor([prompt])
                made = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=2,
                )
                out.append(made[0, len(prompt) :].tolist())
        return out


def tokenizer(folder: Path):
    """A byte-level BPE over bytes plus a few merges: enough for a folder to be complete."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    text = [(sluice.ROOT / "LICENSE").read_text()]
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)


def make(name: str) -> RandomModel:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:12]
    base = CACHE / digest / name
    model = RandomModel(name, base / "checkpoint", base / "onnx")
    if (base / "done").exists():
        return model
    import torch
    import transformers

    torch.manual_seed(7)
    network = transformers.AutoModelForCausalLM.from_config(configs()[name]()).float().eval()
    network.generation_config = transformers.GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    network.save_pretrained(model.checkpoint)
    tokenizer(model.checkpoint)
    run = lambda *args: subprocess.run([sys.executable, *map(str, args)], check=True, capture_output=True, text=True)
    run("-m", "onnxruntime_genai.models.builder", "-i", model.checkpoint, "-o", model.folder, "-p", "fp32", "-e", "cpu", "-c", base / "cache")
    # Gemma2's export differs by some 1e-3 in its logits, with the same tokens. Unchecked: whether the export is right is for the server to find out.
    atol = "0.01" if name == "gemma2" else "0.001"
    run(PROBE, model.checkpoint, model.folder, "--unchecked", "--atol", atol)
    (base / "done").write_text(json.dumps({"name": name}))
    return model
