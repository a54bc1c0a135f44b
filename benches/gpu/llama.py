"""A Llama in plain PyTorch with random weights: what the engine is held against on a GPU.

Needs torch alone. Weights come from a seed, under Hugging Face's names, `[out, in]`. K/V lie in a static cache;
decoding can be captured as a CUDA graph, as a careful PyTorch user would.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass
class Config:
    vocab: int = 128_256
    hidden: int = 2048
    forward: int = 8192
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    head: int = 64
    context: int = 4096
    theta: float = 500_000.0
    eps: float = 1e-5

    @staticmethod
    def read(path: Path) -> Config:
        return Config(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


SMALL = Config(vocab=512, hidden=64, forward=96, layers=2, heads=4, kv_heads=2, head=16, context=512)


def names_and_shapes(c: Config):
    yield "model.embed_tokens.weight", (c.vocab, c.hidden)
    for i in range(c.layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (c.hidden,)
        yield layer + "self_attn.q_proj.weight", (c.heads * c.head, c.hidden)
        yield layer + "self_attn.k_proj.weight", (c.kv_heads * c.head, c.hidden)
        yield layer + "self_attn.v_proj.weight", (c.kv_heads * c.head, c.hidden)
        yield layer + "self_attn.o_proj.weight", (c.hidden, c.heads * c.head)
        yield layer + "post_attention_layernorm.weight", (c.hidden,)
        yield layer + "mlp.gate_proj.weight", (c.forward, c.hidden)
        yield layer + "mlp.up_proj.weight", (c.forward, c.hidden)
        yield layer + "mlp.down_proj.weight", (c.hidden, c.forward)
    yield "model.norm.weight", (c.hidden,)
    yield "lm_head.weight", (c.vocab, c.hidden)


def random_weights(c: Config, dtype: torch.dtype, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for name, shape in names_and_shapes(c):
        if len(shape) == 1:
            weights[name] = torch.ones(shape, dtype=dtype, device=device)
        else:
            # Wide enough that the greedy token is rarely a tie.
            scale = 0.8 / shape[1] ** 0.5 if name != "model.embed_tokens.weight" else 1.0
            weights[name] = (torch.randn(shape, generator=generator, device=device) * scale).to(dtype)
    return weights


def rotary_tables(c: Config, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines `[context, head / 2]`, in fp32."""
    inverse = 1.0 / c.theta ** (torch.arange(0, c.head, 2, dtype=torch.float32, device=device) / c.head)
    angles = torch.outer(torch.arange(c.context, dtype=torch.float32, device=device), inverse)
    return angles.cos(), angles.sin()


class Llama:
    def __init__(self, c: Config, weights: dict[str, torch.Tensor], batch: int, capacity: int):
        self.c, self.w, self.batch, self.capacity = c, weights, batch, capacity
        some = weights["lm_head.weight"]
        self.device, self.dtype = some.device, some.dtype
        cos, sin = rotary_tables(c, str(self.device))
        self.cos, self.sin = cos.to(self.dtype), sin.to(self.dtype)
        shape = (c.layers, batch, c.kv_heads, capacity, c.head)
        self.keys, self.values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        self.places = torch.arange(capacity, device=self.device)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.c.eps)).to(self.dtype) * self.w[name]

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    @torch.no_grad()
    def step(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, vocab]` after the last of `ids`; both are `[batch, new]`."""
        c, linear = self.c, torch.nn.functional.linear
        batch, new = ids.shape
        x = self.w["model.embed_tokens.weight"][ids]
        mask = (self.places <= positions[:, :, None])[:, None]
        rows = torch.arange(batch, device=self.device)[:, None]
        for i in range(c.layers):
            layer = f"model.layers.{i}."
            h = self.norm(x, layer + "input_layernorm.weight")
            heads = lambda name, count: linear(h, self.w[layer + f"self_attn.{name}_proj.weight"]).view(batch, new, count, c.head).transpose(1, 2)
            q, k = self.rotate(heads("q", c.heads), positions), self.rotate(heads("k", c.kv_heads), positions)
            self.keys[i, :batch].transpose(1, 2)[rows, positions] = k.transpose(1, 2)
            self.values[i, :batch].transpose(1, 2)[rows, positions] = heads("v", c.kv_heads).transpose(1, 2)
            attended = torch.nn.functional.scaled_dot_product_attention(q, self.keys[i, :batch], self.values[i, :batch], attn_mask=mask, enable_gqa=True)
            x = x + linear(attended.transpose(1, 2).reshape(batch, new, -1), self.w[layer + "self_attn.o_proj.weight"])
            h = self.norm(x, layer + "post_attention_layernorm.weight")
            gate, up = (linear(h, self.w[layer + f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
            x = x + linear(torch.nn.functional.silu(gate) * up, self.w[layer + "mlp.down_proj.weight"])
        return linear(self.norm(x[:, -1], "model.norm.weight"), self.w["lm_head.weight"])

    def greedy(self, prompt: list[int], tokens: int) -> tuple[list[int], list[float]]:
        """The likeliest continuation, and by how much each token's logit leads the next one's."""
        ids = torch.tensor([prompt], device=self.device)
        positions = torch.arange(len(prompt), device=self.device)[None]
        answer, leads = [], []
        for _ in range(tokens):
            best = self.step(ids, positions)[0].float().topk(2)
            answer.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
            ids, positions = best.indices[:1][None], positions[:, -1:] + 1
        return answer, leads


def fill(folder: Path, c: Config, weights: dict[str, torch.Tensor]) -> None:
    """Writes the external data that the folder's graph refers to (`tensors.json`), from Hugging Face's weights."""
    tensors = json.loads((folder / "tensors.json").read_text())
    dtype = weights["lm_head.weight"].dtype
    cos, sin = rotary_tables(c, "cpu")
    with open(folder / "model.onnx.data", "wb") as file:
        for tensor in tensors:
            data = converted(tensor["name"], c, weights, {"cos_cache": cos, "sin_cache": sin}).to(dtype).contiguous().cpu()
            if list(data.shape) != tensor["shape"]:
                raise SystemExit(f"{tensor['name']} is {list(data.shape)}, the graph wants {tensor['shape']}")
            file.seek(tensor["offset"])
            file.write(data.view(torch.uint8).numpy().tobytes() if data.dim() else b"")


def converted(name: str, c: Config, weights: dict, tables: dict) -> torch.Tensor:
    """A tensor of the exported graph: products are stored as `[in, out]`, query, key and value side by side."""
    if name in tables:
        return tables[name]
    if name == f"model.layers.{c.layers}.final_norm_layernorm.weight":
        return weights["model.norm.weight"]
    name = name.replace(".attn.", ".self_attn.")
    if not name.endswith(".MatMul.weight"):
        return weights[name]
    name = name.removesuffix(".MatMul.weight")
    if name.endswith("qkv_proj"):
        parts = [weights[name.replace("qkv_proj", f"{part}_proj") + ".weight"] for part in "qkv"]
        return torch.cat(parts).T
    return weights[name + ".weight"].T
