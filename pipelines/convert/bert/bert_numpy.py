"""A BERT encoder in plain numpy, in double precision: the referee for an exported graph.

It shares no code with the exporter, so that a mistake in one shows against the other. It takes
one text at a time, without padding: right first, fast never.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
}


class Encoder:
    """`config` is config.json as read; `weights` maps the encoder's tensor names to arrays."""

    def __init__(self, config: Mapping[str, object], weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._epsilon = float(config["layer_norm_eps"])
        self._activation = ACTIVATIONS[str(config["hidden_act"])]

    def hidden_states(self, token_ids: list[int]) -> np.ndarray:
        """Last hidden state of one text: [tokens] → [tokens, hidden]."""
        x = (
            self._tensor("embeddings.word_embeddings.weight")[token_ids]
            + self._tensor("embeddings.token_type_embeddings.weight")[0]
            + self._tensor("embeddings.position_embeddings.weight")[: len(token_ids)]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        for index in range(self._layers):
            x = self._layer(x, f"encoder.layer.{index}")
        return x

    def _layer(self, x: np.ndarray, name: str) -> np.ndarray:
        attended = self._dense(self._attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
        x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
        wide = self._activation(self._dense(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        query, key, value = (
            np.split(self._dense(x, f"{name}.{part}"), self._heads, axis=1) for part in ("query", "key", "value")
        )
        mixed = []
        for q, k, v in zip(query, key, value, strict=True):
            scores = q @ k.T / math.sqrt(q.shape[1])
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed.append(shares / shares.sum(axis=1, keepdims=True) @ v)
        return np.concatenate(mixed, axis=1)

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._tensor(f"{name}.weight").T + self._tensor(f"{name}.bias")

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + self._epsilon)
        return centred / spread * self._tensor(f"{name}.weight") + self._tensor(f"{name}.bias")

    def _tensor(self, name: str) -> np.ndarray:
        return self._weights[name].astype(np.float64)
