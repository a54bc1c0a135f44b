"""The ONNX graph of a BERT encoder, written straight from its weights.

No PyTorch and no tracing: the network is small enough to state, and a stated graph is the
same on every machine. Only standard operators are used. On ONNX Runtime's CPU provider that
is also the fastest form: its optimiser turns them into FusedMatMul and BiasGelu, while the
contributed Attention, MultiHeadAttention and SkipLayerNormalization cost 8-18 % more
(one thread; the table is in this folder's README).

Inputs   input_ids, attention_mask, token_type_ids   int64   [batch, sequence]
Output   last_hidden_state                           float32 [batch, sequence, hidden]
Padding is masked; pooling stays with the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu as an operator
IR_VERSION = 10

# Hugging Face's activation names → the `approximate` attribute of ONNX's Gelu.
GELU_FORMS = {
    "gelu": "none",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


class UnsupportedCheckpoint(ValueError):
    """The folder describes a network that this module would get wrong."""


@dataclass(frozen=True)
class BertConfig:
    """The part of config.json that shapes the graph."""

    hidden: int
    heads: int
    layers: int
    positions: int
    norm_epsilon: float
    activation: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> BertConfig:
        if raw.get("model_type") != "bert":
            raise UnsupportedCheckpoint(f"model_type is {raw.get('model_type')!r}, not 'bert'")
        position_type = raw.get("position_embedding_type", "absolute")
        if position_type != "absolute":
            raise UnsupportedCheckpoint(f"position_embedding_type {position_type!r}")
        if raw.get("is_decoder"):
            raise UnsupportedCheckpoint("a decoder: its attention is causal")
        config = cls(
            hidden=raw["hidden_size"],
            heads=raw["num_attention_heads"],
            layers=raw["num_hidden_layers"],
            positions=raw["max_position_embeddings"],
            norm_epsilon=raw["layer_norm_eps"],
            activation=raw["hidden_act"],
        )
        if config.activation not in GELU_FORMS:
            raise UnsupportedCheckpoint(f"hidden_act {config.activation!r}")
        if config.hidden % config.heads:
            raise UnsupportedCheckpoint(f"{config.hidden} does not divide into {config.heads} heads")
        return config

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


def encoder_weights(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by their name inside the encoder, as float32.

    Checkpoints with a task head prefix the encoder by `bert.`; bare encoders do not.
    """
    return {name.removeprefix("bert."): array.astype(np.float32) for name, array in raw.items()}


class _Graph:
    """Collects nodes and initialisers. A node is named after the value that it makes."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def weight(self, name: str, *, transposed: bool = False) -> str:
        if name not in self._weights:
            raise UnsupportedCheckpoint(f"the checkpoint has no tensor {name!r}")
        array = self._weights[name]
        return self.constant(name, array.T if transposed else array)

    def linear(self, x: str, layer: str, output: str) -> str:
        """y = x Wᵀ + b. PyTorch stores W as [out, in]; MatMul wants [in, out]."""
        product = self.op("MatMul", [x, self.weight(f"{layer}.weight", transposed=True)], f"{output}/product")
        return self.op("Add", [product, self.weight(f"{layer}.bias")], output)

    def norm(self, x: str, layer: str, epsilon: float, output: str) -> str:
        inputs = [x, self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias")]
        return self.op("LayerNormalization", inputs, output, axis=-1, epsilon=epsilon)

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        return list(self._initializers.values())


def build(config: BertConfig, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The encoder as a checked ONNX model."""
    graph = _Graph(weights)
    mask = _additive_mask(graph)
    x = _embeddings(graph, config)
    for layer in range(config.layers):
        last = layer == config.layers - 1
        x = _layer(graph, config, x, mask, layer, "last_hidden_state" if last else f"layer{layer}/output")
    axes = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, axes)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, config.hidden])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, [output], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sluice",
    )
    onnx.checker.check_model(model)
    return model


