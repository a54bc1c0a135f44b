"""ONNX files after their export: weights beside the graph, int8, and running them."""

import os
from pathlib import Path
from typing import Any

from sluice_pipeline import Failure

PRECISIONS = ("fp32", "int8")
GRAPH, WEIGHTS = "model.onnx", "model.onnx.data"
# Smaller tensors stay in the graph.
LEAST_BYTES = 1024


def session(graph: Path, threads: int = 0) -> Any:
    """Opens a graph on the CPU, with at most so many threads; they sleep while they wait."""
    import onnxruntime

    cores = os.cpu_count() or 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads or cores, cores)
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def save(model: Any, folder: Path) -> None:
    """Weights beside the graph are mapped from disk instead of parsed out of one big protobuf."""
    import onnx

    onnx.save(
        model,
        folder / GRAPH,
        save_as_external_data=True,
        location=WEIGHTS,
        size_threshold=LEAST_BYTES,
    )


def quantise(folder: Path, scratch: Path) -> None:
    """Matrices in int8, a scale a column; activations are quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = scratch / "int8.onnx"
    try:
        quantize_dynamic(
            folder / GRAPH,
            small,
            per_channel=True,
            # Weights of seven bits: sums of two products of eight overflow on processors without VNNI.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    except Exception as reason:
        raise Failure("quantisation_failed", f"onnxruntime cannot quantise the graph: {reason}") from reason
    for name in (GRAPH, WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    save(onnx.load(small), folder)
