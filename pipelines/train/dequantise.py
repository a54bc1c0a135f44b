"""Read a 4-bit ONNX folder of the model builder back into a transformers checkpoint.

    dequantise.py examples/helpdesk/models/v3 .cache/train/checkpoints/v3-read-back

The probe of a quantised model asks what *its own* weights say, so everything comes from
the ONNX folder: 4-bit matrices, the tensors left in float32, and config.json.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import LlamaConfig, LlamaForCausalLM

# Symmetric 4-bit codes are stored with this offset (MatMulNBits without a zero point).
OFFSET = 8


def unpack(codes: np.ndarray, scales: np.ndarray, columns: int) -> torch.Tensor:
    """[rows, blocks, block/2] bytes, low nibble first, times [rows, blocks] scales: [rows, columns]."""
    rows, blocks = codes.shape[:2]
    nibbles = np.stack([codes & 0x0F, codes >> 4], axis=-1).reshape(rows, blocks, -1)
    values = (nibbles.astype(np.float32) - OFFSET) * scales.reshape(rows, blocks, 1).astype(np.float32)
    # A last block that is only partly used is padded in storage.
    return torch.from_numpy(values.reshape(rows, -1)[:, :columns].copy())


def matrices(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Every 4-bit matrix as [out, in], by its name in the graph without the suffix."""
    stored = {item.name: item for item in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        attributes = {item.name: item.i for item in node.attribute}
        if attributes["bits"] != 4 or len([name for name in node.input if name]) != 3:
            raise SystemExit(f"{node.name}: only symmetric 4-bit matrices are read")
        codes, scales = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
        found[node.input[1].split(".MatMul.")[0]] = unpack(codes, scales, attributes["K"])
    return found


def state_of(model: onnx.ModelProto, config: LlamaConfig) -> dict[str, torch.Tensor]:
    """The weights under their names in transformers."""
    query, kv = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    state = {}
    for name, matrix in matrices(model).items():
        name = name.replace(".attn.", ".self_attn.")
        if name.endswith("qkv_proj"):
            for part, rows in zip("qkv", matrix.split([query, kv, kv]), strict=True):
                state[name.replace("qkv_proj", f"{part}_proj.weight")] = rows
        else:
            state[f"{name}.weight"] = matrix
    for item in model.graph.initializer:
        if item.name.endswith(("layernorm.weight", "embed_tokens.weight")):
            final = item.name.endswith("final_norm_layernorm.weight")
            values = torch.from_numpy(numpy_helper.to_array(item).copy())
            state["model.norm.weight" if final else item.name] = values
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="ONNX model folder")
    parser.add_argument("checkpoint", type=Path, help="transformers checkpoint to write")
    args = parser.parse_args()
    config = LlamaConfig.from_pretrained(str(args.folder), local_files_only=True)
    model = LlamaForCausalLM(config).float()
    model.load_state_dict(state_of(onnx.load(str(args.folder / "model.onnx")), config), strict=True)
    # Scales are float32, so this checkpoint must stay float32 to be exact.
    model.save_pretrained(str(args.checkpoint))
    print(f"{args.checkpoint.name}: {len(model.state_dict())} tensors read back from {args.folder.name}")


if __name__ == "__main__":
    main()
