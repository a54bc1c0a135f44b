"""The graph of a random-weight Llama as our pipelines export it, without the weights.

    python graph.py OUT [--small] [--dtype fp16 --provider cuda]

Needs the packages of pipelines/convert/causal_lm. The weights are made again where they are wanted
(`llama.fill`); `tensors.json` says which bytes go where. A tokenizer of as many words goes with it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import onnx
import torch
import transformers
from llama import SMALL, Config, fill, random_weights
from onnxruntime_genai.models.builder import create_model, parse_extra_options
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def checkpoint(folder: str, c: Config, dtype: torch.dtype, weights: dict | None) -> None:
    """Zeros for the shapes alone, which take no time to make."""
    config = transformers.LlamaConfig(
        vocab_size=c.vocab, hidden_size=c.hidden, intermediate_size=c.forward, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head, max_position_embeddings=c.context,
        rope_parameters={"rope_type": "default", "rope_theta": c.theta}, rms_norm_eps=c.eps, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(weights[name]) if weights else tensor.zero_()
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(c.vocab)}, unk_token="w3"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1").save_pretrained(folder)


def export(out: Path, c: Config, dtype: str, provider: str, weights: dict | None = None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        hf, made = f"{scratch}/hf", Path(scratch, "onnx")
        checkpoint(hf, c, DTYPES[dtype], weights)
        options = parse_extra_options("", hf, str(made), dtype, provider, scratch, [])
        create_model("", hf, str(made), dtype, provider, scratch, **options)
        shutil.rmtree(hf)
        for file in made.iterdir():
            if file.name != "model.onnx.data" or weights:
                shutil.copy(file, out / file.name)
    graph = onnx.load(str(out / "model.onnx"), load_external_data=False).graph
    place = lambda tensor: {entry.key: entry.value for entry in tensor.external_data}
    tensors = [
        {"name": tensor.name, "shape": list(tensor.dims), "offset": int(place(tensor)["offset"])}
        for tensor in graph.initializer
        if tensor.external_data
    ]
    (out / "tensors.json").write_text(json.dumps(tensors) + "\n")
    c.write(out / "shape.json")


def check_filling(dtype: str, provider: str) -> None:
    """What `fill` writes is, byte for byte, what the exporter wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = random_weights(SMALL, DTYPES[dtype], "cpu")
        folder = Path(scratch, "small")
        export(folder, SMALL, dtype, provider, weights)
        exported = (folder / "model.onnx.data").read_bytes()
        fill(folder, SMALL, weights)
        filled = (folder / "model.onnx.data").read_bytes()
        # The exporter may pad at the end.
        if exported[: len(filled)] != filled:
            raise SystemExit("the weights are not where the graph looks for them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--provider", default="cuda")
    arguments = parser.parse_args()
    check_filling(arguments.dtype, arguments.provider)
    export(arguments.out, SMALL if arguments.small else Config(), arguments.dtype, arguments.provider)
    print(f"the graph is in {arguments.out}")


if __name__ == "__main__":
    main()
