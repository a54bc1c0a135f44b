"""Run an ONNX folder written by the onnxruntime-genai model builder, without that runtime.

One buffer per layer is bound as past and as present, as servers do; layers with an
attention window accept nothing smaller than their window there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime import OrtValue

from conversion import graphs


@dataclass
class Cache:
    """Keys and values of every layer, [batch, heads, capacity, head size], of which `used` positions count."""

    values: list[OrtValue]
    used: int


class OnnxModel:
    def __init__(self, folder: Path, threads: int = 2, capacity: int = 1024):
        self.config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        decoder = self.config["decoder"]
        self.session = graphs.session(folder / decoder["filename"], threads)
        self.heads, self.head_size = decoder["num_key_value_heads"], decoder["head_size"]
        self.capacity = max(capacity, decoder.get("sliding_window", {}).get("window_size", 0))
        inputs, outputs = decoder["inputs"], decoder["outputs"]
        layers, parts = range(decoder["num_hidden_layers"]), ("key", "value")
        self.cache_in = [inputs[f"past_{part}_names"] % n for n in layers for part in parts]
        self.cache_out = [outputs[f"present_{part}_names"] % n for n in layers for part in parts]
        declared = {item.name: item.type for item in self.session.get_inputs()}
        self.cache_type = np.float16 if "float16" in declared[self.cache_in[0]] else np.float32
        self.takes_positions = "position_ids" in declared

    def empty_cache(self, batch: int) -> Cache:
        shape = (batch, self.heads, self.capacity, self.head_size)
        values = [OrtValue.ortvalue_from_numpy(np.zeros(shape, self.cache_type)) for _ in self.cache_in]
        return Cache(values, 0)

    def step(self, ids: np.ndarray, cache: Cache) -> np.ndarray:
        """`ids` [batch, new] after what the cache holds, which grows; logits [batch, new, vocabulary]."""
        batch, new = ids.shape
        total = cache.used + new
        if total > self.capacity:
            raise ValueError(f"{total} tokens do not fit a cache of {self.capacity}")
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", ids.astype(np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((batch, total), np.int64))
        if self.takes_positions:
            binding.bind_cpu_input("position_ids", np.tile(np.arange(cache.used, total), (batch, 1)))
        binding.bind_output("logits")
        for past, present, value in zip(self.cache_in, self.cache_out, cache.values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        self.session.run_with_iobinding(binding)
        cache.used = total
        return binding.get_outputs()[0].numpy()

    def greedy(self, prompts: np.ndarray, limit: int, stop: int) -> list[list[int]]:
        """Continuations of prompts of one length [batch, length], without the stop token."""
        answers: list[list[int]] = [[] for _ in prompts]
        running = np.ones(len(prompts), bool)
        ids, cache = prompts, self.empty_cache(len(prompts))
        for _ in range(limit):
            chosen = self.step(ids, cache)[:, -1].argmax(-1)
            running &= chosen != stop
            if not running.any():
                break
            for row in np.flatnonzero(running):
                answers[row].append(int(chosen[row]))
            ids = chosen[:, None]
        return answers
