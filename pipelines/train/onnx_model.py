"""Run an ONNX folder written by the onnxruntime-genai model builder, without that runtime.

Plain onnxruntime with a cache that grows: slow and easy to trust, which is what
evaluation and parity need.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime


class OnnxModel:
    def __init__(self, folder: Path, threads: int = 2):
        self.config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        decoder = self.config["decoder"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
        options.log_severity_level = 3
        path = str(folder / decoder["filename"])
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.layers = range(decoder["num_hidden_layers"])
        self.heads, self.head_size = decoder["num_key_value_heads"], decoder["head_size"]
        inputs, outputs = decoder["inputs"], decoder["outputs"]
        self.cache_in = [inputs[f"past_{part}_names"] % n for n in self.layers for part in ("key", "value")]
        self.cache_out = [outputs[f"present_{part}_names"] % n for n in self.layers for part in ("key", "value")]
        declared = {item.name: item.type for item in self.session.get_inputs()}
        self.cache_type = np.float16 if "float16" in declared[self.cache_in[0]] else np.float32
        self.takes_positions = "position_ids" in declared

    def step(self, ids: np.ndarray, cache: list[np.ndarray] | None) -> tuple[np.ndarray, list[np.ndarray]]:
        """`ids` [batch, new] after what the cache holds; logits [batch, new, vocabulary] and the longer cache."""
        batch = ids.shape[0]
        if cache is None:
            empty = np.zeros((batch, self.heads, 0, self.head_size), self.cache_type)
            cache = [empty] * len(self.cache_in)
        past = cache[0].shape[2]
        feeds = dict(zip(self.cache_in, cache, strict=True))
        feeds["input_ids"] = ids
        feeds["attention_mask"] = np.ones((batch, past + ids.shape[1]), np.int64)
        if self.takes_positions:
            feeds["position_ids"] = np.tile(np.arange(past, past + ids.shape[1]), (batch, 1))
        logits, *cache = self.session.run(["logits", *self.cache_out], feeds)
        return logits, cache

    def greedy(self, prompts: np.ndarray, limit: int, stop: int) -> list[list[int]]:
        """Continuations of prompts of one length [batch, length], without the stop token."""
        answers: list[list[int]] = [[] for _ in prompts]
        running = np.ones(len(prompts), bool)
        ids, cache = prompts.astype(np.int64), None
        for _ in range(limit):
            logits, cache = self.step(ids, cache)
            chosen = logits[:, -1].argmax(-1)
            running &= chosen != stop
            if not running.any():
                break
            for row in np.flatnonzero(running):
                answers[row].append(int(chosen[row]))
            ids = chosen[:, None].astype(np.int64)
        return answers
