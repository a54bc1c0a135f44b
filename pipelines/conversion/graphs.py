"""ONNX files after their export: weights beside the graph, and int8."""

from pathlib import Path

from sluice_pipeline import Failure

PRECISIONS = ("fp32", "int8")
GRAPH, WEIGHTS = "model.onnx", "model.onnx.data"
# Smaller tensors stay in the graph.
LEAST_BYTES = 1024


def save(model, folder: Path) -> None:
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
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    except Exception as reason:
        raise Failure("quantisation_failed", f"onnxruntime cannot quantise the graph: {reason}") from reason
    for name in (GRAPH, WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    save(onnx.load(small), folder)