def _embeddings(graph: _Graph, config: BertConfig) -> str:
    words = graph.op("Gather", [graph.weight("embeddings.word_embeddings.weight"), "input_ids"], "embed/word")
    kinds = graph.op(
        "Gather", [graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"], "embed/type"
    )
    # The first rows of the position table, by Slice: a Gather over Range is rewritten by
    # ONNX Runtime 1.32 into a Slice whose scalar start it then refuses.
    length = graph.op("Shape", ["input_ids"], "embed/length", start=1, end=2)
    table = graph.weight("embeddings.position_embeddings.weight")
    zero = graph.integers("zero", 0)
    places = graph.op("Slice", [table, zero, length, zero], "embed/position")
    total = graph.op("Add", [graph.op("Add", [words, kinds], "embed/word+type"), places], "embed/sum")
    return graph.norm(total, "embeddings.LayerNorm", config.norm_epsilon, "embed/output")


def _additive_mask(graph: _Graph) -> str:
    """0 where a token may be attended to, the lowest float elsewhere: [batch, 1, 1, sequence].

    Not minus infinity: a row of padding only would then be NaN instead of merely meaningless.
    """
    mask = graph.op("Unsqueeze", ["attention_mask", graph.integers("mask/axes", 1, 2)], "mask/wide")
    mask = graph.op("Cast", [mask], "mask/float", to=TensorProto.FLOAT)
    one = graph.constant("mask/one", np.array(1, np.float32))
    hidden = graph.op("Sub", [one, mask], "mask/hidden")
    return graph.op("Mul", [hidden, graph.constant("mask/lowest", np.finfo(np.float32).min)], "mask")


def _layer(graph: _Graph, config: BertConfig, x: str, mask: str, index: int, output: str) -> str:
    source, name = f"encoder.layer.{index}", f"layer{index}"
    context = _attention(graph, config, x, mask, f"{source}.attention.self", f"{name}/attention")
    attended = graph.linear(context, f"{source}.attention.output.dense", f"{name}/attention/dense")
    x = graph.norm(
        graph.op("Add", [attended, x], f"{name}/attention/residual"),
        f"{source}.attention.output.LayerNorm",
        config.norm_epsilon,
        f"{name}/attention/output",
    )
    wide = graph.linear(x, f"{source}.intermediate.dense", f"{name}/wide")
    wide = graph.op("Gelu", [wide], f"{name}/gelu", approximate=GELU_FORMS[config.activation])
    narrow = graph.linear(wide, f"{source}.output.dense", f"{name}/narrow")
    residual = graph.op("Add", [narrow, x], f"{name}/residual")
    return graph.norm(residual, f"{source}.output.LayerNorm", config.norm_epsilon, output)


def _attention(graph: _Graph, config: BertConfig, x: str, mask: str, source: str, name: str) -> str:
    # Reshape's 0 copies the axis: one constant serves every batch and length.
    split = graph.integers("heads/split", 0, 0, config.heads, config.head_size)
    merge = graph.integers("heads/merge", 0, 0, config.hidden)

    def heads(kind: str, order: list[int]) -> str:
        flat = graph.linear(x, f"{source}.{kind}", f"{name}/{kind}")
        parts = graph.op("Reshape", [flat, split], f"{name}/{kind}/heads")
        return graph.op("Transpose", [parts], f"{name}/{kind}/by_head", perm=order)

    query, value = heads("query", [0, 2, 1, 3]), heads("value", [0, 2, 1, 3])
    key = heads("key", [0, 2, 3, 1])  # transposed already: [batch, heads, head_size, sequence]
    scale = graph.constant("heads/scale", np.array(config.head_size**-0.5, np.float32))
    scores = graph.op("Mul", [graph.op("MatMul", [query, key], f"{name}/scores"), scale], f"{name}/scaled")
    masked = graph.op("Add", [scores, mask], f"{name}/masked")
    shares = graph.op("Softmax", [masked], f"{name}/shares", axis=-1)
    mixed = graph.op("MatMul", [shares, value], f"{name}/mixed")
    mixed = graph.op("Transpose", [mixed], f"{name}/by_token", perm=[0, 2, 1, 3])
    return graph.op("Reshape", [mixed, merge], f"{name}/context")
