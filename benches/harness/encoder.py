"""The in-process reference: ONNX Runtime and tokenizers, no HTTP and no queue."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Encoder:
    """all-MiniLM-L6-v2 as a Python service would run it."""

    def __init__(self, folder: Path, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.names = {value.name for value in self.session.get_inputs()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def __call__(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([item.ids for item in encoded], np.int64)
        mask = np.array([item.attention_mask for item in encoded], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self.session.run(["last_hidden_state"], {name: feed[name] for name in self.names})[0]
        weights = mask[..., None].astype(np.float32)
        vectors = (hidden * weights).sum(1) / weights.sum(1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def limit(folder: Path, texts: list[str], seconds: float, sessions: int = 2, batch: int = 4) -> float:
    """Texts/s of `sessions` sessions with one thread each over ideal, length-sorted batches."""
    ordered = sorted(texts, key=len)
    groups = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    # A stride spreads lengths over time, so that a short window sees the whole mix.
    groups = [groups[index * 7919 % len(groups)] for index in range(len(groups))]
    encoders = [Encoder(folder, 1) for _ in range(sessions)]
    for encoder in encoders:
        encoder(["warm up"] * batch)
    end = time.perf_counter() + seconds
    counts = [0] * sessions

    def loop(which: int) -> None:
        turn = which
        while time.perf_counter() < end:
            group = groups[turn % len(groups)]
            encoders[which](group)
            counts[which] += len(group)
            turn += sessions

    threads = [threading.Thread(target=loop, args=(which,)) for which in range(sessions)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)
